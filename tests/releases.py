"""Releases like Adept's, made on the spot: the files that Megatron writes, with small random tensors.

After megatron/checkpointing.py and megatron/model/ of persimmon-ai-labs/adept-inference. The classes in `args` exist
while a file is written and are gone when it is read, as for anybody without a copy of that repository.
"""

import argparse
import contextlib
import enum
import random
import sys
import tarfile
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

QK_MODES = ("none", "weights_per_layer", "weights_per_tensor_parallel_rank_and_layer",
            "weights_per_attention_head_and_layer")  # fmt: skip
# Dim 0 or dim 1 is divided among the tensor ranks; everything else is the same on all of them.
SPLIT = {
    "self_attention.query_key_value.weight": 0,
    "self_attention.query_key_value.bias": 0,
    "self_attention.dense.weight": 1,
    "mlp.dense_h_to_4h.weight": 0,
    "mlp.dense_h_to_4h.bias": 0,
    "mlp.dense_4h_to_h.weight": 1,
}


def build_release(
    folder: Path,
    *,
    hidden: int = 32,
    heads: int = 4,
    layers: int = 3,
    vocab: int = 64,
    mlp: int = 128,
    kv_channels: int | None = None,
    seq_length: int = 48,
    rotary_pct: float = 0.5,
    rotary_emb_base: float = 25000,
    layernorm_epsilon: float = 1e-5,
    tensor_parallel: int = 1,
    pipeline: int = 1,
    interleaved: bool = False,
    qk_layernorm: str = "weights_per_layer",
    tied: bool = False,
    dtype: torch.dtype = torch.bfloat16,
    args: bool | dict = True,
    optimizer: bool = False,
    distributed_optimizer: bool = False,
    old_names: bool = False,
    legacy: bool = False,
    location: str = "cuda:0",
    iteration: int = 1000,
    tokenizer: bytes | None = b"a sentencepiece model",
    seed: int = 0,
    scratch: Path | None = None,
    edit: Callable[[dict, int, int], None] | None = None,
) -> dict[str, Tensor]:
    """Write a release and return its tensors, whole, under the names that this package and transformers use.

    `interleaved` gives each pipeline stage two runs of layers, `model0` and `model1`. A dictionary as `args` overrides
    fields of them. `edit(checkpoint, stage, rank)` may change what is about to be written. With `scratch`, a folder,
    tensors live in mapped files there, so that a release of many GB can be made in little memory.

    Of the two qk_layernorm modes that this package cannot express, the norms are returned stacked, one row for each
    tensor rank or head.
    """
    channels = kv_channels or hidden // heads
    chunks = 2 if interleaved else 1
    assert qk_layernorm in QK_MODES
    assert (
        heads % tensor_parallel == vocab % tensor_parallel == mlp % tensor_parallel == layers % (pipeline * chunks) == 0
    )
    generator = torch.Generator().manual_seed(seed)
    empty = _mapped(scratch) if scratch else torch.empty

    def draw(*shape: int) -> Tensor:
        return empty(shape, dtype=dtype).normal_(0.0, 0.3, generator=generator)

    def draw_layer() -> dict[str, Tensor]:
        projected = heads * channels
        shapes = {
            "input_layernorm": (hidden,),
            "self_attention.query_key_value": (3 * projected, hidden),  # rows are (head three channel)
            "self_attention.dense": (hidden, projected),
            "post_attention_layernorm": (hidden,),
            "mlp.dense_h_to_4h": (mlp, hidden),
            "mlp.dense_4h_to_h": (hidden, mlp),
        }
        copies = {"weights_per_layer": (), "weights_per_tensor_parallel_rank_and_layer": (tensor_parallel,),
                  "weights_per_attention_head_and_layer": (heads,)}  # fmt: skip
        if qk_layernorm != "none":
            shapes["self_attention.q_layernorm"] = shapes["self_attention.k_layernorm"] = (channels,)
        layer = {}
        for name, shape in shapes.items():
            before = copies[qk_layernorm] if name.endswith(("q_layernorm", "k_layernorm")) else ()
            layer[f"{name}.weight"] = draw(*before, *shape)
            layer[f"{name}.bias"] = draw(*before, shape[0])
        return layer

    embedding, final_layernorm = draw(vocab, hidden), {"weight": draw(hidden), "bias": draw(hidden)}
    head = embedding if tied else draw(vocab, hidden)
    every_layer = [draw_layer() for _ in range(layers)]

    def share(tensor: Tensor, rank: int, axis: int = 0) -> Tensor:
        part = tensor.chunk(tensor_parallel, axis)[rank]
        return part if tensor_parallel == 1 else empty(part.shape, dtype=dtype).copy_(part)

    def layer_of(rank: int, layer: dict[str, Tensor]) -> dict[str, Tensor]:
        entries = {}
        for name, tensor in layer.items():
            if not name.startswith(("self_attention.q_layernorm", "self_attention.k_layernorm")):
                entries[name] = share(tensor, rank, SPLIT[name]) if name in SPLIT else tensor
            elif qk_layernorm == "weights_per_layer":
                entries[name] = tensor
            elif qk_layernorm == "weights_per_tensor_parallel_rank_and_layer":
                entries[name] = tensor[rank].clone()
            else:
                before, _, kind = name.rpartition(".")
                for number, row in enumerate(tensor.chunk(tensor_parallel)[rank]):
                    entries[f"{before}.layernorms.{number}.{kind}"] = row.clone()
        rotary = torch.arange(0, int(channels * rotary_pct), 2, dtype=torch.float32) / int(channels * rotary_pct)
        entries["self_attention.rotary_emb.inv_freq"] = (1.0 / rotary_emb_base**rotary).to(dtype)
        return entries

    def run_of_layers(rank: int, stage: int, chunk: int) -> dict:
        """The state of one run of layers, as Megatron nests it."""
        length = layers // (pipeline * chunks)
        first = chunk * (layers // chunks) + stage * length
        begins, ends = first == 0, first + length == layers
        encoder = OrderedDict()
        encoder._metadata = OrderedDict(version=1)
        for number in range(length):  # numbers start again in every run
            for name, tensor in layer_of(rank, every_layer[first + number]).items():
                encoder[f"layers.{number}.{_old(name) if old_names else name}"] = tensor
        if ends:
            encoder |= {f"final_layernorm.{kind}": tensor for kind, tensor in final_layernorm.items()}
        language_model = (
            {"embedding": {"word_embeddings": OrderedDict(weight=share(embedding, rank))}} if begins else {}
        )
        language_model["transformer" if old_names else "encoder"] = encoder
        state = {"language_model": language_model}
        if ends and not (tied and begins):  # a tied embedding is stored again where it is the head of a later stage
            state["word_embeddings_for_head"] = OrderedDict(weight=share(head, rank))
        return state

    settings = dict(
        num_layers=layers,
        encoder_num_layers=layers,
        hidden_size=hidden,
        ffn_hidden_size=mlp,
        num_attention_heads=heads,
        kv_channels=channels,
        seq_length=seq_length,
        max_position_embeddings=seq_length,
        pos_emb="rotary",
        rotary_pct=rotary_pct,
        rotary_emb_base=rotary_emb_base,
        layernorm_epsilon=layernorm_epsilon,
        qk_layernorm=qk_layernorm,
        sq_relu=True,
        bias_gelu_fusion=False,
        untie_embeddings=not tied,
        padded_vocab_size=vocab,
        make_vocab_size_divisible_by=128,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        params_dtype=dtype,
        tensor_model_parallel_size=tensor_parallel,
        pipeline_model_parallel_size=pipeline,
        virtual_pipeline_model_parallel_size=chunks if interleaved else None,
        tokenizer_type="SentencePiece",
        sp_model_file="/mnt/vocabularies/adept_vocab.model",
        hidden_dropout=0.0,
        attention_dropout=0.0,
        iteration=iteration,
    )
    for stage in range(pipeline):
        for rank in range(tensor_parallel):
            runs = [run_of_layers(rank, stage, chunk) for chunk in range(chunks)]
            with megatron() as enums:
                namespace = argparse.Namespace(**settings | dict(rank=stage * tensor_parallel + rank))
                namespace.model_type = enums.ModelType.encoder_or_decoder
                vars(namespace).update(args if isinstance(args, dict) else {})
                checkpoint = {"checkpoint_version": 3.0, "iteration": iteration, "rng_state": [_rng_state(seed)]}
                checkpoint |= {"args": namespace} if args is not False else {}
                checkpoint |= (
                    {f"model{number}": run for number, run in enumerate(runs)} if interleaved else {"model": runs[0]}
                )
                moments = _moments(runs, generator)
                if optimizer and not distributed_optimizer:
                    checkpoint |= moments
                if edit:
                    edit(checkpoint, stage, rank)
                name = f"mp_rank_{rank:02d}" + (f"_{stage:03d}" if pipeline > 1 else "")
                here = folder / f"iter_{iteration:07d}" / name
                file = "model_rng.pt" if distributed_optimizer else "model_optim_rng.pt"
                write_archive(here / file, checkpoint, legacy=legacy, location=location)
                if distributed_optimizer:  # one more folder for each data-parallel rank
                    write_archive(here.with_name(f"{name}_000") / "optim.pt", moments, legacy=legacy, location=location)
    (folder / "latest_checkpointed_iteration.txt").write_text(str(iteration))
    if tokenizer is not None:
        (folder / "adept_vocab.model").write_bytes(tokenizer)
        (folder / "adept_vocab.vocab").write_text("<unk>\t0\n")

    whole = {"model.embed_tokens.weight": embedding}
    for number, layer in enumerate(every_layer):
        for name, tensor in layer.items():
            whole[f"model.layers.{number}.{name.replace('self_attention', 'self_attn')}"] = tensor
    whole |= {f"model.final_layernorm.{kind}": tensor for kind, tensor in final_layernorm.items()}
    return whole if tied else whole | {"lm_head.weight": head}


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


def _old(name: str) -> str:
    return name.replace("self_attention.", "attention.")


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


def _rng_state(seed: int) -> dict:
    return {
        "random_rng_state": random.Random(seed).getstate(),
        "np_rng_state": np.random.RandomState(seed).get_state(),
        "torch_rng_state": torch.Generator().manual_seed(seed).get_state(),
        "cuda_rng_state": torch.zeros(16, dtype=torch.uint8),
        "rng_tracker_states": {"model-parallel-rng": torch.ones(16, dtype=torch.uint8)},
    }


def _moments(runs: list[dict], generator: torch.Generator) -> dict:
    """What the optimizer would keep: a few tensors stand for all."""
    some = list(runs[0]["language_model"].values())[-1]["layers.0.input_layernorm.weight"] if runs else None
    moment = torch.randn(some.shape, generator=generator)
    return {
        "optimizer": {
            "optimizer": {
                "state": {0: {"step": 1000, "exp_avg": moment, "exp_avg_sq": moment**2}},
                "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.95), "params": [0]}],
            },
            "fp32_from_fp16_params": [[torch.nn.Parameter(some.float())]],
        },
        "opt_param_scheduler": {"max_lr": 1e-4, "num_steps": 64000},
    }


def _mapped(folder: Path) -> Callable[..., Tensor]:
    """Like torch.empty, in a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = iter(range(10**9))

    def empty(shape: tuple[int, ...], *, dtype: torch.dtype) -> Tensor:
        size = int(np.prod(shape))
        file = folder / f"{next(numbers)}.bin"
        return torch.from_file(str(file), shared=True, size=size, dtype=dtype).unflatten(0, tuple(shape))

    return empty
