"""A release opened: its tensors under our names, its configuration and its tokenizer, checked against each other."""

import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from persimmon_lab.adept.megatron_args import PER_RANK, read_settings
from persimmon_lab.adept.merging import Finite, merge, same_bits, unequal_copies
from persimmon_lab.adept.release import TOKENIZER, Release, find_release
from persimmon_lab.adept.tensor_names import EMBEDDING, HEAD, INVERSE_FREQUENCIES, gather
from persimmon_lab.adept.torch_files import read_archive
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.checkpoints.matching import differences
from persimmon_lab.checkpoints.rounded import Rounded, Rounding, names_to_round, rounding_of, settle_rounding
from persimmon_lab.checkpoints.skeletons import shapes_in_file, skeleton
from persimmon_lab.checkpoints.tensor_streams import Source, read
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.dtypes import dtype_name
from persimmon_lab.tokenizer import PersimmonTokenizer

TRAINED_IN = {"bf16": torch.bfloat16, "fp16": torch.float16}  # the switches of Megatron's command line
END_OF_TEXT_ID = 71013  # of `|ENDOFTEXT|` in the tokenizer of Persimmon-8B


@dataclass(frozen=True)
class OpenRelease:
    """A release that was found whole and in itself consistent, with its tensors still in their files.

    `tensors` go by our names, in the model's order and in the dtype asked for, or rounded from there. `notes` says what
    was assumed.
    """

    files: Release
    config: PersimmonConfig
    tensors: Mapping[str, Source]
    tokenizer: PersimmonTokenizer | None
    notes: list[str]

    @property
    def source(self) -> Path:
        return self.files.source

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in model_shapes(self.config).values())

    @property
    def rounding(self) -> Rounding | None:
        """How the tensors are rounded as they are read, if they are."""
        return rounding_of(self.config)


def open_release(source: str | os.PathLike[str], dtype: torch.dtype | None = None) -> OpenRelease:
    """Check all of a release that can be checked without reading its large tensors."""
    files = find_release(source)
    archives = {index: read_archive(window) for index, window in files.ranks.items()}
    args = [archive["args"] for archive in archives.values() if isinstance(archive.get("args"), dict)]
    gathered = gather(archives)
    _check_copies(gathered, args)
    merged = {name: merge(name, parts) for name, parts in gathered.items()}
    frequencies = {name: read(merged.pop(name)) for name in sorted(merged) if name.endswith(INVERSE_FREQUENCIES)}
    ranks = tuple(1 + max(index) for index in zip(*files.ranks))
    config, notes = read_settings(args, merged, frequencies, ranks)
    tokenizer = _read_tokenizer(files)
    bos, eos, assumed = _token_ids(tokenizer, config.vocab_size)
    tensors = {
        name: Finite(name, tensor, dtype or tensor.dtype)
        for name, tensor in _tensors_of_the_model(config, merged, files.source).items()
    }
    chosen = tensors[EMBEDDING].dtype
    others = [name for name, tensor in tensors.items() if tensor.dtype != chosen]
    notes += assumed + [f"{name} is stored in {tensors[name].dtype}, the embedding in {chosen}" for name in others]
    stored = merged[EMBEDDING].dtype
    notes += [
        f"args say {switch}, but the embedding is stored in {stored}: tensors are converted as they are stored"
        for switch, trained_in in TRAINED_IN.items()
        if args and args[0].get(switch) and trained_in != stored
    ]
    config = replace(config, torch_dtype=dtype_name(chosen), bos_token_id=bos, eos_token_id=eos)
    return OpenRelease(files, config, tensors, tokenizer, notes)


def rounded(release: OpenRelease, quantize: str) -> OpenRelease:
    """A release whose weights are rounded as they are read, to "int8" or "int4", with scales in the dtype they have.

    Raises ValueError for another format, CheckpointError for rows that groups of four bits do not divide.
    """
    rounding = settle_rounding(quantize, None, release.tensors[EMBEDDING].dtype)
    assert rounding is not None
    names = set(names_to_round(skeleton(PersimmonForCausalLM, release.config)))
    tensors: dict[str, Source] = {
        name: Rounded(name, tensor, rounding) if name in names else tensor for name, tensor in release.tensors.items()
    }
    for name in names & tensors.keys():
        rounding.check_width(name, release.tensors[name].shape)
    return replace(release, tensors=tensors, config=rounding.marked(release.config))


def _tensors_of_the_model(config: PersimmonConfig, merged: Mapping[str, Source], source: Path) -> dict[str, Source]:
    """What a model of this configuration stores, in its order; raises CheckpointError unless that is what there is."""
    needed = model_shapes(config)
    present = {name: tensor for name, tensor in merged.items() if name != HEAD or HEAD in needed}
    if lists := differences(needed, present):
        raise CheckpointError(f"{source} holds other tensors than its sizes ask for.\n  " + "\n  ".join(lists))
    if len(present) < len(merged) and not same_bits(merged[HEAD], merged[EMBEDDING]):
        raise CheckpointError(f"untie_embeddings is off, but {HEAD} and {EMBEDDING} are two different tensors")
    return {name: present[name] for name in needed}


def _check_copies(gathered: Mapping[str, Sequence[Source]], args: Sequence[Mapping[str, Any]]) -> None:
    unequal = unequal_copies(gathered)
    if unequal and args and args[0].get("qk_layernorm") == PER_RANK:
        raise CheckpointError(
            f"qk_layernorm is {PER_RANK}, and the ranks differ: Persimmon has one query and one key norm for all heads "
            f"of a layer: {', '.join(unequal)}"
        )
    if unequal:
        raise CheckpointError(f"these should be the same on every rank, and differ: {', '.join(unequal)}")


def model_shapes(config: PersimmonConfig) -> dict[str, tuple[int, ...]]:
    """What a model of this configuration stores, in its order."""
    model = skeleton(PersimmonForCausalLM, config)
    return shapes_in_file(model, model._tied_weights_keys if config.tie_word_embeddings else ())


def _read_tokenizer(release: Release) -> PersimmonTokenizer | None:
    if release.tokenizer is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, TOKENIZER)
        path.write_bytes(release.tokenizer)
        try:
            return PersimmonTokenizer(path)
        except ValueError as error:
            raise CheckpointError(
                f"the {TOKENIZER} of {release.source} holds no sentencepiece model ({len(release.tokenizer):,} bytes); "
                "copy or download it again, or take it away to convert without a tokenizer"
            ) from error


def _token_ids(tokenizer: PersimmonTokenizer | None, vocab_size: int) -> tuple[int | None, int | None, list[str]]:
    """Where texts begin, where they end, and what was assumed for it."""
    if tokenizer is not None:
        if len(tokenizer) > vocab_size:
            raise CheckpointError(
                f"{TOKENIZER} has {len(tokenizer)} pieces, but the model has embeddings for {vocab_size} tokens"
            )
        return tokenizer.bos_token_id, tokenizer.eos_token_id, []
    if vocab_size > END_OF_TEXT_ID:
        taken = f"texts are taken to begin and end with token {END_OF_TEXT_ID}, as Persimmon-8B's"
        return END_OF_TEXT_ID, END_OF_TEXT_ID, [f"there is no {TOKENIZER}, so {taken}"]
    return None, None, [f"there is no {TOKENIZER}, so no token is known to begin or end a text"]
