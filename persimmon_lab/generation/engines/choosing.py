"""Which engine serves a model: the model itself, or a FastRunner over weights that are laid out once and kept.

An engine only ever changes how fast the numbers come. So the fast one steps back wherever the model is more than its
weights (a hook listens, a module was replaced, dropout is on), and laid-out weights are made anew when the model's own
have changed (see `fingerprint`). A model's runner is kept for as long as the model lives and is what it was.
"""

import copy
import math
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from persimmon_lab.anatomy import LOGITS
from persimmon_lab.footprint import free_on
from persimmon_lab.generation.engines.fast import FastRunner, outside_inference_mode
from persimmon_lab.generation.engines.packed import (
    Int8Linear,
    Int8WeightLinear,
    Linear,
    LinearKind,
    PackedLinear,
    PlainLinear,
    RoundedLinear,
    best_kind,
)
from persimmon_lab.quantisation.modules import QuantisedLinear, rounded_weights

ENGINES = ("plain", "fast", "compiled", "int8", "int8-weight-only")
# The products of engines that take one kind for all weights; the compiler takes none that are packed already.
CHOSEN: dict[str, LinearKind] = {
    "int8": Int8Linear,
    "int8-weight-only": Int8WeightLinear,
    "compiled": PlainLinear,
}
SHARE = 0.5  # of the free memory, for laid-out copies of the weights
# What FastRunner takes for granted where: torch's own modules by the last part of their path. Persimmon's say it of
# themselves by the class attribute MARK, which is not inherited, because a subclass may compute something else:
# `fitting.vocabulary_rows`, for one, puts others in place.
MARK = "read_by_fast_engine"
TORCH_MODULES: dict[str, type[nn.Module]] = {
    "embed_tokens": nn.Embedding,
    "layers": nn.ModuleList,
    "dropout": nn.Dropout,
    **dict.fromkeys(("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h", LOGITS), nn.Linear),
    **dict.fromkeys(("input_layernorm", "post_attention_layernorm", "final_layernorm"), nn.LayerNorm),
    **dict.fromkeys(("q_layernorm", "k_layernorm"), nn.LayerNorm),
    **dict.fromkeys(("rotated_query", "rotated_key", "value", "scores", "pattern", "head_output"), nn.Identity),
    "activations": nn.Identity,
}
READ_OF_CONFIG = (
    "attn_implementation", "max_position_embeddings", "num_attention_heads", "partial_rotary_factor", "rope_precision",
    "rope_scaling", "rope_theta", "vocab_size",
)  # fmt: skip
READ_WHOLE = 2**14  # numbers of a weight up to which the check looks at all of them
CONFIG = 0  # its place in a model's state
SAMPLES = 32  # numbers of a larger one that it looks at

# The laid-out products of each Linear that still exists, with what its weight was when they were made.
_Fingerprint = tuple[Any, ...]
_LAID_OUT: weakref.WeakKeyDictionary[nn.Linear, dict[tuple[LinearKind, bool], tuple[_Fingerprint, Linear]]] = (
    weakref.WeakKeyDictionary()
)


@dataclass(eq=False)
class _RunnerRecord:
    """A runner, and what its model was when it was made. It holds the model and its modules weakly."""

    runner: FastRunner
    request: tuple[Any, ...]
    one_row: bool | None
    """Whether its layouts are those for a single row; None where those for more are the same."""
    state: list[Any]
    alive: list[weakref.ref[Any]]
    """Of the objects whose ids are in `state`: while all of them live, no other object has such an id."""
    copied: list[weakref.ref[Tensor]]
    """Of the weights that the runner has copies of."""
    numbers: Tensor

    def serves(self, model: nn.Module, request: tuple[Any, ...], rows: int) -> bool:
        weights = [weight for reference in self.copied if (weight := reference()) is not None]
        return (
            request == self.request
            and self.one_row in (None, rows == 1)
            and len(weights) == len(self.copied)
            and all(reference() is not None for reference in self.alive)
            and state_of(model)[0] == self.state
            and torch.equal(sample(weights), self.numbers)
        )


_RUNNERS: weakref.WeakKeyDictionary[nn.Module, _RunnerRecord] = weakref.WeakKeyDictionary()


def runner_for(model: Any, engine: str | None = None, rows: int = 1) -> Any:
    """What decoding calls in the model's place; weights are laid out for steps of `rows` rows, and serve any others.

    - None: "fast" where it applies and half of the free memory holds the laid-out weights, else "plain"; on a CPU
      "plain" also for weights that are not all finite, which the fast products would hide.
    - "plain": the model itself.
    - "fast": `FastRunner`, on oneDNN's packed weights on a CPU; on a GPU its decode steps replay a CUDA graph.
    - "compiled": the fast step through `torch.compile`, on the weights as they are; the first tokens of each power of
      two of positions wait for the compiler, which on a CPU has to be there (g++).
    - "int8": on a CPU, weights and inputs of every product rounded to 8 bits; "int8-weight-only": the weights alone.
      Both change the numbers; `benchmarks/speed.py` measures by how much.

    The first call lays the weights out and keeps the runner with the model; later ones look whether anything changed
    since (see `fingerprint` for what that may miss) and hand out the same one. A model has one runner at a time.

    Raises ValueError for an engine that does not exist, or that cannot serve this model: the error says why.
    """
    if engine not in (None, *ENGINES):
        raise ValueError(f"engine={engine!r}; choose one of {', '.join(ENGINES)}, or None for the best that applies")
    if engine == "plain":
        return model
    request = (engine or "fast", torch.backends.mkldnn.enabled)
    record = _record_of(model)
    if record is not None:
        if record.serves(model, request, rows):
            return record.runner
        del record
        _RUNNERS.pop(model, None)  # before another one is made, which would be as large again
    reason = why_not_fast(model)
    if reason is None and engine in ("int8", "int8-weight-only") and model.device.type != "cpu":
        reason = f"int8 products are for the CPU, and the model is on {model.device}"
    if reason is None and engine in ("int8", "int8-weight-only", "compiled") and rounded_weights(model):
        reason = "its weights are rounded already"
    if reason is not None:
        if engine is None:
            return model
        raise ValueError(f"engine={engine!r} cannot serve this model: {reason}; pass engine=None or 'plain'")
    if engine is None and not _is_affordable(model):
        return model
    if broken := _not_finite(model):
        if engine is None:
            return model
        raise ValueError(f"engine={engine!r} would hide that {broken} has NaN or infinity; pass engine=None or 'plain'")
    copied: list[Tensor] = []
    serves_any_rows = True

    def lay_out(linear: nn.Linear | QuantisedLinear, relu: bool = False) -> Linear:
        nonlocal serves_any_rows
        if isinstance(linear, QuantisedLinear):
            return RoundedLinear(linear, relu)
        kind = CHOSEN.get(engine or "fast") or best_kind(linear, rows)
        if engine not in CHOSEN and best_kind(linear, 1) is not best_kind(linear, 2):
            serves_any_rows = False
        if kind is not PlainLinear:
            copied.append(linear.weight)
        if kind is Int8Linear and linear.bias is not None:
            copied.append(linear.bias)
        return laid_out(linear, kind, relu)

    with outside_inference_mode():
        state, objects = state_of(model)
        state[CONFIG] = copy.deepcopy(state[CONFIG])
        runner = FastRunner(model, lay_out, compiled=engine == "compiled")
        numbers = sample(copied)
    _RUNNERS[model] = _RunnerRecord(
        runner=runner,
        request=request,
        one_row=None if serves_any_rows else rows == 1,
        state=state,
        alive=[weakref.ref(thing) for thing in objects],
        copied=[weakref.ref(weight) for weight in copied],
        numbers=numbers,
    )
    return runner


def take_back(model: Any, cache: Any) -> None:
    """Let the model's runner use the cache's room again: see `FastRunner.take_back` for who may say so."""
    record = _record_of(model)
    if record is not None:
        record.runner.take_back(cache)


def forget_room(model: Any) -> bool:
    """Free the room that the model's runner keeps for the next text; whether there was some."""
    record = _record_of(model)
    return record is not None and record.runner.forget_room()


def _record_of(model: Any) -> _RunnerRecord | None:
    return _RUNNERS.get(model) if isinstance(model, nn.Module) else None


def why_not_fast(model: Any) -> str | None:
    """Why the fast path would not compute what the model computes, or None where it would."""
    body: Any = getattr(model, "model", None)
    if not isinstance(model, nn.Module) or not hasattr(body, "layers") or not hasattr(model, "lm_head"):
        return f"it knows PersimmonForCausalLM, and this is a {type(model).__name__}"
    config: Any = model.config
    device: Any = model.device
    if config.attn_implementation == "eager":
        return 'its config asks for attn_implementation="eager"'
    kinds = {(p.dtype, p.device) for p in model.parameters()}
    if len(kinds) > 1 or device.type == "meta":  # of which autocast knows nothing
        names = ", ".join(sorted(f"{dtype} on {place}" for dtype, place in kinds))
        return f"its parameters are of several kinds or nowhere: {names}"
    if torch.is_autocast_enabled(device.type):
        return "autocast is on"
    for name, weight in model.named_parameters():
        if type(weight) not in (nn.Parameter, Tensor):  # quantised, distributed: their products are their own
            return f"{name} is a {type(weight).__module__}.{type(weight).__qualname__}"
    for name, module in model.named_modules():
        kind = type(module)
        if kind is not TORCH_MODULES.get(name.rpartition(".")[2]) and not vars(kind).get(MARK):
            return f"{name or 'the model'} is a {kind.__module__}.{kind.__qualname__}"
        if _drops(vars(module)):
            return f"{name} is in training mode, with dropout; call model.eval()"
        if kind is nn.LayerNorm and module.weight is None:
            return f"{name} has no weight"
        if kind is nn.Embedding and module.max_norm is not None:
            return f"{name} has a max_norm"
        if module._forward_hooks or module._forward_pre_hooks:
            return f"a hook listens to {name or 'the model'}"
        if "forward" in vars(module):
            return f"the forward of {name or 'the model'} was replaced"
    if parted := [name for name in READ_OF_CONFIG if getattr(config, name) != getattr(body.config, name)]:
        return f"its body has a configuration of its own, with another {parted[0]}"
    if nn.modules.module._global_forward_hooks or nn.modules.module._global_forward_pre_hooks:
        return "a hook listens to all modules"
    return None


def laid_out(linear: nn.Linear, kind: LinearKind, relu: bool = False) -> Linear:
    """`kind(linear, relu)`, made once and kept for as long as `linear` lives and its weight is what it was."""
    if kind is PlainLinear:
        return PlainLinear(linear, relu)  # looks at the weight itself
    products = _LAID_OUT.setdefault(linear, {})
    with torch.no_grad():
        now = fingerprint(linear.weight) + (() if linear.bias is None else fingerprint(linear.bias))
    before, product = products.get((kind, relu), ((), None))
    if product is None or not is_same(now, before):
        if issubclass(kind, PackedLinear):  # one layout at a time: a second one would be as large as the weight again
            for other in [other for other in products if issubclass(other[0], PackedLinear)]:
                del products[other]
        product = kind(linear, relu)
        products[kind, relu] = now, product
    return product


def _not_finite(model: nn.Module) -> str | None:
    """The first weight with a NaN or an infinity, on a CPU: oneDNN's relu makes 0 of a NaN, and int8 a number."""
    for name, weight in model.named_parameters():
        if weight.device.type == "cpu" and not bool(weight.detach().isfinite().all()):
            return name
    return None


def state_of(model: nn.Module) -> tuple[list[Any], list[Any]]:
    """What tells a model from what it was, but for its numbers; and the objects whose ids stand for them in it.

    Of every module its type, hooks and whether its forward was replaced, and what FastRunner reads of it besides; of
    every weight its place, version and dtype; the config and the body's; autocast, and hooks that listen to all
    modules.
    """
    modules: list[nn.Module | None] = [model]
    parameters: list[Tensor | None] = []
    heard = bool(nn.modules.module._global_forward_hooks or nn.modules.module._global_forward_pre_hooks)
    body: Any = model.model
    state = [(vars(model.config), vars(body.config)), heard]
    for module in modules:  # which grows on the way
        if module is None:
            continue
        inside = vars(module)
        state += (
            id(module), type(module), "forward" in inside, bool(inside["_forward_hooks"]),
            bool(inside["_forward_pre_hooks"]), inside.get("eps"), inside.get("act"), inside.get("qk_layernorm"),
            inside.get("max_norm"), _drops(inside),
        )  # fmt: skip
        if inside["_parameters"]:  # most have none, and asking is cheaper
            parameters += inside["_parameters"].values()
        if inside["_modules"]:
            modules += inside["_modules"].values()
    weights = [weight for weight in parameters if weight is not None]
    for weight in weights:
        version = None if weight.is_inference() else weight._version
        state += id(weight), weight.data_ptr(), version, weight.dtype
    state += weights[0].device, torch.is_autocast_enabled(weights[0].device.type)
    return state, [module for module in modules if module is not None] + weights


def _drops(inside: Mapping[str, Any]) -> bool:
    """Whether the module with these attributes sets numbers to zero at random."""
    return bool(inside["training"] and (inside.get("p") or inside.get("attention_dropout")))


def fingerprint(weight: Tensor) -> tuple[Any, ...]:
    """What tells a weight from an earlier one: its place, version and dtype, and some of its numbers.

    Every operation in place counts a version. The trap: writes through `.data` and through memory shared with numpy do
    not, and a tensor made in inference mode has no version. There the numbers tell: all of a weight of up to
    READ_WHOLE, and SAMPLES of a larger one, so that a change of a few numbers may be missed. Write under
    `torch.no_grad()` to the weight itself, which counts.
    """
    version = None if weight.is_inference() else weight._version
    return weight.data_ptr(), version, weight.dtype, sample([weight])


def sample(weights: Sequence[Tensor]) -> Tensor:
    """The bytes of some numbers of each weight, spread over its rows and columns: bytes, because nan is not nan."""
    with torch.no_grad():
        return torch.cat([some_of(weight) for weight in weights] or [torch.empty(0)]).view(torch.uint8)


def some_of(weight: Tensor) -> Tensor:
    """All numbers of a weight of up to READ_WHOLE, and SAMPLES of a larger one, spread over its rows and columns."""
    count = weight.numel()
    if count <= READ_WHOLE:
        return weight.flatten()
    stride = count // SAMPLES
    while math.gcd(stride, weight.shape[-1]) > 1:  # else they would all stand in a few columns
        stride -= 1
    return weight.as_strided((SAMPLES,), (stride,)) if weight.is_contiguous() else weight.flatten()[::stride]


def is_same(now: tuple[Any, ...], before: tuple[Any, ...]) -> bool:
    return len(now) == len(before) and all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(now, before, strict=True)
    )


def _is_affordable(model: Any) -> bool:
    """Whether the copies that the fastest products need fit, or are there already."""
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linears or best_kind(linears[0], rows=1) is PlainLinear:  # which copies nothing
        return True
    missing = sum(linear.weight.nbytes for linear in linears if not _LAID_OUT.get(linear))
    free = free_on("cpu") if missing else None
    return free is None or missing <= SHARE * free
