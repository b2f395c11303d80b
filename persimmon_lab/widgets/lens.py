"""The lens explorer: what a model would say next, in every layer and at every token of a text."""

import base64
import io
from pathlib import Path

import anywidget
import traitlets
from matplotlib.figure import Figure

from persimmon_lab.heads import PersimmonForCausalLM
from persimmon_lab.mini import load_mini
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.viz.lens import COLUMNS, stream_names, visible
from persimmon_lab.viz.lens_cell import cell_html
from persimmon_lab.viz.lens_explorer import explorer
from persimmon_lab.widgets.lens_reading import AFTER, CHUNK, read

HERE = Path(__file__).parent
PHRASE = "the king gave seven golden rings to Hannah"
TEXT = f"{PHRASE}, {PHRASE}"
WIDTH = 900  # of the static picture, in pixels
DOTS_PER_INCH = 130


class LensExplorer(anywidget.AnyWidget):
    """The logit lens on one text: each cell is the token that a layer would say next, there, if it were the last one.

    Takes the shipped model, or a `model` of yours with its `tokenizer`. Hover over a cell or walk with the arrow keys
    to see its ten best tokens and how the token that really follows fares from layer to layer; a click or Enter keeps
    it.

    Each trait may be set from Python too: text, after ("mlp" or "attention": where in a layer the residual stream is
    read), stream (0 is the embedding, n + 1 layer n) and position. `reading` holds the numbers. A text that cannot be
    read leaves them as they are and its reason in `error`; in the constructor it raises ValueError.
    """

    _esm = HERE / "lens.js"
    _css = HERE / "lens.css"
    text = traitlets.Unicode().tag(sync=True)
    after = traitlets.Enum(AFTER, "mlp").tag(sync=True)
    stream = traitlets.Int(0).tag(sync=True)
    position = traitlets.Int(0).tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        text: str = TEXT,
        model: PersimmonForCausalLM | None = None,
        tokenizer: PersimmonTokenizer | None = None,
    ):
        if (model is None) != (tokenizer is None):
            raise ValueError("give a model together with its tokenizer, or neither for the shipped ones")
        if model is None:
            model, tokenizer = load_mini()
        self._model, self._tokenizer, self._readings = model, tokenizer, 0
        self.reading, self._read_text = read(model, tokenizer, text), text
        stream, position = self.reading.discovery()
        super().__init__(text=text, stream=stream, position=position)
        self.observe(self._read, "text")
        self.on_msg(self._answer)

    def details(self, stream: int, position: int) -> str:
        """The side pane of a cell, in HTML."""
        return cell_html(self.reading.cell(self.after, stream, position), self._model.config.vocab_size)

    def static(self) -> Figure:
        """The present choice as one figure, for pages without a kernel: the cells around the chosen one, and it."""
        reading = self.reading
        pieces = reading.pieces
        first = max(0, min(self.position - COLUMNS // 2, len(pieces) - COLUMNS))
        shown = range(first, min(first + COLUMNS, len(pieces)))
        window = reading.window(self.after, first, COLUMNS)
        best = [[reading.piece(token) for token in row] for row in window.best[..., 0].tolist()]
        cell = reading.cell(self.after, self.stream, self.position)
        return explorer(
            best,
            window.likeliest[..., 0],
            [pieces[position] for position in shown],
            [reading.following(position) for position in shown],
            (self.stream, self.position - first),
            cell,
            f"{cell.place}, after {visible(cell.read)} ({self.position})",
        )

    def __repr__(self) -> str:
        streams, positions = self.reading.shape
        name = stream_names(streams)[self.stream]
        return (
            f"LensExplorer({positions} tokens, {streams - 1} layers, after {self.after}, {name}, token {self.position})"
        )

    def _repr_mimebundle_(self, **options: object) -> tuple[dict, dict]:
        """The widget, and its figure for pages that cannot run it."""
        file = io.BytesIO()
        self.static().savefig(file, format="png", dpi=DOTS_PER_INCH)
        data, metadata = super()._repr_mimebundle_(**options)
        picture = {"image/png": base64.b64encode(file.getvalue()).decode()}
        return data | picture, metadata | {"image/png": {"width": WIDTH}}

    @traitlets.validate("stream", "position")
    def _in_range(self, proposal: dict) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        size = dict(zip(("stream", "position"), self.reading.shape))[name]
        if not 0 <= value < size:
            raise traitlets.TraitError(f"{name} is {value}, but must be from 0 to {size - 1} here")
        return value

    def _read(self, _change: object) -> None:
        """Run the model over a new text; whatever is wrong with it, the person at the widget is to see it."""
        try:
            reading = read(self._model, self._tokenizer, self.text)
        except Exception as error:
            self.error = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            return
        self.reading, self._read_text, self._readings = reading, self.text, self._readings + 1
        self.error = ""
        self.stream, self.position = reading.discovery()
        self._answer(self, {"type": "whole"}, None)

    def _answer(self, _widget: object, question: dict, _buffers: object) -> None:
        """What the page asks for; an error is for whoever looks at it, and ends in an answer all the same."""
        arguments = {name: value for name, value in question.items() if name not in ("type", "key")}
        answers = {"whole": self._whole, "window": self._window, "cell": self._cell}
        try:
            content = answers[question["type"]](**arguments)
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
            content = {"failed": True}
        named = {name: question.get(name) for name in ("type", "key")}
        self.send(named | content | {"reading": self._readings, "text": self._read_text})

    def _whole(self) -> dict:
        return {"tokens": self.reading.pieces, "streams": stream_names(self.reading.shape[0]), "chunk": CHUNK}

    def _window(self, after: str, first: int) -> dict:
        """Cells from `first` on, a row for each state of the stream: [piece, its probability, whether it follows]."""
        window = self.reading.window(after, first)
        cells = [
            [(self.reading.piece(token), share, int(rank == 1)) for token, share, rank in zip(*row)]
            for row in zip(window.best[..., 0].tolist(), window.likeliest[..., 0].tolist(), window.rank.tolist())
        ]
        return {"cells": cells}

    def _cell(self, after: str, stream: int, position: int) -> dict:
        return {"html": cell_html(self.reading.cell(after, stream, position), self._model.config.vocab_size)}
