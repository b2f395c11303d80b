"""The attention explorer: where each head looks from each token, and which part of its score says so."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import anywidget
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from persimmon_lab.heads import PersimmonForCausalLM
from persimmon_lab.mini import load_mini
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.viz.attention_explorer import explorer
from persimmon_lab.viz.links import Link, links_html
from persimmon_lab.widgets.attention_answers import ORDERS, answer, strongest_in_block
from persimmon_lab.widgets.attention_reading import DIRECTIONS, VIEWS, read

HERE = Path(__file__).parent
PHRASE = "the king gave seven golden rings to Hannah"
TEXT = f"{PHRASE}, {PHRASE}"
LISTED = 6  # links in the details
WIDTH = 900  # of the static picture, in pixels
DOTS_PER_INCH = 130
VERBS = {"from": "looks at", "to": "is looked at by"}


class AttentionExplorer(anywidget.AnyWidget):
    """Every head of a model on one text: hover over a token to see where a head looks from it, click to keep it.

    Takes the shipped model, or a `model` of yours with its `tokenizer`. `layer` and `head` are the head to begin with
    (the one that copies best from an earlier occurrence, if none is given); `marks` names outstanding heads:
    `marks={(6, 3): "induction"}`. Shift and a click set the other end of a link, and "heads by: this link" sorts the
    heads by how strongly each looks from here to there. `view` is "pattern", "score" or one of the parts that the
    score is the sum of: "rotated", what the channels that turn with the position add, and "passed", the others.

    Each trait may be set from Python too: text, layer, head, token, other, view, direction ("from" or "to"),
    threshold (per cent) and order. `reading` holds the numbers. A text that cannot be read leaves them as they are and
    its reason in `error`; in the constructor it raises ValueError.
    """

    _esm = HERE / "attention.js"
    _css = HERE / "attention.css"
    text = traitlets.Unicode().tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    head = traitlets.Int(0).tag(sync=True)
    token = traitlets.Int(0).tag(sync=True)
    other = traitlets.Int(0).tag(sync=True)
    view = traitlets.Enum(VIEWS, "pattern").tag(sync=True)
    direction = traitlets.Enum(DIRECTIONS, "from").tag(sync=True)
    threshold = traitlets.Int(5, min=0, max=100).tag(sync=True)
    order = traitlets.Enum(tuple(ORDERS), "layer").tag(sync=True)
    orders = traitlets.Tuple(default_value=tuple(ORDERS)).tag(sync=True)
    marks = traitlets.Dict().tag(sync=True)
    details = traitlets.Unicode().tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        text: str = TEXT,
        model: PersimmonForCausalLM | None = None,
        tokenizer: PersimmonTokenizer | None = None,
        layer: int | None = None,
        head: int | None = None,
        marks: Mapping[tuple[int, int], str] | None = None,
    ):
        if (model is None) != (tokenizer is None):
            raise ValueError("give a model together with its tokenizer, or neither for the shipped ones")
        if model is None:
            model, tokenizer = load_mini()
        self._model, self._tokenizer, self._readings = model, tokenizer, 0
        self.reading, self._read_text = read(model, tokenizer, text), text
        self.named = dict(marks or {})
        best = divmod(int(self.reading.means["induction"].argmax()), self.reading.shape[1])
        chosen = best[0] if layer is None else layer, best[1] if head is None else head
        for place in (chosen, *self.named):
            self._check_head(*place)
        token, other = self.reading.strongest_link(*chosen)
        keys = {f"{layer},{head}": name for (layer, head), name in self.named.items()}
        super().__init__(text=text, layer=chosen[0], head=chosen[1], token=token, other=other, marks=keys)
        self._tell()
        self.observe(self._read, "text")
        self.observe(self._tell, ["layer", "head", "token", "other", "direction"])
        self.on_msg(self._answer)

    def static(self) -> Figure:
        """The present choice as one figure, for pages without a kernel: the chosen head's links of the token."""
        labels = self.reading.labels
        return explorer(
            self.reading.thumbnails,
            self.reading.matrix(self.layer, self.head, "pattern"),
            labels,
            (self.layer, self.head),
            self.token,
            self.direction,
            self.threshold / 100,
            self.named,
            f"{self._heading()}: {labels[self.token]} {VERBS[self.direction]}",
        )

    def __repr__(self) -> str:
        layers, heads, positions = self.reading.shape
        return (
            f"AttentionExplorer({positions} tokens, {layers} layers of {heads} heads, layer {self.layer} head "
            f"{self.head}, token {self.token})"
        )

    def _repr_mimebundle_(self, **options: object) -> tuple[dict, dict]:
        """The widget, and its figure for pages that cannot run it."""
        file = io.BytesIO()
        self.static().savefig(file, format="png", dpi=DOTS_PER_INCH)
        data, metadata = super()._repr_mimebundle_(**options)
        picture = {"image/png": base64.b64encode(file.getvalue()).decode()}
        return data | picture, metadata | {"image/png": {"width": WIDTH}}

    def _check_head(self, layer: int, head: int) -> None:
        layers, heads, _ = self.reading.shape
        if not (0 <= layer < layers and 0 <= head < heads):
            raise ValueError(
                f"there is no head {head} in layer {layer}: the model has {layers} layers of {heads} heads"
            )

    @traitlets.validate("layer", "head", "token", "other")
    def _in_range(self, proposal: dict) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        size = dict(zip(("layer", "head"), self.reading.shape)).get(name, self.reading.shape[2])
        if not 0 <= value < size:
            raise traitlets.TraitError(f"{name} is {value}, but must be from 0 to {size - 1} here")
        return value

    def _heading(self) -> str:
        name = self.named.get((self.layer, self.head))
        return f"Layer {self.layer}, head {self.head}{f' ({name})' if name else ''}"

    def _read(self, _change: object) -> None:
        """Run the model over a new text; whatever is wrong with it, the person at the widget is to see it."""
        try:
            reading = read(self._model, self._tokenizer, self.text)
        except Exception as error:
            self.error = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            return
        self.reading, self._read_text, self._readings = reading, self.text, self._readings + 1
        self.error = ""
        self.token, self.other = reading.strongest_link(self.layer, self.head)
        self._tell()
        self._answer(self, {"type": "whole"}, None)

    def _tell(self, _change: object = None) -> None:
        """The strongest links of the chosen token, and the one to the other end, in numbers."""
        reading, labels = self.reading, self.reading.labels
        rows = {
            view: reading.row(self.layer, self.head, view, self.token, self.direction)
            for view in ("pattern", "rotated", "passed")
        }
        visible = range(self.token + 1) if self.direction == "from" else range(self.token, len(labels))
        best = sorted(visible, key=lambda position: (-float(rows["pattern"][position]), position))[:LISTED]
        if self.other in visible and self.other not in best:
            best.append(self.other)
        links = [Link(labels[there], there, *(float(row[there]) for row in rows.values())) for there in best]
        chosen = labels[self.token], self.token
        self.details = links_html(links, self._heading(), chosen, VERBS[self.direction], self.other)

    def _answer(self, _widget: object, question: dict, _buffers: object) -> None:
        """What the page asks for; an error is for whoever looks at it, and ends in an answer all the same."""
        try:
            if question["type"] == "pick":
                arguments = {name: value for name, value in question.items() if name != "type"}
                ends = strongest_in_block(self.reading, **arguments)
                self.token, self.other = ends if self.direction == "from" else ends[::-1]
                return
            content, tensors = answer(self.reading, question)
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
            content, tensors = {"type": "failed", "of": question.get("type")}, []
        self._reply(content, tensors)

    def _reply(self, content: dict, tensors: Sequence[Tensor]) -> None:
        now = {"reading": self._readings, "text": self._read_text}
        self.send(content | now, [tensor.contiguous().numpy().tobytes() for tensor in tensors])
