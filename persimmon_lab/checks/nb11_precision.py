"""Marks for notebook 11, float16 or bfloat16."""

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.checks.marking import Case, Exercise, Verdict, Wrong, attempt, call, verdict
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.numerics.compare import compare
from persimmon_lab.numerics.islands import close, keep_in_float32, outermost
from persimmon_lab.numerics.stress import scale_mlp
from persimmon_lab.pretrained import PersimmonPreTrainedModel

# Easy: half_step


def half_a_step(weights: Float[Tensor, "weight"], fraction_bits: int) -> Float[Tensor, "weight"]:
    """Half the distance from each weight to its neighbour."""
    return 2.0 ** (weights.abs().log2().floor() - fraction_bits - 1)


def weight_cases() -> Iterator[Case]:
    weights = torch.tensor([1.0, 1.99, -3.0, 20.0, 100.0, -750.0, 5000.0, 40000.0])
    for fraction_bits in (7, 10, 2):
        yield {"weights": weights, "fraction_bits": fraction_bits}


half_step = Exercise(
    reference=half_a_step,
    cases=weight_cases,
    axes=("weight",),
    praise="an update below this leaves the weight as it was, however often it is repeated",
    mistakes={
        "this is the whole step; the weight goes to the nearer neighbour, so half a step is enough": (
            lambda weights, fraction_bits: 2 * half_a_step(weights, fraction_bits)
        ),
        "the step is the same for all weights between two powers of two: go down to the power of two first": (
            lambda weights, fraction_bits: weights.abs() * 2.0 ** (-fraction_bits - 1)
        ),
        "this goes up to the next power of two; the weights below it lie as close as those at the one before": (
            lambda weights, fraction_bits: 2.0 ** (weights.abs().log2().ceil() - fraction_bits - 1)
        ),
        "this is the half step at 1 for all of them; it grows with the weight": (
            lambda weights, fraction_bits: torch.full_like(weights, 2.0 ** (-fraction_bits - 1))
        ),
        "this counts one bit too many: the leading 1 is not stored and not one of the fraction's bits": (
            lambda weights, fraction_bits: half_a_step(weights, fraction_bits + 1)
        ),
    },
)


# Medium: loss_scale

SMALLEST_SQUARE = 2.0**-25  # what is smaller becomes 0 in float16
LARGEST = 65520.0  # what is as large becomes infinite
NEW = 0.001  # 1 - beta2: what a squared gradient is multiplied by on its way into AdamW's second moment
KEPT = 0.99  # of the gradients


def gradient_cases() -> Iterator[Case]:
    """Gradients as broad as persimmon-mini's, of three sizes, a few of them 0."""
    generator = torch.Generator().manual_seed(0)
    for middle in (-12.0, -22.0, -3.0):
        sizes = 2.0 ** (middle + 2.5 * torch.randn(4000, generator=generator).clamp(-3.5, 3.5))
        sizes[::20] = 0.0
        yield {"gradients": sizes * torch.randn(4000, generator=generator).sign()}


def loss_scale(answer: Callable[..., float]) -> Verdict:
    """Any power of two will do with which float16 holds the squares of the gradients, as AdamW stores them."""
    praise = "gradients and their squares fit, and a power of two changes no digit of them"
    return verdict(_check_loss_scale, answer, praise)


def _check_loss_scale(answer: Callable[..., float]) -> None:
    for case in gradient_cases():
        scale = float(attempt(answer, case, torch.Size([])))
        sizes = case["gradients"][case["gradients"] != 0].abs()
        where = f"gradients around 2^{sizes.log2().median():.0f}, scale {scale:g}"
        if scale <= 0:
            raise Wrong(f"a loss scale is positive ({where})")
        largest = float(sizes.max()) * scale
        if largest >= LARGEST:
            raise Wrong(f"the largest gradient becomes {largest:,.0f}, which float16 cannot hold ({where})")
        if NEW * largest**2 >= LARGEST:
            raise Wrong(
                f"the largest gradient, {largest:,.0f}, fits, but AdamW stores {NEW} times its square, "
                f"{NEW * largest**2:,.0f}, and that does not ({where})"
            )
        lost = float((NEW * (sizes * scale) ** 2 <= SMALLEST_SQUARE).double().mean())
        if lost > 1 - KEPT:
            raise Wrong(
                f"the second moment of {lost:.0%} of the gradients is still 0: {NEW} times a square must be above "
                f"2^-25, and at most {1 - KEPT:.0%} may be lost ({where})"
            )
        if math.frexp(scale)[0] != 0.5:
            raise Wrong(f"it works, but it rounds every gradient once more; take a power of two ({where})")


# Open: choose_islands


def island_cases() -> Iterator[tuple[PersimmonPreTrainedModel, Int[Tensor, "batch position"], list[str]]]:
    """Models of which some layers were stressed, tokens, and the modules in which float16 overflows."""
    config = PersimmonConfig.tiny(num_hidden_layers=4, initializer_range=0.1)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, config.vocab_size, (1, 24), generator=generator)
    for layers in ((1,), (0, 3), ()):
        model = PersimmonForCausalLM(config, generator).eval()
        yield scale_mlp(model, 512.0, layers), ids, [f"model.layers.{layer}.mlp" for layer in layers]


def choose_islands(answer: Callable[..., list[str]]) -> Verdict:
    """Paths of modules that restore parity when they stay in float32, and no more weights than that takes."""
    praise = "parity with the fewest float32 weights, and none where none are needed"
    return verdict(_check_islands, answer, praise)


def _check_islands(answer: Callable[..., list[str]]) -> None:
    for model, ids, needed in island_cases():
        paths = call(answer, model=model, ids=ids)
        if not isinstance(paths, list | tuple | set) or not all(isinstance(path, str) for path in paths):
            raise Wrong(f"it returned {paths!r}; return a list of module paths such as 'model.layers.0.self_attn'")
        try:
            result = compare(model, {"mixed": keep_in_float32(model, torch.float16, paths)}, ids)
        except ValueError as error:
            raise Wrong(f"{error}; an island is a module with the weights that it computes with") from error
        if result.first_non_finite["mixed"]:
            raise Wrong(f"with {list(paths)} in float32, {result.first_non_finite['mixed']}")
        predictions = result.predictions["mixed"]
        if not close(predictions):
            raise Wrong(f"with {list(paths)} in float32 the KL is still {float(predictions.kl.mean()):.2g} nats")
        in_float32, enough = island_weights(model, list(paths)), island_weights(model, needed)
        if in_float32 > enough:
            raise Wrong(f"parity is back, but with {in_float32:,} weights in float32, where {enough:,} are enough")


def island_weights(model: PersimmonPreTrainedModel, paths: list[str]) -> int:
    modules = [model.get_submodule(path) for path in outermost(model, paths)]
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
