"""What the explorers of a text have in common: a model reads the text, and the page asks for what it draws."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.widgets.pictures import as_png, with_picture
from persimmon_lab.widgets.reading import given_or_shipped

HERE = Path(__file__).parent


def page_files(name: str) -> tuple[str, str]:
    """Script and style of an explorer, by their path in this folder: those of all explorers, then its own.

    One text each, as a module that works without a network can import nothing.
    """
    script, style = (
        "".join((HERE / f"{stem}.{kind}").read_text(encoding="utf-8") for stem in ("explorer", name))
        for kind in ("js", "css")
    )
    return script, style


def in_range(proposal: dict, sizes: dict[str, int]) -> int:
    """The proposed value of a trait that counts from 0, if it is below its size."""
    name, value = proposal["trait"].name, proposal["value"]
    if not 0 <= value < sizes[name]:
        raise traitlets.TraitError(f"{name} is {value}, but must be from 0 to {sizes[name] - 1} here")
    return value


class Explorer(anywidget.AnyWidget):
    """A text box above views of what a model makes of the text.

    A kind of explorer says how a text is read (`_reading_of`), what a new reading begins with (`_begin`) and what it
    answers to the page (`_answer_to`). It calls `_open` before `__init__`, since its traits are checked against the
    reading.
    """

    text = traitlets.Unicode().tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)

    def __init__(self, text: str, **chosen: object) -> None:
        super().__init__(text=text, **chosen)
        self.observe(self._read, "text")
        self.on_msg(self._answer)

    def static(self) -> Figure:
        """The present choice as one figure, for pages without a kernel."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **options: object) -> tuple[dict, dict]:
        """The widget, and its figure for pages that cannot run it."""
        return with_picture(super()._repr_mimebundle_(**options), as_png(self.static()))

    def _reading_of(self, text: str) -> Any:
        raise NotImplementedError

    def _begin(self) -> None:
        raise NotImplementedError

    def _answer_to(self, kind: str, arguments: dict) -> tuple[dict, Sequence[Tensor]] | None:
        raise NotImplementedError

    def _open(self, text: str, model: PersimmonForCausalLM | None, tokenizer: PersimmonTokenizer | None) -> None:
        """The first reading. ValueError where the text cannot be read."""
        self._model, self._tokenizer = given_or_shipped(model, tokenizer)
        self.reading, self._read_text, self._readings = self._reading_of(text), text, 0

    def _read(self, _change: object) -> None:
        """Run the model over a new text; whatever is wrong with it, the person at the widget is to see it."""
        try:
            reading = self._reading_of(self.text)
        except Exception as error:
            self.error = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            return
        self.reading, self._read_text, self._readings = reading, self.text, self._readings + 1
        self.error = ""
        self._begin()
        self._answer(self, {"type": "whole"}, None)

    def _answer(self, _widget: object, question: dict, _buffers: object) -> None:
        """What the page asks for; an error is for whoever looks at it, and ends in an answer all the same."""
        if question.get("reading", self._readings) != self._readings:
            return  # it is about an earlier text; the whole of the present one is on its way to the page
        arguments = {name: value for name, value in question.items() if name not in ("type", "reading")}
        try:
            answer = self._answer_to(question["type"], arguments)
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
            answer = {"failed": True}, []
        if answer is None:
            return
        content, tensors = answer
        named = {name: question.get(name) for name in ("type", "key")}
        now = {"reading": self._readings, "text": self._read_text}
        self.send(named | content | now, [tensor.contiguous().numpy().tobytes() for tensor in tensors])
