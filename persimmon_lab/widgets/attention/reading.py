"""What the attention explorer shows, apart from its controls: a text in, and every number that a view of it needs.

A reading keeps queries and keys after rotation and, of every softmax, the logarithm of its denominator. Any row or
column of any head follows from these in no time, while the patterns of all heads together would fill the memory.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce
from jaxtyping import Float, Int, Int8
from torch import Tensor

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.trace.capture import capture
from persimmon_lab.trace.heads import score_parts
from persimmon_lab.viz.html.tokens import Token
from persimmon_lab.viz.signs import readable
from persimmon_lab.widgets.described import describe_prompt
from persimmon_lab.widgets.reading import ids_to_read

VIEWS = ("pattern", "score", "rotated", "passed")
DIRECTIONS = ("from", "to")
THUMBNAIL, PICTURE = 32, 128  # cells along a head in the grid, and along the chosen one
FINEST = 127  # int8 reaches from -127 to 127

HeadVectors = Float[Tensor, "layer head position channel"]
HeadRows = Float[Tensor, "layer head position"]
HeadScores = Float[Tensor, "layer head"]


def label(token: Token) -> str:
    """A short name for a token: what it adds to the text, or its piece in the vocabulary where that shows nothing."""
    text = readable(token.text.strip(" "))
    return text or ("␣" if token.text else token.piece)


def scores(
    query: Float[Tensor, "*leading query channel"], key: Float[Tensor, "*leading key channel"], rotary_dim: int
) -> dict[str, Float[Tensor, "*leading query key"]]:
    """The score before the mask under the name of its view, and the two parts that it is the sum of."""
    rotated, passed = score_parts(query, key, rotary_dim)
    return {"score": rotated + passed, "rotated": rotated, "passed": passed}


@dataclass(frozen=True, eq=False)
class Reading:
    """One text as a model read it, in float32 whatever the model's dtype.

    `log_sums` is log sum exp of each row of scores. `thumbnails` are the patterns in blocks, `means` their mean
    attention to each kind of key (`kinds_of_key`).
    """

    ids: Int[Tensor, "position"]
    tokens: tuple[Token, ...]
    query: HeadVectors
    key: HeadVectors
    rotary_dim: int
    log_sums: HeadRows
    thumbnails: Float[Tensor, "layer head row column"]
    means: Mapping[str, HeadScores]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Layers, heads, positions."""
        layers, heads, positions = self.log_sums.shape
        return layers, heads, positions

    @property
    def labels(self) -> list[str]:
        return [label(token) for token in self.tokens]

    def matrix(self, layer: int, head: int, view: str) -> Float[Tensor, "query key"]:
        """One head's pattern, score or part of its score, with 0 where a query may not look."""
        parts = scores(self.query[layer, head], self.key[layer, head], self.rotary_dim)
        if view == "pattern":
            return (parts["score"] - rearrange(self.log_sums[layer, head], "query -> query 1")).exp().tril()
        return parts[view].tril()

    def largest(self, layer: int, head: int) -> float:
        """The largest size of one head's score and of its two parts: what their colours have in common."""
        return max(float(self.matrix(layer, head, view).abs().max()) for view in VIEWS[1:])

    def rows(self, token: int, direction: str, view: str = "pattern") -> HeadRows:
        """Of every head: what the query `token` sees of each key ("from"), or each query of the key `token` ("to")."""
        one = slice(token, token + 1)
        if direction == "from":
            parts = scores(self.query[..., one, :], self.key, self.rotary_dim)
            log_sums = self.log_sums[..., one]
            visible = slice(token + 1)
        else:
            parts = scores(self.query, self.key[..., one, :], self.rotary_dim)
            log_sums = self.log_sums
            visible = slice(token, None)
        values = parts["score" if view == "pattern" else view]
        values = rearrange(values, "layer head query key -> layer head (query key)")
        if view == "pattern":
            values = (values - log_sums).exp()
        seen = torch.zeros_like(values)
        seen[..., visible] = values[..., visible]
        return seen

    def row(self, layer: int, head: int, view: str, token: int, direction: str) -> Float[Tensor, "position"]:
        """The row of one head."""
        row: Tensor = self.only(layer, head).rows(token, direction, view)[0, 0]
        return row

    def only(self, layer: int, head: int) -> "Reading":
        """The same reading as if the model had this one head."""
        here = slice(layer, layer + 1), slice(head, head + 1)
        means = {name: mean[here] for name, mean in self.means.items()}
        return replace(self, query=self.query[here], key=self.key[here], log_sums=self.log_sums[here],
                       thumbnails=self.thumbnails[here], means=means)  # fmt: skip

    def not_finite(self) -> tuple[int, int] | None:
        """The first layer and head that has a score which is NaN or infinite; None where all are finite."""
        places = (~self.log_sums.isfinite()).any(dim=-1).nonzero().tolist()
        return (places[0][0], places[0][1]) if places else None

    def entropy(self, token: int) -> HeadScores:
        """Bits: 0 where all attention goes to one key, log2 of the number of keys where it is even."""
        nats: Tensor = torch.special.entr(self.rows(token, "from")).sum(dim=-1)
        return nats / math.log(2)

    def strongest_link(self, layer: int, head: int) -> tuple[int, int]:
        """The query and key of the strongest attention to neither the first token nor the query itself."""
        pattern = self.matrix(layer, head, "pattern").tril(-1)
        pattern[:, 0] = 0
        query, key = divmod(int(pattern.argmax()), len(self.ids))
        return query, key


def kinds_of_key(ids: Int[Tensor, "query"]) -> dict[str, Float[Tensor, "query key"]]:
    """Weights that sum a pattern to its mean attention to a kind of key, over the queries that have such keys.

    "induction": keys that follow an earlier token equal to the query. Olsson et al. 2022, "In-context Learning and
    Induction Heads", measure it on random tokens that repeat; on a text it mixes with everything else a head does.
    """
    same = (rearrange(ids, "query -> query 1") == ids).tril(-1)
    earlier = torch.ones_like(same).tril(-1)
    after = F.pad(same, (1, 0))[:, :-1].tril()
    first = F.pad(earlier[:, :1], (0, len(ids) - 1))
    kinds = {"previous token": earlier.triu(-1), "induction": after, "same token": same, "first token": first}
    return {name: wanted.float() / max(1, int(wanted.any(dim=-1).sum())) for name, wanted in kinds.items()}


def in_blocks(matrix: Float[Tensor, "query key"], most: int) -> Float[Tensor, "row column"]:
    """The matrix with at most `most` rows: each block of positions becomes the number in it that is farthest from 0."""
    block = -(-len(matrix) // most)
    missing = -len(matrix) % block
    padded = F.pad(matrix, (0, missing, 0, missing))

    def largest(values: Tensor) -> Tensor:
        return reduce(values, "(row r) (column c) -> row column", "max", r=block, c=block)

    highest = largest(padded)
    if not (padded < 0).any():
        return highest
    lowest = -largest(-padded)
    return torch.where(highest >= -lowest, highest, lowest)


def in_bytes(values: Float[Tensor, "*any"], limit: float, power: float = 1.0) -> Int8[Tensor, "*any"]:
    """sign · |value / limit| ^ power as a number from -127 to 127; NaN is 0. A power of 1/2 lifts what is faint."""
    shares = (values / limit if limit else values).clamp(-1, 1)
    return (FINEST * shares.sign() * shares.abs() ** power).nan_to_num(0.0).round().to(torch.int8)


def read(model: PersimmonForCausalLM, tokenizer: PersimmonTokenizer, text: str) -> Reading:
    """Run the model over a text. ValueError for one that is empty, or longer than the model or the page can take."""
    ids = ids_to_read(model, tokenizer, text)
    with torch.no_grad():
        trace = capture(model, ids.to(model.device), only=["rotated_query", "rotated_key"])
    query, key = (
        rearrange(trace.stacked(name), "layer 1 head position channel -> layer head position channel").float().cpu()
        for name in ("rotated_query", "rotated_key")
    )
    future = torch.ones(len(ids[0]), len(ids[0]), dtype=torch.bool).triu(1)
    kinds = kinds_of_key(ids[0])
    weights = torch.stack(list(kinds.values()))
    log_sums: list[Tensor] = []
    means: list[Tensor] = []
    thumbnails: list[Tensor] = []
    heads = (rearrange(vectors, "layer head ... -> (layer head) ...") for vectors in (query, key))
    for head_query, head_key in zip(*heads):
        score = scores(head_query, head_key, model.config.rotary_dim)["score"].masked_fill(future, -math.inf)
        log_sums.append(score.logsumexp(dim=-1))
        pattern = (score - rearrange(log_sums[-1], "query -> query 1")).exp()
        means.append(einsum(pattern, weights, "query key, kind query key -> kind"))
        thumbnails.append(in_blocks(pattern, THUMBNAIL))
    layers = {"layer": query.shape[0]}
    means_by_kind = rearrange(means, "(layer head) kind -> kind layer head", **layers)
    return Reading(
        ids[0],
        tuple(describe_prompt(tokenizer, ids)),
        query,
        key,
        model.config.rotary_dim,
        rearrange(log_sums, "(layer head) position -> layer head position", **layers),
        rearrange(thumbnails, "(layer head) row column -> layer head row column", **layers),
        dict(zip(kinds, means_by_kind)),
    )
