"""Marks for notebook 12, Where does it look?: detectors of heads; `nb12_naming` has the rule that names one."""

from collections.abc import Callable, Iterator

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor

from persimmon_lab.checks.marking import Case, Exercise
from persimmon_lab.trace.heads import stripe

Patterns = Float[Tensor, "layer head query key"]
HeadMap = Float[Tensor, "layer head"]


def random_patterns(generator: torch.Generator, *shape: int) -> Float[Tensor, "*leading query key"]:
    """Rows that sum to 1 over the keys up to the query, as uneven as trained heads make them."""
    scores = 3 * torch.randn(*shape, generator=generator)
    return scores.masked_fill(torch.ones(shape[-2:]).triu(diagonal=1).bool(), -torch.inf).softmax(dim=-1)


# Easy: sink_score


def sink_cases() -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)
    for shape in ((1, 1, 4, 4), (2, 3, 9, 9), (3, 2, 17, 17)):
        yield {"patterns": random_patterns(generator, *shape)}


def on_first_key(patterns: Patterns, first_query: int = 1) -> HeadMap:
    return patterns[:, :, first_query:, 0].mean(dim=-1)


sink_score = Exercise(
    reference=on_first_key,
    cases=sink_cases,
    axes=("layer", "head"),
    praise="what goes to the first token, from every query that had a choice",
    mistakes={
        "the first query counts as well; it has nothing else to look at and always gives 1": (
            lambda patterns: on_first_key(patterns, 0)
        ),
        "query and key are swapped: this is where the first query looks, and it can only look at itself": (
            lambda patterns: patterns[:, :, 0, 1:].mean(dim=-1)
        ),
        "it adds the queries up; a score is a mean, so that texts of any length compare": (
            lambda patterns: patterns[:, :, 1:, 0].sum(dim=-1)
        ),
        "this looks at the query's own token, the diagonal; the first token is key 0": (
            lambda patterns: stripe(patterns, 0, first=1)
        ),
        "this looks at the token before the query; the first token is key 0, however far away": (
            lambda patterns: stripe(patterns, 1)
        ),
    },
)


# Medium: induction_margin


def margin_cases() -> Iterator[Case]:
    generator = torch.Generator().manual_seed(1)
    for layers, heads, period, draws in ((1, 2, 4, 3), (2, 3, 6, 5), (3, 2, 9, 4)):
        yield {
            "repeated": random_patterns(generator, layers, heads, 2 * period, 2 * period),
            "shuffled": random_patterns(generator, draws, layers, heads, 2 * period, 2 * period),
            "period": period,
        }


def margin(
    offset: int = -1, null: str = "draw layer head -> 1 1", over: str = "max", first: int = 0
) -> Callable[..., HeadMap]:
    """The induction margin with a stripe at period + offset, and a null that is reduced otherwise."""

    def margin_of(
        repeated: Patterns, shuffled: Float[Tensor, "draw layer head query key"], period: int
    ) -> Float[Tensor, "layer head"]:
        scores, nulls = (stripe(patterns, period + offset, first=period + first) for patterns in (repeated, shuffled))
        return scores - reduce(nulls, null, over)

    return margin_of


induction_margin = Exercise(
    reference=margin(),
    cases=margin_cases,
    axes=("layer", "head"),
    praise="the stripe after the earlier copy, above the highest that chance gave to any head",
    mistakes={
        "off by one: this stripe is the earlier copy itself, where a duplicate-token head looks; induction looks at "
        "what came after it, one position nearer": margin(offset=0),
        "off by one the other way: this is two after the earlier copy": margin(offset=-2),
        "each head is compared with its own null alone; of so many heads the luckiest beats its own by chance, so take "
        "the highest of all heads and draws": margin(null="draw layer head -> layer head"),
        "the null's mean is a bar that half of all useless heads pass; take its highest score": margin(over="mean"),
        "the null is missing: these are the scores themselves": (
            lambda repeated, shuffled, period: stripe(repeated, period - 1, first=period)
        ),
        "the last query of the first half counts as well; there is no earlier copy for it yet": margin(first=-1),
    },
)


# Medium: following_score


def following_cases() -> Iterator[Case]:
    generator = torch.Generator().manual_seed(2)
    for layers, heads, length, pieces in ((1, 2, 8, 3), (2, 2, 14, 5), (2, 3, 20, 4)):
        ids = torch.randint(0, pieces, (length,), generator=generator)
        yield {"patterns": random_patterns(generator, layers, heads, length, length), "ids": ids}


def copies(ids: Int[Tensor, "position"]) -> Bool[Tensor, "query key"]:
    """Whether a key before the query holds the same token."""
    return (rearrange(ids, "query -> query 1") == rearrange(ids, "key -> 1 key")).tril(diagonal=-1)


def shifted(keys: Bool[Tensor, "query key"], by: int) -> Bool[Tensor, "query key"]:
    """Marks moved to later (1) or earlier (-1) keys, without those that would fall off."""
    edge = torch.zeros(len(keys), 1, dtype=torch.bool)
    return torch.cat((edge, keys[:, :-1]) if by == 1 else (keys[:, 1:], edge), dim=1)


def follows_earlier(ids: Int[Tensor, "position"]) -> Bool[Tensor, "query key"]:
    """Whether a key stands right after an earlier copy of the query's token."""
    return shifted(copies(ids), 1)


def following(
    wanted: Callable[[Tensor], Tensor] = follows_earlier, every_query: bool = False
) -> Callable[..., HeadMap]:
    def score(patterns: Patterns, ids: Int[Tensor, "position"]) -> HeadMap:
        keys = wanted(ids)
        attention = (patterns * keys).sum(dim=-1)
        asked = slice(None) if every_query else follows_earlier(ids).any(dim=-1)
        return attention[..., asked].mean(dim=-1)

    return score


def nearest_only(ids: Int[Tensor, "position"]) -> Bool[Tensor, "query key"]:
    wanted = follows_earlier(ids)
    return wanted & (wanted.flip(-1).cumsum(dim=-1).flip(-1) == 1)


def mean_over_keys(patterns: Patterns, ids: Int[Tensor, "position"]) -> HeadMap:
    keys = follows_earlier(ids)
    queries = keys.any(dim=-1)
    return ((patterns * keys).sum(dim=-1)[..., queries] / keys.sum(dim=-1)[queries]).mean(dim=-1)


following_score = Exercise(
    reference=following(),
    cases=following_cases,
    axes=("layer", "head"),
    praise="an induction detector for any text: no random tokens, no period",
    mistakes={
        "off by one: this is the attention to the earlier copies themselves; induction looks at what came after them": (
            following(copies)
        ),
        "queries whose token is new count as well; they have nothing to follow, and only dilute the mean": (
            following(every_query=True)
        ),
        "only the nearest earlier copy counts; whatever followed any of them is what a head may copy": (
            following(nearest_only)
        ),
        "attention is averaged over the keys that follow; a head may spread over them, so add it up": mean_over_keys,
        "this follows from the wrong side: it takes what came before the earlier copies": (
            following(lambda ids: shifted(copies(ids), -1))
        ),
    },
)
