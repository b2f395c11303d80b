"""Which engine serves a model: the model itself, or a FastRunner over weights that are laid out once and kept.

An engine only ever changes how fast the numbers come. So the fast one steps back wherever the model is more than its
weights (a hook listens, a module was replaced, dropout is on), and laid-out weights are made anew when the model's own
have changed (see `fingerprint`).
"""

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from persimmon_lab.footprint import free_memory
from persimmon_lab.generation.engines.fast import FastRunner
from persimmon_lab.generation.engines.packed import (
    Int8Linear,
    Int8WeightLinear,
    Linear,
    LinearKind,
    PackedLinear,
    PlainLinear,
    best_kind,
)

ENGINES = ("plain", "fast", "compiled", "int8", "int8-weight-only")
SHARE = 0.5  # of the free memory, for laid-out copies of the weights
# Where the modules come from that FastRunner knows; `fitting.vocabulary_rows`, for one, puts others in their place.
KNOWN = (
    "persimmon_lab.causal_lm",
    "persimmon_lab.model",
    "persimmon_lab.attention",
    "persimmon_lab.mlp",
    "torch.nn.modules.",
)

# The laid-out products of each Linear that still exists, with what its weight was when they were made.
_LAID_OUT: weakref.WeakKeyDictionary[nn.Linear, dict[tuple[LinearKind, bool], tuple[tuple, Linear]]] = (
    weakref.WeakKeyDictionary()
)


def runner_for(model: Any, engine: str | None = None, rows: int = 1) -> Any:
    """What decoding calls in the model's place; weights are laid out for steps of `rows` rows, and serve any others.

    - None: "fast" where it applies and half of the free memory holds the laid-out weights, else "plain".
    - "plain": the model itself.
    - "fast": `FastRunner`, on oneDNN's packed weights on a CPU; on a GPU its decode steps replay a CUDA graph.
    - "compiled": the fast step through `torch.compile`, on the weights as they are; the first tokens of each power of
      two of positions wait for the compiler, which on a CPU has to be there (g++).
    - "int8": on a CPU, weights and inputs of every product rounded to 8 bits; "int8-weight-only": the weights alone.
      Both change the numbers; `benchmarks/speed.py` measures by how much.

    The first call lays the weights out; later ones only look whether they changed, which reads them once.

    Raises ValueError for an engine that does not exist, or that cannot serve this model: the error says why.
    """
    if engine not in (None, *ENGINES):
        raise ValueError(f"engine={engine!r}; choose one of {', '.join(ENGINES)}, or None for the best that applies")
    if engine == "plain":
        return model
    reason = why_not_fast(model)
    if reason is None and engine in ("int8", "int8-weight-only") and model.device.type != "cpu":
        reason = f"int8 products are for the CPU, and the model is on {model.device}"
    if reason is not None:
        if engine is None:
            return model
        raise ValueError(f"engine={engine!r} cannot serve this model: {reason}; pass engine=None or 'plain'")
    if engine is None and not _is_affordable(model):
        return model
    # The compiler takes no weights that are packed already.
    asked = {"int8": Int8Linear, "int8-weight-only": Int8WeightLinear, "compiled": PlainLinear}.get(engine)

    def product(linear: nn.Linear, relu: bool = False) -> Linear:
        return laid_out(linear, asked or best_kind(linear, rows), relu)

    return FastRunner(model, product, compiled=engine == "compiled")


def why_not_fast(model: Any) -> str | None:
    """Why the fast path would not compute what the model computes, or None where it would."""
    config, body = getattr(model, "config", None), getattr(model, "model", None)
    if not isinstance(model, nn.Module) or not hasattr(body, "layers") or not hasattr(model, "lm_head"):
        return f"it knows PersimmonForCausalLM, and this is a {type(model).__name__}"
    if model.training and (config.hidden_dropout or config.attention_dropout):
        return "it is in training mode, with dropout; call model.eval()"
    if config.attn_implementation == "eager":
        return 'its config asks for attn_implementation="eager"'
    kinds = {(p.dtype, p.device) for p in model.parameters()}
    if len(kinds) > 1 or model.device.type == "meta":  # of which autocast knows nothing
        found = ", ".join(sorted(f"{dtype} on {place}" for dtype, place in kinds))
        return f"its parameters are of several kinds or nowhere: {found}"
    if torch.is_autocast_enabled(model.device.type):
        return "autocast is on"
    for name, module in model.named_modules():
        if not type(module).__module__.startswith(KNOWN):
            return f"{name or 'the model'} is a {type(module).__module__}.{type(module).__qualname__}"
        if module._forward_hooks or module._forward_pre_hooks:
            return f"a hook listens to {name or 'the model'}"
        if "forward" in vars(module):
            return f"the forward of {name or 'the model'} was replaced"
    if nn.modules.module._global_forward_hooks or nn.modules.module._global_forward_pre_hooks:
        return "a hook listens to all modules"
    return None


def laid_out(linear: nn.Linear, kind: LinearKind, relu: bool = False) -> Linear:
    """`kind(linear, relu)`, made once and kept for as long as `linear` lives and its weight is what it was."""
    if kind is PlainLinear:
        return PlainLinear(linear, relu)  # looks at the weight itself
    made = _LAID_OUT.setdefault(linear, {})
    now = fingerprint(linear.weight) + (() if linear.bias is None else fingerprint(linear.bias))
    before, product = made.get((kind, relu), ((), None))
    if not is_same(now, before):
        if issubclass(kind, PackedLinear):  # one layout at a time: a second one would be as large as the weight again
            made = _LAID_OUT[linear] = {of: each for of, each in made.items() if not issubclass(of[0], PackedLinear)}
        product = kind(linear, relu)
        made[kind, relu] = now, product
    return product


def fingerprint(weight: Tensor) -> tuple:
    """What tells a weight from an earlier one: its place and version, and a checksum of each row's bits.

    Place and version alone would miss writes through `.data`, which torch does not count. The trap: columns that trade
    places in place through `.data` keep all three; do that under `torch.no_grad()` on the weight itself, which counts.
    """
    rows = weight.detach().contiguous()
    bits = rows.view(torch.int64) if rows.shape[-1] * rows.itemsize % 8 == 0 else rows.view(torch.int16)
    return weight.data_ptr(), weight._version, weight.dtype, bits.sum(dim=-1)


def is_same(now: tuple, before: tuple) -> bool:
    return len(now) == len(before) and all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(now, before, strict=True)
    )


def _is_affordable(model: Any) -> bool:
    """Whether the copies that the fastest products need fit, or are there already."""
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if best_kind(model.lm_head, rows=1) is PlainLinear:  # which copies nothing
        return True
    missing = sum(linear.weight.nbytes for linear in linears if not _LAID_OUT.get(linear))
    return missing <= SHARE * free_memory().get("cpu", float("inf"))
