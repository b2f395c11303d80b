"""Releases like Adept's, made on the spot: the files that Megatron writes, with small random tensors.

After megatron/checkpointing.py and megatron/model/ of persimmon-ai-labs/adept-inference. The classes that `args` refers
to exist while a file is written and are gone when it is read, as for anybody without a copy of that repository.
"""

import argparse
import contextlib
import enum
import itertools
import math
import random
import sys
import tarfile
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

# The axis that is divided among the tensor ranks; everything else is the same on all of them.
SPLIT = {
    "embed_tokens.weight": 0,
    "lm_head.weight": 0,
    "query_key_value.weight": 0,
    "query_key_value.bias": 0,
    "self_attn.dense.weight": 1,
    "dense_h_to_4h.weight": 0,
    "dense_h_to_4h.bias": 0,
    "dense_4h_to_h.weight": 1,
}
PER_LAYER, PER_RANK, PER_HEAD = (
    "weights_per_layer",
    "weights_per_tensor_parallel_rank_and_layer",
    "weights_per_attention_head_and_layer",
)


@dataclass(frozen=True)
class Plan:
    """What a release is made of.

    `interleaved` gives each pipeline stage two runs of layers, `model0` and `model1`. A dictionary as `args` overrides
    fields of them, False leaves them out. `edit(checkpoint, stage, rank)` may change what is about to be written. With
    `scratch`, a folder, the tensors live in mapped files there: so a release of many GB is made in little memory.
    """

    hidden: int = 32
    heads: int = 4
    layers: int = 3
    vocab: int = 64
    mlp: int = 128
    kv_channels: int | None = None
    seq_length: int = 48
    rotary_pct: float = 0.5
    rotary_emb_base: float = 25000
    layernorm_epsilon: float = 1e-5
    tensor_parallel: int = 1
    pipeline: int = 1
    interleaved: bool = False
    qk_layernorm: str = PER_LAYER
    tied: bool = False
    dtype: torch.dtype = torch.bfloat16
    args: bool | dict = True
    optimizer: bool = False
    distributed_optimizer: bool = False
    old_names: bool = False
    legacy: bool = False
    location: str = "cuda:0"
    iteration: int = 1000
    tokenizer: bytes | None = b"a sentencepiece model"
    seed: int = 0
    scratch: Path | None = None
    edit: Callable[[dict, int, int], None] | None = None

    def __post_init__(self):
        for size in (self.heads, self.vocab, self.mlp):
            assert size % self.tensor_parallel == 0
        assert self.layers % (self.pipeline * self.chunks) == 0

    @property
    def channels(self) -> int:
        return self.kv_channels or self.hidden // self.heads

    @property
    def chunks(self) -> int:
        return 2 if self.interleaved else 1

    @property
    def layers_in_a_run(self) -> int:
        return self.layers // (self.pipeline * self.chunks)

    def rank_folder(self, stage: int, rank: int) -> str:
        return f"mp_rank_{rank:02d}" + (f"_{stage:03d}" if self.pipeline > 1 else "")


def build_release(folder: Path, **options) -> dict[str, Tensor]:
    """Write a release by a `Plan` of these options; returns its tensors, whole, under transformers' names.

    Of the two qk_layernorm modes that transformers cannot express, the norms are returned stacked, one row for each
    tensor rank or head.
    """
    plan = Plan(**options)
    generator = torch.Generator().manual_seed(plan.seed)
    empty = _mapped(plan.scratch) if plan.scratch else torch.empty
    whole = {
        name: empty(shape, dtype=plan.dtype).normal_(0.0, 0.3, generator=generator) for name, shape in _shapes(plan)
    }
    for stage, rank in itertools.product(range(plan.pipeline), range(plan.tensor_parallel)):
        parts = {name: _part(plan, name, tensor, rank, empty) for name, tensor in whole.items()}
        runs = [_run(plan, parts, stage, chunk, rank) for chunk in range(plan.chunks)]
        checkpoint = {"checkpoint_version": 3.0, "iteration": plan.iteration, "rng_state": [_rng_state(plan.seed)]}
        checkpoint |= (
            {f"model{number}": run for number, run in enumerate(runs)} if plan.interleaved else {"model": runs[0]}
        )
        moments = _moments(parts["model.layers.0.input_layernorm.weight"], generator)
        if plan.optimizer and not plan.distributed_optimizer:
            checkpoint |= moments
        with megatron() as enums:
            if plan.args is not False:
                checkpoint["args"] = _args(plan, stage, rank, enums)
            if plan.edit:
                plan.edit(checkpoint, stage, rank)
            here = folder / f"iter_{plan.iteration:07d}" / plan.rank_folder(stage, rank)
            name = "model_rng.pt" if plan.distributed_optimizer else "model_optim_rng.pt"
            write_archive(here / name, checkpoint, legacy=plan.legacy, location=plan.location)
        if plan.distributed_optimizer:  # in one more folder for each data-parallel process
            write_archive(here.with_name(f"{here.name}_000") / "optim.pt", moments, location=plan.location)
    (folder / "latest_checkpointed_iteration.txt").write_text(str(plan.iteration))
    if plan.tokenizer is not None:
        (folder / "adept_vocab.model").write_bytes(plan.tokenizer)
        (folder / "adept_vocab.vocab").write_text("<unk>\t0\n")
    return whole


def write_archive(path: Path, contents: object, *, legacy: bool = False, location: str = "cpu"):
    """torch.save, with tensors that claim to come from the device `location`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mock.patch.object(torch.serialization, "location_tag", lambda storage: location):
        torch.save(contents, path, _use_new_zipfile_serialization=not legacy)


def as_tar(folder: Path) -> Path:
    """Pack a release as Adept publishes it: uncompressed, beside its folder and with the folder's name."""
    path = folder.with_name(f"{folder.name}.tar")
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(folder, arcname=folder.name)
    return path


@contextlib.contextmanager
def megatron() -> Iterator[types.ModuleType]:
    """Adept's `megatron.model.enums`, which `args` refers to, for as long as a file is written."""

    class ModelType(enum.Enum):
        encoder_or_decoder = 1
        encoder_and_decoder = 2

    names = ("megatron", "megatron.model", "megatron.model.enums")
    modules = {name: types.ModuleType(name) for name in names}
    ModelType.__module__, ModelType.__qualname__ = names[-1], "ModelType"
    modules[names[-1]].ModelType = ModelType
    with mock.patch.dict(sys.modules, modules):
        yield modules[names[-1]]


def _shapes(plan: Plan) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The whole tensors, in transformers' order."""
    projected = plan.heads * plan.channels
    norm = {PER_LAYER: (plan.channels,), PER_RANK: (plan.tensor_parallel, plan.channels),
            PER_HEAD: (plan.heads, plan.channels)}.get(plan.qk_layernorm)  # fmt: skip
    yield "model.embed_tokens.weight", (plan.vocab, plan.hidden)
    for number in range(plan.layers):
        layer = f"model.layers.{number}"
        for name, rows, columns in (
            ("self_attn.query_key_value", 3 * projected, plan.hidden),  # rows are (head three channel)
            ("self_attn.dense", plan.hidden, projected),
            ("mlp.dense_h_to_4h", plan.mlp, plan.hidden),
            ("mlp.dense_4h_to_h", plan.hidden, plan.mlp),
        ):
            yield f"{layer}.{name}.weight", (rows, columns)
            yield f"{layer}.{name}.bias", (rows,)
        for kind in ("weight", "bias"):
            yield f"{layer}.input_layernorm.{kind}", (plan.hidden,)
            yield f"{layer}.post_attention_layernorm.{kind}", (plan.hidden,)
            if norm:
                yield f"{layer}.self_attn.q_layernorm.{kind}", norm
                yield f"{layer}.self_attn.k_layernorm.{kind}", norm
    yield "model.final_layernorm.weight", (plan.hidden,)
    yield "model.final_layernorm.bias", (plan.hidden,)
    if not plan.tied:
        yield "lm_head.weight", (plan.vocab, plan.hidden)


def _part(plan: Plan, name: str, tensor: Tensor, rank: int, empty: Callable[..., Tensor]) -> Tensor:
    """What a tensor rank has of a tensor, in memory of its own."""
    axis = next((axis for ending, axis in SPLIT.items() if name.endswith(ending)), None)
    if tensor.ndim == 2 and "_layernorm" in name:
        axis = 0  # the rows are those of ranks or heads
    if axis is None or plan.tensor_parallel == 1:
        return tensor
    part = tensor.chunk(plan.tensor_parallel, axis)[rank]
    return empty(part.shape, dtype=part.dtype).copy_(part)


def _run(plan: Plan, parts: dict[str, Tensor], stage: int, chunk: int, rank: int) -> dict:
    """The state of one run of layers, as Megatron nests it. Layer numbers start again in every run."""
    length = plan.layers_in_a_run
    first = chunk * (plan.layers // plan.chunks) + stage * length
    begins, ends = first == 0, first + length == plan.layers
    encoder = OrderedDict()
    encoder._metadata = OrderedDict(version=1)
    for number in range(length):
        before = f"model.layers.{first + number}."
        for name, tensor in parts.items():
            if name.startswith(before):
                encoder |= _entries(plan, f"layers.{number}.{name.removeprefix(before)}", tensor)
        rotary = int(plan.channels * plan.rotary_pct)
        powers = torch.arange(0, rotary, 2, dtype=torch.float32) / rotary
        frequencies = (1.0 / plan.rotary_emb_base**powers).to(plan.dtype)
        encoder |= _entries(plan, f"layers.{number}.self_attn.rotary_emb.inv_freq", frequencies)
    if ends:
        encoder |= {f"final_layernorm.{kind}": parts[f"model.final_layernorm.{kind}"] for kind in ("weight", "bias")}
    embedding = OrderedDict(weight=parts["model.embed_tokens.weight"])
    language_model = {"embedding": {"word_embeddings": embedding}} if begins else {}
    language_model["transformer" if plan.old_names else "encoder"] = encoder
    state = {"language_model": language_model}
    if ends and not plan.tied:
        state["word_embeddings_for_head"] = OrderedDict(weight=parts["lm_head.weight"])
    elif ends and not begins:  # a later stage has a copy of the embedding
        state["word_embeddings_for_head"] = embedding
    return state


def _entries(plan: Plan, name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A tensor of a layer, by the names that Megatron has for it."""
    name = name.replace("self_attn.", "attention." if plan.old_names else "self_attention.")
    if "_layernorm" in name and tensor.ndim == 2:
        before, kind = name.rsplit(".", 1)
        if plan.qk_layernorm == PER_RANK:
            return {name: tensor[0].clone()}
        return {f"{before}.layernorms.{head}.{kind}": row.clone() for head, row in enumerate(tensor)}
    return {name: tensor}


def _args(plan: Plan, stage: int, rank: int, enums: types.ModuleType) -> argparse.Namespace:
    """The settings of the training run, as far as they matter to somebody."""
    settings = dict(
        num_layers=plan.layers,
        encoder_num_layers=plan.layers,
        hidden_size=plan.hidden,
        ffn_hidden_size=plan.mlp,
        num_attention_heads=plan.heads,
        kv_channels=plan.channels,
        seq_length=plan.seq_length,
        max_position_embeddings=plan.seq_length,
        pos_emb="rotary",
        rotary_pct=plan.rotary_pct,
        rotary_emb_base=plan.rotary_emb_base,
        layernorm_epsilon=plan.layernorm_epsilon,
        qk_layernorm=plan.qk_layernorm,
        sq_relu=True,
        bias_gelu_fusion=False,
        untie_embeddings=not plan.tied,
        padded_vocab_size=plan.vocab,
        make_vocab_size_divisible_by=128,
        bf16=plan.dtype == torch.bfloat16,
        fp16=plan.dtype == torch.float16,
        params_dtype=plan.dtype,
        tensor_model_parallel_size=plan.tensor_parallel,
        pipeline_model_parallel_size=plan.pipeline,
        virtual_pipeline_model_parallel_size=plan.chunks if plan.interleaved else None,
        tokenizer_type="SentencePiece",
        sp_model_file="/mnt/vocabularies/adept_vocab.model",
        hidden_dropout=0.0,
        attention_dropout=0.0,
        iteration=plan.iteration,
        rank=stage * plan.tensor_parallel + rank,
        model_type=enums.ModelType.encoder_or_decoder,
    )
    return argparse.Namespace(**settings | (plan.args if isinstance(plan.args, dict) else {}))


def _rng_state(seed: int) -> dict:
    return {
        "random_rng_state": random.Random(seed).getstate(),
        "np_rng_state": np.random.RandomState(seed).get_state(),
        "torch_rng_state": torch.Generator().manual_seed(seed).get_state(),
        "cuda_rng_state": torch.zeros(16, dtype=torch.uint8),
        "rng_tracker_states": {"model-parallel-rng": torch.ones(16, dtype=torch.uint8)},
    }


def _moments(parameter: Tensor, generator: torch.Generator) -> dict:
    """What the optimizer keeps, of one parameter for all."""
    moment = torch.randn(parameter.shape, generator=generator)
    return {
        "optimizer": {
            "optimizer": {
                "state": {0: {"step": 1000, "exp_avg": moment, "exp_avg_sq": moment**2}},
                "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.95), "params": [0]}],
            },
            "fp32_from_fp16_params": [[torch.nn.Parameter(parameter.float())]],
        },
        "opt_param_scheduler": {"max_lr": 1e-4, "num_steps": 64000},
    }


def _mapped(folder: Path) -> Callable[..., Tensor]:
    """Like torch.empty, each tensor in a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = itertools.count()

    def empty(shape: tuple[int, ...], *, dtype: torch.dtype) -> Tensor:
        file = folder / f"{next(numbers)}.bin"
        return torch.from_file(str(file), shared=True, size=math.prod(shape), dtype=dtype).unflatten(0, tuple(shape))

    return empty
