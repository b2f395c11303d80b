"""Which tensor of a checkpoint goes where in a model, and what to say when they do not fit."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.nn import Parameter

from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.checkpoints.tensor_streams import checksum_of
from persimmon_lab.checkpoints.weight_files import WeightFile
from persimmon_lab.dtypes import FLOATS

BODY = "model."
HEADS = ("lm_head.weight", "score.weight")
EMBEDDING = "embed_tokens.weight"


@runtime_checkable
class Described(Protocol):
    """Whatever tells the shape and the dtype of a tensor, as every `Source` does.

    The dtype is a file's own name for it where torch has none.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> torch.dtype | str: ...


@dataclass(frozen=True)
class Description:
    shape: tuple[int, ...]
    dtype: torch.dtype | str


def names_in_file(model_names: Iterable[str], file_names: Iterable[str]) -> dict[str, str]:
    """What each tensor of a model is called in a file: the body alone is saved without the `model.` of the heads."""
    model_names = list(model_names)
    model_has_heads = any(name.startswith(BODY) for name in model_names)
    file_has_heads = any(name.startswith(BODY) for name in file_names)
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
    rounded: Collection[str] = (),
) -> None:
    """Compare a checkpoint's tensors with those a model needs, `rounded` ones among them, by their names there.

    Raises CheckpointError that lists every difference.
    """
    needed = {stored[name]: shape for name, shape in shapes.items()}
    # Other classes' heads are left out; early Persimmon checkpoints carry a buffer that follows from the config.
    present = {
        name: Description(file.shapes[name], file.dtypes[name])
        for name, file in files.items()
        if name in needed or name not in HEADS and not name.endswith("rotary_emb.inv_freq")
    }
    if lists := differences(needed, present, rounded):
        raise CheckpointError(
            f"the weights in {folder} are not those of the {architecture} that its config.json describes.\n  "
            + "\n  ".join(lists)
        )


def differences(
    needed: Mapping[str, tuple[int, ...]], present: Mapping[str, Described], rounded: Collection[str] = ()
) -> list[str]:
    """What is wrong with the tensors that are there, set against the shapes that a model needs: a line a kind. The
    `rounded` ones have to be bytes, the others floating point."""
    both = {name: present[name] for name in needed if name in present}
    kinds = {
        "missing": [name for name in needed if name not in present],
        "unexpected": [name for name in present if name not in needed],
        "of another shape": [
            f"{name} is {tuple(tensor.shape)}, the model's is {needed[name]}"
            for name, tensor in both.items()
            if tuple(tensor.shape) != needed[name]
        ],
        "not floating point (a quantised checkpoint?)": [
            f"{name} is {tensor.dtype}"
            for name, tensor in both.items()
            if name not in rounded and tensor.dtype not in FLOATS
        ],
        "not rounded, as config.json says": [
            f"{name} is {both[name].dtype}" for name in rounded if name in both and both[name].dtype != torch.uint8
        ],
    }
    return [f"{len(names)} {what}: {', '.join(names)}" for what, names in kinds.items() if names]


def check_savable(
    architecture: str,
    needed: Mapping[str, tuple[int, ...]],
    tensors: Mapping[str, Shaped[Tensor, "..."]],
    optional: Iterable[str] = (),
) -> None:
    """Compare a model's tensors with those that its class has by its configuration: what is written must be read again.

    `optional` may be missing. Raises ValueError that names the modules, or the tensors and what they are.
    """
    strange = [name for name in tensors if name not in needed]
    missing = [name for name in needed if name not in tensors and name not in set(optional)]
    if strange or missing:
        modules = list(dict.fromkeys(name.rpartition(".")[0] for name in strange or missing))
        # peft puts two tensors beside a weight, torch's prune a mask, torch's parametrizations what the weight is of.
        raise ValueError(
            f"this {architecture} has {len(strange)} tensors that its configuration does not describe, and lacks "
            f"{len(missing)}: see {_listed(modules)} ({_listed(strange or missing)}). Take out what was put in before "
            "saving: peft's merge_and_unload(), or its own save_pretrained for the adapter alone; torch's "
            "prune.remove and parametrize.remove_parametrizations"
        )
    embedding = next((name for name in needed if name.endswith(EMBEDDING)), None)
    if embedding is not None and len(tensors[embedding]) != needed[embedding][0]:
        raise ValueError(
            f"the embedding has {len(tensors[embedding])} rows and config.vocab_size is {needed[embedding][0]}: rows "
            "were dropped, and nothing in a checkpoint says which; save the whole model"
        )
    if meta := [name for name, tensor in tensors.items() if tensor.is_meta]:
        raise ValueError(f"{len(meta)} tensors are on the meta device and have no values to save: {', '.join(meta)}")
    if subclasses := [name for name, tensor in tensors.items() if type(tensor) not in (Tensor, Parameter)]:
        kind = type(tensors[subclasses[0]])
        raise ValueError(
            f"{len(subclasses)} tensors are quantised or distributed, which safetensors cannot hold: "
            f"{_listed(subclasses)} ({kind.__module__}.{kind.__qualname__}); save the model as it was before, or give "
            "the whole tensors as state_dict="
        )
    if lists := differences({name: shape for name, shape in needed.items() if name in tensors}, tensors):
        raise ValueError(f"this {architecture} is not what its configuration describes.\n  " + "\n  ".join(lists))


def _listed(names: list[str], most: int = 4) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def check_tied(folder: Path, tied: Iterable[str], files: dict[str, WeightFile]) -> None:
    """A checkpoint may hold the tied tensor twice, but not two different ones."""
    embedding = next(name for name in files if name.endswith(EMBEDDING))
    for name in tied:
        if name in files:
            one = files[name].read(name, dtype=files[name].dtype_of(name), device="cpu")
            other = files[embedding].read(embedding, dtype=files[embedding].dtype_of(embedding), device="cpu")
            if one.shape != other.shape or checksum_of(one) != checksum_of(other):
                raise CheckpointError(
                    f"{folder} contradicts itself: config.json has tie_word_embeddings true, but {name} and "
                    f"{embedding} are two different tensors; pass tie_word_embeddings=False to keep both"
                )
