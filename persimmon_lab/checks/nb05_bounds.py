"""Marks for notebook 05, Bounded attention: how large a score can become."""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from persimmon_lab.attention import PersimmonAttention
from persimmon_lab.checks.marking import Case, Exercise, Verdict, Wrong, attempt, verdict
from persimmon_lab.checks.nb03_rotary import rotate
from persimmon_lab.checks.nb05_attention import EPSILON
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.mini import load_mini
from persimmon_lab.numerics.bounds import largest_score_found, score_bound
from persimmon_lab.rotary import rotary_tables

# Easy: largest_score


def bound_of_numbers(head_dim: int, query_weight: float, key_weight: float) -> Float[Tensor, ""]:
    return torch.tensor(math.sqrt(head_dim) * abs(query_weight * key_weight))


def bound_cases() -> Iterator[Case]:
    for head_dim, query_weight, key_weight in ((64, 1.0, 1.0), (32, 1.5, 1.25), (7, -0.4, 2.0), (128, 3.0, -3.0)):
        yield {"head_dim": head_dim, "query_weight": query_weight, "key_weight": key_weight}


largest_score = Exercise(
    reference=bound_of_numbers,
    cases=bound_cases,
    axes=(),
    praise="two vectors of length √d at most, so a product of d at most, so a score of √d, times the two weights",
    mistakes={
        "this bounds q·k; a score is q·k divided by √head_dim": lambda head_dim, **case: (
            math.sqrt(head_dim) * bound_of_numbers(head_dim, **case)
        ),
        "this is the bound for weight 1; the weights stretch query and key": lambda head_dim, **_: bound_of_numbers(
            head_dim, 1.0, 1.0
        ),
        "this takes normalised vectors to have length 1; their mean square is 1, so their length is √head_dim": (
            lambda head_dim, **case: bound_of_numbers(1, **case)
        ),
        "a query and a key of length 1 would give this; theirs is √head_dim, before the division": (
            lambda head_dim, **case: bound_of_numbers(1, **case) / math.sqrt(head_dim)
        ),
        "a weight may be negative; a bound on the magnitude is not": lambda head_dim, query_weight, key_weight: (
            torch.tensor(math.sqrt(head_dim) * query_weight * key_weight)
        ),
        "only one of the two weights is in it": lambda head_dim, query_weight, key_weight: bound_of_numbers(
            head_dim, query_weight, 1.0
        ),
    },
)


# Easy: reach_the_bound

NEARLY = 0.99  # of the bound counts as reaching it: the norm's epsilon keeps every vector a little below


def reach_the_bound(answer: Callable[..., Float[Tensor, "two channel"]]) -> Verdict:
    """Any query and key will do whose score comes within a hundredth of √head_dim."""
    return verdict(_check_reach, answer, "the bound is reached where the two point the same way, and nowhere else")


def _check_reach(answer: Callable[..., Float[Tensor, "two channel"]]) -> None:
    for head_dim in (2, 5, 32, 64):
        raw = attempt(answer, {"head_dim": head_dim}, torch.Size((2, head_dim))).double()
        where = f"head_dim {head_dim}, √head_dim {math.sqrt(head_dim):.3f}"
        if (raw.var(dim=-1, correction=0) < 1e-12).any():
            raise Wrong(f"a vector of equal numbers is all mean, and LayerNorm leaves nothing of it ({where})")
        query, key = F.layer_norm(raw, (head_dim,), eps=EPSILON)
        score = float(query @ key) / math.sqrt(head_dim)
        if score >= NEARLY * math.sqrt(head_dim):
            continue
        if score <= -NEARLY * math.sqrt(head_dim):
            raise Wrong(f"the score is {score:.3f}, the lowest there is; turn one of the two round ({where})")
        if (raw.var(dim=-1, correction=0) < 100 * EPSILON).any():
            raise Wrong(
                f"the score is {score:.3f}: so small a vector that the norm's epsilon, {EPSILON:g}, counts beside its "
                f"variance; make it larger ({where})"
            )
        raise Wrong(f"the score is {score:.3f}; for which two directions is a dot product largest? ({where})")


# Open: tight_bound

TIGHTER = 0.99  # of Cauchy and Schwarz's bound, at most
LAYERS = 2  # of the shipped model: those in which the search leaves most room below that bound
MEETING = 3  # the offset at which the biases of the random norms point the same way


def _norm(weight: Float[Tensor, "channel"], bias: Float[Tensor, "channel"]) -> nn.LayerNorm:
    norm = nn.LayerNorm(len(weight), eps=EPSILON, dtype=weight.dtype)
    norm.weight, norm.bias = nn.Parameter(weight), nn.Parameter(bias)
    return norm.requires_grad_(False)


def tight_cases() -> Iterator[tuple[str, nn.LayerNorm, nn.LayerNorm, Tensor, Tensor]]:
    """What the case is, the two norms, and rotary tables of the offsets."""
    generator = torch.Generator().manual_seed(4)
    for channels in (8, 16):
        config = PersimmonConfig.tiny(hidden_size=channels, num_attention_heads=1)
        cos, sin = rotary_tables(rearrange(torch.arange(24), "p -> 1 p"), config, 24, torch.float32)
        weights = 1 + 0.3 * torch.randn(2, channels, generator=generator)
        key_bias = 1.5 * torch.randn(channels, generator=generator)
        # Turned back, so that offset 0 is not where the two biases meet: a bound for offset 0 alone must fail.
        as_head = rearrange(key_bias, "channel -> 1 1 1 channel")
        query_bias = rotate(as_head, torch.tensor([MEETING]), config.rope_theta, config.rotary_dim, sign=-1)
        biases = (rearrange(query_bias, "1 1 1 channel -> channel"), key_bias)
        query_norm, key_norm = (_norm(weight, bias) for weight, bias in zip(weights, biases))
        yield f"random norms of {channels} channels", query_norm, key_norm, cos[0], sin[0]
    model, _ = load_mini()
    cos, sin = rotary_tables(rearrange(torch.arange(32), "p -> 1 p"), model.config, 32, torch.float32)
    attentions = [module for module in model.requires_grad_(False).modules() if isinstance(module, PersimmonAttention)]
    norms = [(attention.q_layernorm, attention.k_layernorm) for attention in attentions]
    reached = [float(largest_score_found(*pair, cos[0], sin[0]).max()) / score_bound(*pair) for pair in norms]
    for layer in sorted(range(len(norms)), key=reached.__getitem__)[:LAYERS]:
        yield f"layer {layer} of persimmon-mini", *norms[layer], cos[0], sin[0]


def tight_bound(answer: Callable[..., Float[Tensor, ""]]) -> Verdict:
    """Any number will do that no score exceeds and that lies a hundredth below Cauchy and Schwarz's bound.

    The check can refute a bound, by two head vectors with a larger score; it cannot prove one.
    """
    praise = "tighter than Cauchy and Schwarz, and no counterexample was found; the proof is yours to keep"
    return verdict(_check_tight, answer, praise)


def _check_tight(answer: Callable[..., Float[Tensor, ""]]) -> None:
    for name, query_norm, key_norm, cos, sin in tight_cases():
        case = {"query_weight": query_norm.weight.detach(), "query_bias": query_norm.bias.detach()}
        case |= {"key_weight": key_norm.weight.detach(), "key_bias": key_norm.bias.detach(), "cos": cos, "sin": sin}
        bound = float(attempt(answer, case, torch.Size(())))
        scores = largest_score_found(query_norm, key_norm, cos, sin, starts=16, seed=5)
        simple = score_bound(query_norm, key_norm)
        if bound < float(scores.max()) * (1 - 1e-6):
            raise Wrong(
                f"{bound:.3f} is not a bound: there are a query and a key that score {float(scores.max()):.3f} at "
                f"offset {int(scores.argmax())} ({name})"
            )
        if bound > simple * (1 + 1e-6):
            raise Wrong(f"{bound:.3f} is looser than Cauchy and Schwarz's bound of {simple:.3f} ({name})")
        if bound > TIGHTER * simple:
            raise Wrong(
                f"{bound:.3f} is Cauchy and Schwarz's bound, {simple:.3f}, or nearly; it lets the longest query and "
                f"the longest key point the same way, which their weights and biases may not allow ({name})"
            )
