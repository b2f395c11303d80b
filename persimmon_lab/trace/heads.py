"""What kind of head is it: scores on repeated random tokens with a null distribution, and the two parts of a score.

On rows of random tokens whose second half repeats the first, a habit of a head is a stripe of its pattern: so many
positions back from the query stands always the same thing. No meaning helps, so a stripe tells the habit alone.

Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits; Olsson et al. 2022, In-context Learning
and Induction Heads, appendix on head activation evaluators.
"""

import math
from dataclasses import dataclass

import torch
from einops import einsum, rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.pretrained import PersimmonPreTrainedModel
from persimmon_lab.trace.capture import capture

Head = tuple[int, int]
Rows = Int[Tensor, "row position"]
Matrix = Float[Tensor, "*leading query key"]
TRIES = 1000  # one shuffle in e leaves nothing in place, so a row that fails as often cannot be shuffled


def offsets(period: int) -> dict[str, int]:
    """How far back each kind of head looks, in rows that repeat themselves after `period` tokens.

    The earlier copy of the query's token stands `period` back; what followed it then, one nearer. The trap: an
    induction head looks at the latter, which predicts the next token, and not at the copy, which it is already at.
    """
    return {"previous token": 1, "duplicate token": period, "induction": period - 1}


def stripe(pattern: Matrix, offset: int, first: int = 0) -> Float[Tensor, "*leading"]:
    """The attention that goes `offset` positions back, a mean over the queries from `first` on that have such a key.

    Raises ValueError where there is no such query.
    """
    length = pattern.shape[-1]
    start = max(offset, first)
    if not 0 <= offset <= start < length:
        raise ValueError(f"no query of 0 … {length - 1} from {first} on has a key {offset} positions before it")
    return pattern.diagonal(offset=-offset, dim1=-2, dim2=-1)[..., start - offset :].mean(dim=-1)


def stripe_scores(
    patterns: Float[Tensor, "layer row head query key"], period: int
) -> dict[str, Float[Tensor, "layer head"]]:
    """Every head's score of every kind: its stripe on the queries of the second half, a mean over rows."""
    return {
        kind: reduce(stripe(patterns.float(), offset, first=period), "layer row head -> layer head", "mean")
        for kind, offset in offsets(period).items()
    }


def shuffled_copies(rows: Rows, seed: int) -> Rows:
    """Rows with the same halves but the second one shuffled: the same tokens, and nothing to be found by order.

    No token comes to stand where it stood, for there it would be a copy still. Raises ValueError for a row that cannot
    be shuffled so, such as one of a single token.
    """
    period = _period(rows)
    generator = torch.Generator().manual_seed(seed)
    shuffled = []
    for half in rows[:, :period].cpu():
        for _ in range(TRIES):
            order = half[torch.randperm(period, generator=generator)]
            if (order != half).all():
                break
        else:
            raise ValueError(f"the half row {half.tolist()} has one token too often to be shuffled out of its places")
        shuffled.append(order)
    return torch.cat((rows[:, :period], torch.stack(shuffled).to(rows.device)), dim=1)


def _period(rows: Rows) -> int:
    period = rows.shape[1] // 2
    if not torch.equal(rows[:, :period], rows[:, period:]):
        raise ValueError(
            f"the second half of these rows of {rows.shape[1]} tokens is not their first half again; make them with "
            "training.evaluate.repeated_rows, or say a phrase twice and nothing more"
        )
    return period


@dataclass(frozen=True)
class Detection:
    """Every head's score of one kind, beside the scores that heads get where there is nothing to detect."""

    kind: str
    scores: Float[Tensor, "layer head"]
    null: Float[Tensor, "draw layer head"]

    def __repr__(self) -> str:
        heads = ", ".join(
            f"{layer}.{head} {float(self.scores[layer, head]):.2f}" for layer, head in self.standing_out()
        )
        return f"<Detection of {self.kind} heads above {self.bar:.2f}: {heads or 'none'}>"

    @property
    def z(self) -> Float[Tensor, "layer head"]:
        """How many standard deviations of the null, all heads and draws together, a score lies above its mean."""
        return (self.scores - self.null.mean()) / self.null.std()

    @property
    def percentile(self) -> Float[Tensor, "layer head"]:
        """How many per cent of the null, all heads and draws together, lie below a score."""
        null = rearrange(self.null, "draw layer head -> (draw layer head)")
        return 100 * (rearrange(self.scores, "layer head -> layer head 1") > null).float().mean(dim=-1)

    @property
    def bar(self) -> float:
        """The highest score of any head in any draw of the null."""
        return float(self.null.max())

    def standing_out(self) -> list[Head]:
        """The heads above the bar as (layer, head), the highest score first.

        Were no head of this kind, even one of them would stand out with a probability of at most 1 / (draws + 1), all
        heads taken together (a permutation test of the maximum; Westfall & Young 1993). The trap: to stand out is not
        to be strong; read the score as well.
        """
        order = rearrange(self.scores, "layer head -> (layer head)").argsort(descending=True, stable=True).tolist()
        heads = [divmod(index, self.scores.shape[1]) for index in order]
        return [head for head in heads if self.scores[head] > self.bar]


def detect(model: PersimmonPreTrainedModel, rows: Rows, seed: int = 0, draws: int = 20) -> dict[str, Detection]:
    """Previous-token, duplicate-token and induction scores of every head on rows that say everything twice.

    The null of "duplicate token" and "induction" is the same stripe on `draws` shuffles of the second halves: what a
    head gives to that offset out of habit, whatever stands there. A previous-token head *is* such a habit, which
    shuffling leaves alone; its null is every other stripe of the same heads, from 2 back to `period` - 2, in one
    shuffle. (Those are not exchangeable with the first, as near keys get more than far ones: take its bar as a
    description, not as a test.)

    Takes 4 bytes a layer, head, row, query and key at a time. Raises ValueError for rows whose halves differ or that
    are too short.
    """
    period = _period(rows)
    if period < 4 or draws < 1:
        raise ValueError(f"a period of {period} tokens and {draws} draws make no null; give 4 or more, and 1 or more")
    scores = stripe_scores(patterns_of(model, rows), period)
    drawn = []
    for draw in range(draws):
        shuffled = patterns_of(model, shuffled_copies(rows, seed + draw))
        drawn.append(stripe_scores(shuffled, period))
        if draw == 0:
            others = [stripe(shuffled, offset, first=period) for offset in range(2, period - 1)]
    nulls = {"previous token": [reduce(other, "layer row head -> layer head", "mean") for other in others]}
    nulls |= {kind: [by_kind[kind] for by_kind in drawn] for kind in ("duplicate token", "induction")}
    return {kind: Detection(kind, scores[kind], torch.stack(nulls[kind])) for kind in scores}


def patterns_of(model: PersimmonPreTrainedModel, ids: Rows) -> Float[Tensor, "layer row head query key"]:
    """The attention of every head in one forward pass, in float32."""
    return capture(model, ids, only=["self_attn.pattern"]).stacked("self_attn.pattern").float()


# The two parts of a score


def score_parts(
    query: Float[Tensor, "*leading query channel"], key: Float[Tensor, "*leading key channel"], rotary_dim: int
) -> tuple[Matrix, Matrix]:
    """(rotated, passed): what the rotated and what the passed channels say; their sum is the score, before the mask.

    A score is a sum over channels, q·k / sqrt(channels), so it splits exactly: the first `rotary_dim` channels of
    `rotated_query` and `rotated_key` know the offset, the others pass unrotated and know only what the tokens are.
    """
    scale = math.sqrt(query.shape[-1])
    rotated, passed = (
        einsum(query[..., part], key[..., part], "... query channel, ... key channel -> ... query key") / scale
        for part in (slice(rotary_dim), slice(rotary_dim, None))
    )
    return rotated, passed


def spread(part: Matrix) -> Float[Tensor, "*leading"]:
    """Distance of the scores from their mean over the keys that each query sees, root mean square over all of these.

    What is equal for all keys drops out, as it does in the softmax.
    """
    visible = torch.ones(part.shape[-2:], device=part.device).tril()
    mean = (part * visible).sum(dim=-1, keepdim=True) / visible.sum(dim=-1, keepdim=True)
    return (((part - mean) ** 2 * visible).sum(dim=(-2, -1)) / visible.sum()).sqrt()


def rotated_share(rotated: Matrix, passed: Matrix) -> Float[Tensor, "*leading"]:
    """spread(rotated) / (spread(rotated) + spread(passed)): near 1 the rotated channels decide, near 0 the passed."""
    return spread(rotated) / (spread(rotated) + spread(passed))


def rotated_shares(model: PersimmonPreTrainedModel, ids: Rows) -> Float[Tensor, "layer head"]:
    """The rotated part's share in the scores of every head, a mean over rows (without padding)."""
    trace = capture(model, ids, only=["rotated_query", "rotated_key"])
    shares = [
        rotated_share(*score_parts(query.float(), key.float(), model.config.rotary_dim))
        for query, key in zip(trace.stacked("rotated_query"), trace.stacked("rotated_key"))
    ]
    return reduce(torch.stack(shares), "layer row head -> layer head", "mean")
