"""Several processes from one: torchrun, started from Python, with nothing of it left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")
GRACE = 40.0  # seconds in which torchrun ends its processes when it is told to: it waits 30 before it kills them


@dataclass(frozen=True)
class Launched:
    """How it ended: torchrun's exit status, 0 where every rank had 0, and what all ranks wrote."""

    status: int
    output: str
    errors: str


def launch(arguments: Sequence[str], processes: int = 2, *, threads: int = 1, patience: float = 120.0) -> Launched:
    """Run `arguments` (a script and what it is given, or -m and a module) in so many processes of this machine, each
    with so many threads, and wait: `torchrun --standalone --nproc-per-node PROCESSES …`.

    The processes find a free port by themselves. When one of them fails torchrun ends the others. Raises TimeoutError
    with what they wrote after `patience` seconds; then, and on any interruption, they are ended first.
    """
    command = [*TORCHRUN, f"--nproc-per-node={processes}", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as torchrun:
        try:
            output, errors = torchrun.communicate(timeout=patience)
        except subprocess.TimeoutExpired as error:
            output, errors = end(torchrun)
            raise TimeoutError(
                f"{' '.join(map(str, arguments))} on {processes} processes took more than {patience:g} s and was ended."
                f" They wrote:\n{output}{errors}"
            ) from error
        except BaseException:
            end(torchrun)
            raise
    return Launched(torchrun.returncode, output, errors)


def end(torchrun: "subprocess.Popen[str]") -> tuple[str, str]:
    """Let torchrun end its processes, then itself; what they all wrote."""
    torchrun.send_signal(signal.SIGTERM)
    try:
        return torchrun.communicate(timeout=GRACE)
    except subprocess.TimeoutExpired:
        torchrun.kill()
        return torchrun.communicate()
