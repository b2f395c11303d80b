"""What the lens explorer shows, apart from its controls: a text in, and any part of its logit lens out.

A reading keeps the residual stream, which is small, and decodes as many positions as are looked at: the logits of every
layer and position together would fill the memory of a machine that reads a long text with a large vocabulary.
"""

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.trace.lens import decode, residual_streams
from persimmon_lab.viz.html.lens_cell import Cell
from persimmon_lab.viz.signs import stream_names
from persimmon_lab.widgets.reading import ids_to_read

AFTER = ("attention", "mlp")
PARTS = {"attention": "its attention", "mlp": "its MLP"}
NOTHING = "⟨NaN⟩"  # stands for the likeliest token where there is none
LIKELIEST = 10  # tokens of a cell
CHUNK = 16  # positions that the page asks for, and that are decoded, together


@dataclass(frozen=True, eq=False)
class Window:
    """Some neighbouring positions in every state of the stream.

    `best` are the ids of the likeliest tokens and `likeliest` their probabilities. `probability` and `rank` (1 is the
    most probable) are those of the token that follows in the text; 0 at the text's end. Where the logits are not all
    finite the probabilities are NaN, the ids mean nothing, and the rank is 0.
    """

    best: Int[Tensor, "stream position best"]
    likeliest: Float[Tensor, "stream position best"]
    probability: Float[Tensor, "stream position"]
    rank: Int[Tensor, "stream position"]


@dataclass(frozen=True, eq=False)
class Reading:
    """One text as a model read it: the residual stream on its way, read after each layer's attention and its MLP."""

    model: PersimmonForCausalLM
    tokenizer: PersimmonTokenizer
    ids: Int[Tensor, "position"]
    streams: dict[str, Float[Tensor, "stream position hidden"]]

    @property
    def shape(self) -> tuple[int, int]:
        """States of the stream (one more than layers), positions."""
        streams, positions, _ = self.streams["mlp"].shape
        return streams, positions

    @property
    def pieces(self) -> list[str]:
        return self.tokenizer.convert_ids_to_tokens(self.ids.tolist())

    def piece(self, token: int) -> str:
        return self.tokenizer.convert_ids_to_tokens([token])[0]

    def following(self, position: int) -> str | None:
        """The piece after a position; None at the text's end."""
        return self.piece(int(self.ids[position + 1])) if position + 1 < len(self.ids) else None

    def window(self, after: str, first: int, count: int = CHUNK) -> Window:
        """Decode `count` positions from `first` on, as far as the text goes, one state of the stream after another."""
        here = slice(first, first + count)
        following = self.ids[first + 1 : first + count + 1].to(self.model.device)
        columns = []
        for stream in self.streams[after][:, here]:
            logits = decode(self.model, stream.to(self.model.device)).float()
            probabilities = logits.softmax(dim=-1)
            likeliest, best = probabilities.topk(min(LIKELIEST, probabilities.shape[-1]))
            # The last position of a text has no following token.
            index = rearrange(following, "position -> position 1")
            of_following = logits[: len(following)].gather(-1, index)
            rank = torch.zeros(len(stream), dtype=torch.long)
            probability = torch.zeros(len(stream))
            probability[: len(following)] = rearrange(
                probabilities[: len(following)].gather(-1, index), "position 1 -> position"
            ).cpu()
            rank[: len(following)] = (logits[: len(following)] > of_following).sum(dim=-1).cpu() + 1
            rank[probability.isnan()] = 0
            columns.append((best.cpu(), likeliest.cpu(), probability, rank))
        return Window(*map(torch.stack, zip(*columns)))

    def best(self, window: Window) -> list[list[str]]:
        """The likeliest token's piece in each state of the stream and at each position; NOTHING where there is none."""
        return [
            [NOTHING if math.isnan(share) else self.piece(token) for token, share in zip(*row)]
            for row in zip(window.best[..., 0].tolist(), window.likeliest[..., 0].tolist())
        ]

    def not_finite(self) -> str | None:
        """Where on the model's way the first number is that is NaN or infinite; None where all are finite."""
        for stream, name in enumerate(stream_names(self.shape[0])):
            for after in AFTER:
                if not self.streams[after][stream].isfinite().all():
                    return name if stream == 0 else f"{name}, {PARTS[after]}"
        return "the final norm or lm_head" if self.window("mlp", 0, 1).likeliest.isnan().any() else None

    def cell(self, after: str, stream: int, position: int) -> Cell:
        """One cell's best tokens, and the following token's way through the layers."""
        window = self.window(after, position, 1)
        pairs = zip(window.best[stream, 0].tolist(), window.likeliest[stream, 0].tolist())
        likeliest = [(self.piece(token), probability) for token, probability in pairs if not math.isnan(probability)]
        place = "The embedding" if stream == 0 else f"Layer {stream - 1}, after {after.replace('mlp', 'MLP')}"
        return Cell(
            self.piece(int(self.ids[position])),
            position,
            place,
            tuple(likeliest),
            self.following(position),
            tuple(window.probability[:, 0].tolist()),
            tuple(window.rank[:, 0].tolist()),
            stream,
        )

    def discovery(self) -> tuple[int, int]:
        """A (stream, position) worth a look: where the upper half of the layers adds most to the following token's
        probability, and the first state of the stream from which on it is the best one to the end."""
        windows = [self.window("mlp", first) for first in range(0, len(self.ids), CHUNK)]
        probability = torch.cat([window.probability for window in windows], dim=-1)
        rank = torch.cat([window.rank for window in windows], dim=-1)
        gain = (probability[-1] - probability[len(probability) // 2]).nan_to_num(0.0)
        position = int(gain.argmax())
        missed = [stream for stream, place in enumerate(rank[:, position].tolist()) if place != 1]
        return min(max(missed, default=-1) + 1, len(rank) - 1), position


def read(model: PersimmonForCausalLM, tokenizer: PersimmonTokenizer, text: str) -> Reading:
    """Run the model over a text. ValueError for one that is empty, or longer than the model or the page can take."""
    ids = ids_to_read(model, tokenizer, text)
    with torch.no_grad():
        streams = {
            after: rearrange(
                residual_streams(model, ids.to(model.device), after),
                "stream 1 position hidden -> stream position hidden",
            )
            for after in AFTER
        }
    return Reading(model, tokenizer, ids[0], streams)
