"""Makes reference_4.37.2.safetensors with transformers 4.37.2, the version that the page describes.

    python -m venv ../reference && ../reference/bin/pip install transformers==4.37.2 torch==2.13.0 "numpy<2"
    ../reference/bin/python -m tests.parity.make_reference

Both are run at the root of the repository. `--check` compares instead of writing.
"""

import argparse
import os

import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.parity.cases import CASES, REFERENCE, compute


def make() -> dict[str, torch.Tensor]:
    """Every tensor of every case, under "case/tensor"; on one thread, as the tests run."""
    torch.set_num_threads(1)
    return {
        f"{case.name}/{name}": tensor.contiguous().clone()
        for case in CASES.values()
        if case.in_reference
        for name, tensor in compute(case, transformers).items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the committed file, write nothing")
    check = parser.parse_args().check
    if transformers.__version__ != "4.37.2":
        raise SystemExit(f"the reference is transformers 4.37.2, this is {transformers.__version__}")

    tensors = make()
    if check:
        stored = load_file(REFERENCE)
        if stored.keys() != tensors.keys():
            raise SystemExit(f"other tensors than the file has: {sorted(stored.keys() ^ tensors.keys())}")
        worst = max((stored[name] - tensors[name]).abs().max().item() for name in tensors)
        print(f"{len(tensors)} tensors, largest difference from the file {worst:.1e}")
        return
    temporary = REFERENCE.with_suffix(".partial")
    save_file(tensors, temporary, metadata={"transformers": transformers.__version__, "torch": torch.__version__})
    os.replace(temporary, REFERENCE)
    print(f"{len(tensors)} tensors, {REFERENCE.stat().st_size:,} bytes: {REFERENCE.name}")


if __name__ == "__main__":
    main()
