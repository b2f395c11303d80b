"""A folder for vLLM, whose Transformers backend runs transformers' Persimmon with its own attention, and the contract
between the two, looked at without vLLM.

What is promised to vLLM: each layer calls an attention function by its name and hands on what the caller passed along;
texts of a ragged batch stand one behind the other in one row, and only `position_ids` say where one begins; and the
configuration says what transformers 5 computes with, whose `rope_theta` would be 10,000 where it found none. Source:
vLLM's page "Supporting custom models" and its `model_executor/models/transformers`, as of 2025.
"""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from persimmon_lab.adept.export import export_checkpoint
from persimmon_lab.atomic import write_atomically
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.checkpoints.safetensors_writer import Progress, unheard
from persimmon_lab.checkpoints.settings import read_config
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.finetuning.deferred import Deferred
from persimmon_lab.fitting.memory import weight_bytes
from persimmon_lab.footprint import free_on, in_bytes

TRANSFORMERS = Deferred("transformers", extra="lab")
PROBE = "persimmon_lab_probe"  # the attention function that stands in for vLLM's
LENGTHS = (7, 1, 12, 4)  # of the texts of the ragged batch
CLOSE = 1e-6  # of the largest logit, in float64
SMALL = {"num_hidden_layers": 2, "vocab_size": 1024, "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2}


def export_for_vllm(
    folder: Path,
    out: Path,
    *,
    dtype: torch.dtype | None = None,
    max_shard_size: int | str = "5GB",
    progress: Progress = unheard,
) -> list[str]:
    """Write a checkpoint for vLLM and look whether the contract holds; returns lines that say what was seen and how to
    serve it. vLLM itself is not asked.

    Raises ImportError without transformers, before anything is written, CheckpointError where the contract is broken
    (then the folder is there to be looked at), and what `export_checkpoint` raises.
    """
    version = TRANSFORMERS.__version__
    config = read_config(folder)
    if config.rope_scaling is not None:
        raise CheckpointError(f"rope_scaling {config.rope_scaling}: what vLLM makes of it is not known; leave it out")
    export_checkpoint(folder, out, dtype=dtype, max_shard_size=max_shard_size, progress=progress)
    write_config(out)
    seen = check_contract(out)
    config = read_config(out)
    serve = f"vllm serve {shlex.quote(str(out))} --model-impl transformers --dtype {config.torch_dtype}"
    return [
        *seen,
        f"seen with transformers {version}; not run with vLLM. On a machine that has it:",
        f"{serve} --max-model-len {config.context_limit}",
    ]


def write_config(folder: Path) -> None:
    """Say in config.json by transformers 5's names, too, what ours say: `rope_parameters` and `dtype`."""
    path = folder / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    config = read_config(folder)
    values["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": config.rope_theta,
        "partial_rotary_factor": config.partial_rotary_factor,
    }
    values["dtype"] = config.torch_dtype
    write_atomically(path, (json.dumps(values, indent=2) + "\n").encode())


@torch.no_grad()
def check_contract(folder: Path) -> list[str]:
    """What transformers makes of a folder, held against our own model, in float64; a line for each thing seen.

    On the folder's weights where they fit into half of the free memory; else on random ones of the same configuration
    with two layers and a small vocabulary, as the lines say. Raises CheckpointError for the first thing that is broken.
    """
    config = read_config(folder)
    theirs = TRANSFORMERS.AutoConfig.from_pretrained(folder)
    rope = theirs.rope_parameters
    for name in ("rope_theta", "partial_rotary_factor"):
        if rope.get(name) != getattr(config, name):
            raise CheckpointError(
                f"{folder}: transformers reads {name} as {rope.get(name)}, not {getattr(config, name)}"
            )
    ours, network, what = _both(folder, config, theirs)
    _require(network._supports_attention_backend, "transformers' model takes no attention function of others")
    texts = [
        torch.randint(3, ours.config.vocab_size, (length,), generator=torch.Generator().manual_seed(length))
        for length in LENGTHS
    ]
    alone = torch.cat([ours(rearrange(text, "position -> 1 position")).logits[0] for text in texts])
    layers = ours.config.num_hidden_layers
    calls: list[tuple[int, object]] = []
    token = object()  # what vLLM passes along is its own: whatever it is, it has to arrive
    TRANSFORMERS.AttentionInterface.register(PROBE, _probe(calls))
    TRANSFORMERS.AttentionMaskInterface.register(PROBE, lambda *_, **__: None)  # vLLM's attention knows who sees whom
    network.config._attn_implementation = PROBE
    positions = torch.cat([torch.arange(length) for length in LENGTHS])
    together = network(
        rearrange(torch.cat(texts), "position -> 1 position"),
        position_ids=rearrange(positions, "position -> 1 position"),
        use_cache=False,
        attention_instances=token,
    ).logits[0]
    _require([layer for layer, _ in calls] == list(range(layers)), f"attention was called for layers {calls}")
    _require(all(given is token for _, given in calls), "what is passed along does not arrive at every attention")
    far = float((together - alone).abs().max() / alone.abs().max())
    _require(far < CLOSE, f"a ragged batch in one row is {far:.1e} of the largest logit away from its texts alone")
    return [
        f"rope_theta {config.rope_theta:g} and partial_rotary_factor {config.partial_rotary_factor:g} arrive",
        f"the attention function is reached in each of {layers} layers, with what is passed along ({what})",
        f"a ragged batch of {len(texts)} texts in one row gives our logits to {far:.0e} of the largest ({what})",
        "one GPU a copy: transformers' Persimmon has no plan for tensor or pipeline parallelism (base_model_tp_plan)"
        if not getattr(theirs, "base_model_tp_plan", None)
        else "transformers brings a plan for tensor parallelism",
    ]


def _require(holds: bool, told: str) -> None:
    if not holds:
        raise CheckpointError(f"vLLM's contract is broken: {told}")


@torch.no_grad()
def _both(folder: Path, config: PersimmonConfig, theirs: Any) -> tuple[PersimmonForCausalLM, Any, str]:
    """Our model and transformers', with the same numbers in float64, and in words which numbers these are."""
    needed, free = 2 * weight_bytes(config, torch.float64), free_on("cpu")
    if free is None or needed < free / 2:
        ours = PersimmonForCausalLM.from_pretrained(folder, dtype=torch.float64)
        network = TRANSFORMERS.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
        return ours, network.eval(), "on the weights of this folder"
    small = PersimmonConfig(**{**_fields(config), **SMALL})
    ours = PersimmonForCausalLM(small, torch.Generator().manual_seed(0)).double().eval()
    for name, value in SMALL.items():
        setattr(theirs, name, value)
    network = TRANSFORMERS.AutoModelForCausalLM.from_config(theirs).double().eval()
    network.load_state_dict(ours.state_dict())
    return ours, network, f"on random weights of two layers, since this folder needs {in_bytes(needed)} in float64"


def _fields(config: PersimmonConfig) -> dict[str, Any]:
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "hidden_act", "rope_theta", "qk_layernorm",
             "partial_rotary_factor", "layer_norm_eps", "max_position_embeddings", "initializer_range")  # fmt: skip
    return {name: getattr(config, name) for name in names}


def _probe(calls: list[tuple[int, object]]) -> Callable[..., tuple[Tensor, None]]:
    """An attention function as vLLM's: it remembers who called, and each text sees itself alone."""

    def attention(
        module: Any,
        query: Float[Tensor, "batch head position channel"],
        key: Float[Tensor, "batch head position channel"],
        value: Float[Tensor, "batch head position channel"],
        attention_mask: object,
        scaling: float | None = None,
        attention_instances: object = None,
        **_: object,
    ) -> tuple[Tensor, None]:
        calls.append((module.layer_idx, attention_instances))
        texts = zip(*(tensor.split(list(LENGTHS), dim=2) for tensor in (query, key, value)))
        mixed = [
            torch.nn.functional.scaled_dot_product_attention(
                text_query, text_key, text_value, is_causal=True, scale=scaling
            )
            for text_query, text_key, text_value in texts
        ]
        return rearrange(torch.cat(mixed, dim=2), "batch head position channel -> batch position head channel"), None

    return attention
