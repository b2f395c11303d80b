"""What the explorers of a text have in common: a model reads the text, and the page asks for what it draws."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import anywidget
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.modes import evaluating
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.widgets.pictures import Bundle, as_png, with_picture
from persimmon_lab.widgets.reading import given_or_shipped, name_of
from persimmon_lab.widgets.stills import LeavesStill

Content = dict[str, Any]  # what the page asks and what it is answered, as JSON has it
Answer = tuple[Content, Sequence[Tensor]]  # a few words and some tensors, which travel as bytes
Proposal = dict[str, Any]  # what traitlets gives a validator: the trait and its new value
Reading = TypeVar("Reading")


def in_range(proposal: Proposal, sizes: dict[str, int]) -> int:
    """The proposed value of a trait that counts from 0, if it is below its size."""
    name: str = proposal["trait"].name
    value: int = proposal["value"]
    if not 0 <= value < sizes[name]:
        raise traitlets.TraitError(f"{name} is {value}, but must be from 0 to {sizes[name] - 1} here")
    return value


class Explorer(LeavesStill, anywidget.AnyWidget, Generic[Reading]):
    """A text box above views of what a model makes of the text.

    A kind of explorer says how a text is read (`_reading_of`), what a new reading begins with (`_begin`), what it
    answers to the page (`_answer_to`), and what the page warns of (`_warning`). It calls `_open` before `__init__`,
    since its traits are checked against the reading.
    """

    text = traitlets.Unicode().tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)
    warning = traitlets.Unicode().tag(sync=True)  # what is amiss with the reading that is shown

    def __init__(self, text: str, **chosen: object) -> None:
        super().__init__(text=text, warning=self._warning(), **chosen)
        self.observe(self._read, "text")
        self.on_msg(self._answer)

    @property
    def reading(self) -> Reading:
        """The numbers of `text`. ValueError where it cannot be read; what the page shows is then still another one."""
        if self._read_text != self.text:
            raise ValueError(self.error or f"{self.text!r} was not read")
        return self._reading

    def static(self) -> Figure:
        """The present choice as one figure, for pages without a kernel. ValueError for a text that cannot be read."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **options: Any) -> tuple[Bundle, Bundle] | None:
        """The widget, and its figure for pages that cannot run it, where there is one."""
        bundle = super()._repr_mimebundle_(**options)
        return bundle if self._read_text != self.text else with_picture(bundle, as_png(self.static()), repr(self))

    def _reading_of(self, text: str) -> Reading:
        raise NotImplementedError

    def _begin(self) -> None:
        raise NotImplementedError

    def _warning(self) -> str:
        return ""

    def _answer_to(self, kind: str, arguments: Content) -> Answer | None:
        raise NotImplementedError

    def _open(
        self,
        text: str,
        model: PersimmonForCausalLM | None,
        tokenizer: PersimmonTokenizer | None,
        name: str | None,
    ) -> None:
        """The first reading. ValueError where the text cannot be read."""
        self.name = name_of(model) if name is None else name
        self._model, self._tokenizer = given_or_shipped(model, tokenizer)
        with evaluating(self._model):
            self._reading = self._reading_of(text)  # the last one that there was
        self._read_text = text  # what it is of
        self._readings = 0  # how many there were before

    def _read(self, _change: object) -> None:
        """Run the model over a new text; whatever is wrong with it, the person at the widget is to see it."""
        try:
            with evaluating(self._model):
                reading = self._reading_of(self.text)
        except Exception as error:
            self.error = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            return
        self._reading = reading
        self._read_text = self.text
        self._readings += 1
        self.error = ""
        self.warning = self._warning()
        self._begin()
        self._answer(self, {"type": "whole"}, None)

    def _answer(self, _widget: object, question: Content, _buffers: object) -> None:
        """What the page asks for; an error is for whoever looks at it, and ends in an answer all the same."""
        if question.get("reading", self._readings) != self._readings:
            return  # it is about an earlier text; the whole of the present one is on its way to the page
        arguments = {name: value for name, value in question.items() if name not in ("type", "reading")}
        answer: Answer | None
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
