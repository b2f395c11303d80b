"""A converted checkpoint compared with its release: every bit of every tensor, and the logits of a few tokens."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from persimmon_lab.adept.merging import same_bits
from persimmon_lab.adept.open_release import OpenRelease
from persimmon_lab.adept.tensor_names import EMBEDDING
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.checkpoints.rounded import Rounding
from persimmon_lab.checkpoints.rounded_models import read_weight
from persimmon_lab.checkpoints.safetensors_writer import Progress, unheard
from persimmon_lab.checkpoints.settings import read_config
from persimmon_lab.checkpoints.shards import open_weights
from persimmon_lab.checkpoints.tensor_streams import Source, read
from persimmon_lab.checkpoints.weight_files import FileTensor
from persimmon_lab.quantisation import QuantisedEmbedding, QuantisedLinear, RoundedWeight

POSITIONS = 8  # tokens whose logits are compared


def verify(release: OpenRelease, out: str | os.PathLike[str], progress: Progress = unheard) -> None:
    """Read a checkpoint back and compare it with the release it came from.

    All tensors are compared bit for bit, a few rows at a time. Then the checkpoint runs a forward pass with one
    module's weights in memory at a time, and so do the tensors of the release: the logits must be finite and equal.
    `progress` is told the number of bytes of each tensor compared.

    Raises CheckpointError that names the first tensor which differs, or says what is wrong with the logits.
    """
    out = Path(out).expanduser()
    written = {name: FileTensor(file, name) for name, file in open_weights(out).items()}
    if odd := written.keys() ^ release.tensors.keys():
        raise CheckpointError(f"{out} holds other tensors than {release.source}: {', '.join(sorted(odd))}")
    for name, tensor in release.tensors.items():
        if not same_bits(written[name], tensor):
            raise CheckpointError(f"{name} in {out} is not what {release.source} holds; convert it again")
        progress(tensor.nbytes)
    if read_config(out, rounded_too=True) != release.config:
        raise CheckpointError(f"config.json in {out} is not the configuration of {release.source}; convert it again")
    model = PersimmonForCausalLM.from_pretrained(out, torch_dtype="auto", device="meta")  # fits, and takes no memory
    some_ids = rearrange(torch.arange(POSITIONS), "position -> 1 position") % release.config.vocab_size
    ours = logits(model, some_ids, written)
    theirs = logits(model, some_ids, release.tensors)
    if not bool(ours.isfinite().all()):
        raise CheckpointError(f"the model in {out} computes logits that are not finite in {model.dtype}")
    if not torch.equal(ours, theirs):
        raise CheckpointError(f"the model in {out} computes other logits than the tensors of {release.source}")


@torch.no_grad()
def logits(
    model: PersimmonForCausalLM, ids: Int[Tensor, "batch position"], tensors: Mapping[str, Source]
) -> Float[Tensor, "batch position vocab"]:
    """The forward pass of a model on meta, each of whose modules has its weights only while it runs."""
    handles = []
    for path, module in model.named_modules():
        absent: dict[str, nn.Parameter | RoundedWeight] = dict(module.named_parameters(recurse=False))
        if isinstance(module, QuantisedLinear | QuantisedEmbedding):
            absent["weight"] = module.weight
        names = {name: _stored_name(f"{path}.{name}", tensors) for name in absent}

        def take(module: nn.Module, inputs: tuple[Any, ...], names: dict[str, str] = names) -> None:
            for name, stored in names.items():
                setattr(module, name, _weight_of(tensors[stored], stored, getattr(module, name)))

        def leave(
            module: nn.Module,
            inputs: tuple[Any, ...],
            output: object,
            absent: dict[str, nn.Parameter | RoundedWeight] = absent,
        ) -> None:
            for name, weight in absent.items():
                setattr(module, name, weight)

        handles += [module.register_forward_pre_hook(take), module.register_forward_hook(leave)] if names else []
    try:
        result: Float[Tensor, "batch position vocab"] = model(ids, use_cache=False).logits
        return result
    finally:
        for handle in handles:
            handle.remove()


def _weight_of(source: Source, name: str, absent: nn.Parameter | RoundedWeight) -> nn.Parameter | RoundedWeight:
    """What a module on meta lacks."""
    if isinstance(absent, RoundedWeight):
        return read_weight(source, name, tuple(absent.shape), Rounding(absent.format, absent.dtype), "cpu")
    return nn.Parameter(read(source).to(absent.dtype), requires_grad=False)


def _stored_name(name: str, tensors: Mapping[str, Source]) -> str:
    return name if name in tensors else EMBEDDING  # the head that is tied to it
