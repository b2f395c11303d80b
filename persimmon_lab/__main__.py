"""`python -m persimmon_lab` is `persimmon-lab`; `torchrun -m persimmon_lab` starts it in several processes."""

from persimmon_lab.cli import app

if __name__ == "__main__":
    app(prog_name="persimmon-lab")
