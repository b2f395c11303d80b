"""Which tensor of a checkpoint goes where in a model, and what to say when they do not fit."""

from collections.abc import Iterable
from pathlib import Path

import torch

from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.checkpoints.sources import checksum_of
from persimmon_lab.checkpoints.weights import WeightFile

BODY = "model."
HEADS = ("lm_head.weight", "score.weight")
EMBEDDING = "embed_tokens.weight"
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def names_in_file(model_names: Iterable[str], file_names: Iterable[str]) -> dict[str, str]:
    """What each tensor of a model is called in a file: the body alone is saved without the `model.` of the heads."""
    model_names = list(model_names)
    model_has_heads, file_has_heads = (any(name.startswith(BODY) for name in n) for n in (model_names, file_names))
    if model_has_heads == file_has_heads:
        return {name: name for name in model_names}
    if file_has_heads:
        return {name: BODY + name for name in model_names}
    return {name: name.removeprefix(BODY) for name in model_names}


def check_fit(
    folder: Path,
    architecture: str,
    shapes: dict[str, tuple[int, ...]],
    stored: dict[str, str],
    files: dict[str, WeightFile],
):
    """Compare a checkpoint's tensors with those a model needs; raises CheckpointError that lists every difference."""
    needed = {stored[name]: shape for name, shape in shapes.items()}
    missing = [name for name in needed if name not in files]
    # Other classes' heads are left out; early Persimmon checkpoints carry a buffer that follows from the config.
    unexpected = [
        name for name in files if name not in needed and name not in HEADS and not name.endswith("rotary_emb.inv_freq")
    ]
    present = {name: shape for name, shape in needed.items() if name in files}
    misshapen = [
        f"{name} is {files[name].shapes[name]}, the model's is {shape}"
        for name, shape in present.items()
        if files[name].shapes[name] != shape
    ]
    not_float = [f"{name} is {files[name].dtypes[name]}" for name in present if files[name].dtypes[name] not in FLOATS]
    differences = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": misshapen,
        "not floating point (a quantised checkpoint?)": not_float,
    }
    if any(differences.values()):
        lists = [f"{len(names)} {what}: {', '.join(names)}" for what, names in differences.items() if names]
        raise CheckpointError(
            f"the weights in {folder} are not those of the {architecture} that its config.json describes.\n  "
            + "\n  ".join(lists)
        )


def check_tied(folder: Path, tied: Iterable[str], files: dict[str, WeightFile]):
    """A checkpoint may hold the tied tensor twice, but not two different ones."""
    embedding = next(name for name in files if name.endswith(EMBEDDING))
    for name in tied:
        if name in files:
            one, other = (files[n].read(n, dtype=files[n].dtypes[n], device="cpu") for n in (name, embedding))
            if one.shape != other.shape or checksum_of(one) != checksum_of(other):
                raise CheckpointError(
                    f"{folder} contradicts itself: config.json has tie_word_embeddings true, but {name} and "
                    f"{embedding} are two different tensors; pass tie_word_embeddings=False to keep both"
                )
