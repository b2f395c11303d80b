"""The lens explorer: what a model would say next, in every layer and at every token of a text."""

import math
from collections.abc import Callable

import traitlets
from matplotlib.figure import Figure

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.viz.html.lens_cell import cell_html
from persimmon_lab.viz.lens import COLUMNS
from persimmon_lab.viz.lens_explorer import explorer
from persimmon_lab.viz.signs import counted, readable, stream_names, visible
from persimmon_lab.widgets.explorer import Answer, Content, Explorer, Proposal, in_range
from persimmon_lab.widgets.lens.reading import AFTER, CHUNK, NOTHING, Reading, read
from persimmon_lab.widgets.page import joined
from persimmon_lab.widgets.reading import TEXT, title


class LensExplorer(Explorer[Reading]):
    """The logit lens on one text: each cell is the token that a layer would say next, there, if it were the last one.

    Takes the shipped model, or a `model` of yours with its `tokenizer`. Hover over a cell or walk with the arrow keys
    to see its ten best tokens and how the token that really follows fares from layer to layer; a click or Enter keeps
    it. `name` is how the still picture calls the model, by default as its folder is called.

    Each trait may be set from Python too: text, after ("mlp" or "attention": where in a layer the residual stream is
    read), stream (0 is the embedding, n + 1 layer n) and position. `reading` holds the numbers. Of a text that cannot
    be read `error` says why, the page goes on showing the one before, in grey, and `reading` and `static()` raise
    ValueError, as does the constructor.
    """

    _esm = joined("keys.js", "explorer.js", "lens/widget.js")
    _css = joined("base.css", "explorer.css", "lens/widget.css")
    after = traitlets.Enum(AFTER, "mlp").tag(sync=True)
    stream = traitlets.Int(0).tag(sync=True)
    position = traitlets.Int(0).tag(sync=True)

    def __init__(
        self,
        text: str = TEXT,
        model: PersimmonForCausalLM | None = None,
        tokenizer: PersimmonTokenizer | None = None,
        name: str | None = None,
    ) -> None:
        self._open(text, model, tokenizer, name)
        stream, position = self._reading.discovery()
        super().__init__(text=text, stream=stream, position=position)

    def details(self, stream: int, position: int) -> str:
        """The side pane of a cell, in HTML."""
        return cell_html(self._reading.cell(self.after, stream, position), self._model.config.vocab_size)

    def static(self) -> Figure:
        """The present choice as one figure, for pages without a kernel: the cells around the chosen one, and it.

        ValueError for a text that cannot be read.
        """
        reading = self.reading
        pieces = reading.pieces
        first = max(0, min(self.position - COLUMNS // 2, len(pieces) - COLUMNS))
        shown = range(first, min(first + COLUMNS, len(pieces)))
        window = reading.window(self.after, first, COLUMNS)
        cell = reading.cell(self.after, self.stream, self.position)
        return explorer(
            reading.best(window),
            window.likeliest[..., 0],
            [pieces[position] for position in shown],
            [reading.following(position) for position in shown],
            (self.stream, self.position - first),
            cell,
            title(self.name, f"{cell.place}, after {visible(cell.read)} ({self.position})", joint=" · "),
            self.warning,
        )

    def __repr__(self) -> str:
        streams, positions = self._reading.shape
        name = stream_names(streams)[self.stream]
        return (
            f"LensExplorer({counted(positions, 'token')}, {counted(streams - 1, 'layer')}, after {self.after}, {name}, "
            f"token {self.position})"
        )

    @traitlets.validate("stream", "position")
    def _in_range(self, proposal: Proposal) -> int:
        streams, positions = self._reading.shape
        return in_range(proposal, {"stream": streams, "position": positions})

    def _reading_of(self, text: str) -> Reading:
        return read(self._model, self._tokenizer, text)

    def _begin(self) -> None:
        self.stream, self.position = self._reading.discovery()

    def _warning(self) -> str:
        place = self._reading.not_finite()
        return "" if place is None else f"Numbers that are not finite begin in {place}; {NOTHING} is where they lead."

    def _answer_to(self, kind: str, arguments: Content) -> Answer:
        answers: dict[str, Callable[..., Content]] = {"whole": self._whole, "window": self._window, "cell": self._cell}
        return answers[kind](**{name: value for name, value in arguments.items() if name != "key"}), []

    def _whole(self) -> Content:
        tokens = [readable(piece) for piece in self._reading.pieces]
        return {"tokens": tokens, "streams": stream_names(self._reading.shape[0]), "chunk": CHUNK}

    def _window(self, after: str, first: int) -> Content:
        """Cells from `first` on, a row for each state of the stream: [piece, its probability, whether it follows].

        JSON has no NaN: where the probability is none, None.
        """
        window = self._reading.window(after, first)
        best = [[readable(piece) for piece in row] for row in self._reading.best(window)]
        cells = [
            [(piece, None if math.isnan(share) else share, int(rank == 1)) for piece, share, rank in zip(*row)]
            for row in zip(best, window.likeliest[..., 0].tolist(), window.rank.tolist())
        ]
        return {"cells": cells}

    def _cell(self, after: str, stream: int, position: int) -> Content:
        return {"html": cell_html(self._reading.cell(after, stream, position), self._model.config.vocab_size)}
