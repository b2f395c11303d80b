"""What a choice of settings makes of one next-token distribution, and where the distributions are kept."""

from collections import OrderedDict
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from persimmon_lab.generation.sampling import describe_choice, shape_distribution
from persimmon_lab.viz.html.nucleus import Candidate, Nucleus
from persimmon_lab.widgets.playground.settings import Settings
from persimmon_lab.widgets.playground.tree import Branch

ROWS = 12
BYTES_KEPT = 256 * 2**20  # of logits: 16,384 positions of a vocabulary of 4,096, 255 of 262,144


def shaped(logits: Float[Tensor, "vocab"], settings: Settings) -> Float[Tensor, "vocab"]:
    """The scores that the next token is drawn from: -inf where it cannot be drawn."""
    if settings.temperature == 0:
        only = torch.full_like(logits, float("-inf"))
        best = logits.argmax()
        only[best] = logits[best]
        return only
    return shape_distribution(logits, settings.temperature, settings.top_k, settings.top_p, settings.min_p)


def cuts(logits: Float[Tensor, "vocab"], settings: Settings) -> list[tuple[str, int]]:
    """Each filter that cuts something, in the order they act, with the number of tokens that are left after it."""
    filters = {
        f"top-k {settings.top_k:,}": (settings.top_k, None, None),
        f"top-p {settings.top_p:g}": (settings.top_k, settings.top_p, None),
        f"min-p {settings.min_p:g}": (settings.top_k, settings.top_p, settings.min_p),
    }
    cutting = []
    left = logits.shape[0]
    for name, filters_so_far in filters.items():
        shaped_so_far = shape_distribution(logits, settings.temperature, *filters_so_far)
        count = int((shaped_so_far > float("-inf")).sum())
        if count < left:
            cutting.append((name, count))
        left = count
    return cutting


def nucleus(
    logits: Float[Tensor, "vocab"],
    settings: Settings,
    chosen: int | None,
    piece: Callable[[int], str],
    rows: int = ROWS,
) -> Nucleus:
    """The most probable tokens, and the `chosen` one, before and after temperature and filters. No model runs."""
    logits = logits.to(torch.float32)
    greedy = settings.temperature == 0
    model = logits.softmax(dim=-1)
    tempered = model if greedy else (logits / settings.temperature).softmax(dim=-1)
    scores = shaped(logits, settings)
    drawn = scores.softmax(dim=-1)
    kept = scores > float("-inf")
    best = torch.topk(logits, min(rows, logits.shape[0])).indices
    so_far = tempered[best].cumsum(dim=-1).tolist()
    ranks = list(enumerate(best.tolist(), start=1))
    if chosen is not None and chosen not in best.tolist():
        ranks.append((describe_choice(logits, chosen, 1).rank, chosen))
        so_far.append(float(tempered[tempered >= tempered[chosen]].sum()))
    return Nucleus(
        tuple(
            Candidate(
                token,
                piece(token),
                rank,
                float(model[token]),
                float(tempered[token]),
                float(drawn[token]),
                bool(kept[token]),
                total,
            )
            for (rank, token), total in zip(ranks, so_far, strict=True)
        ),
        chosen,
        logits.shape[0],
        float(-torch.xlogy(model, model).sum() / torch.log(torch.tensor(2.0))),
        settings.temperature,
        () if greedy else tuple(cuts(logits, settings)),
        int(kept.sum()),
        float(tempered[kept].sum()),
    )


class KeptLogits:
    """The model's logits at the tokens of branches; the oldest are forgotten where they would take too much memory."""

    def __init__(self, most_bytes: int = BYTES_KEPT) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        self._kept: OrderedDict[tuple[Branch, int], Tensor] = OrderedDict()

    def keep(self, branch: Branch, index: int, logits: Float[Tensor, "vocab"]) -> None:
        """Logits that token `index` of the branch's path was chosen from; a copy, since an engine may reuse its own."""
        logits = logits.detach().to("cpu", torch.float32, copy=True)
        before = self._kept.pop((branch, index), None)
        self._bytes += logits.nbytes - (0 if before is None else before.nbytes)
        self._kept[branch, index] = logits
        while self._bytes > self._most_bytes and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes

    def get(self, branch: Branch, index: int) -> Float[Tensor, "vocab"] | None:
        return self._kept.get((branch.owner(index), index))
