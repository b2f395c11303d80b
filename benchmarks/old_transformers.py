"""Makes the environment that transformers 4.37.2 runs in, with this environment's torch: benchmarks/.venv-4.37.2.

python -m benchmarks.old_transformers
"""

import subprocess
import sys
import sysconfig

from benchmarks.sizes import OLD

# What 4.37.2 asks for, in the newest versions that it accepts. The rest it finds in this environment.
PACKAGES = ("transformers==4.37.2", "tokenizers==0.15.2", "huggingface-hub==0.36.0", "safetensors")


def make():
    subprocess.run([sys.executable, "-m", "venv", "--clear", OLD], check=True)
    python = OLD / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", *PACKAGES], check=True)
    where = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    # Paths that a .pth names come after the environment's own packages, so its transformers wins.
    with open(f"{where}/torch_of_the_lab.pth", "w", encoding="utf-8") as file:
        file.write(sysconfig.get_path("purelib") + "\n")
    (OLD / ".gitignore").write_text("*\n")


if __name__ == "__main__":
    make()
