"""The attention explorer: where each head looks from each token, and which part of its score says so."""

from collections.abc import Mapping

import traitlets
from matplotlib.figure import Figure

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.viz.attention_explorer import explorer
from persimmon_lab.viz.html.links import Link, links_html
from persimmon_lab.viz.signs import counted
from persimmon_lab.widgets.attention.answers import ORDERS, answer, strongest_in_block
from persimmon_lab.widgets.attention.reading import DIRECTIONS, VIEWS, Reading, read
from persimmon_lab.widgets.explorer import Answer, Content, Explorer, Proposal, in_range
from persimmon_lab.widgets.page import joined
from persimmon_lab.widgets.reading import TEXT, title

SCRIPTS = ("canvas", "heads", "text", "matrix", "details", "widget")  # the four views, and before and after them
LISTED = 6  # links in the details
VERBS = {"from": "looks at", "to": "is looked at by"}


class AttentionExplorer(Explorer[Reading]):
    """Every head of a model on one text: hover over a token to see where a head looks from it, click to keep it.

    Takes the shipped model, or a `model` of yours with its `tokenizer`. `layer` and `head` are the head to begin with
    (the one that copies best from an earlier occurrence, if none is given); `marks` names outstanding heads:
    `marks={(6, 3): "induction"}`; `name` is how the still picture calls the model, by default as its folder is called.

    Shift and a click set the other end of a link, and "heads by: this link" sorts the heads by how strongly each looks
    from here to there. `view` is "pattern", "score" or one of the parts that the score is the sum of: "rotated", what
    the channels that turn with the position add, and "passed", the others.

    Each trait may be set from Python too: text, layer, head, token, other, view, direction ("from" or "to"),
    threshold (per cent) and order. `reading` holds the numbers. Of a text that cannot be read `error` says why, the
    page goes on with the one before, in grey, and `reading` and `static()` raise ValueError, as does the constructor.
    """

    _esm = joined("keys.js", "explorer.js", *(f"attention/{script}.js" for script in SCRIPTS))
    _css = joined("base.css", "explorer.css", "attention/widget.css")
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

    def __init__(
        self,
        text: str = TEXT,
        model: PersimmonForCausalLM | None = None,
        tokenizer: PersimmonTokenizer | None = None,
        layer: int | None = None,
        head: int | None = None,
        marks: Mapping[tuple[int, int], str] | None = None,
        name: str | None = None,
    ) -> None:
        self._open(text, model, tokenizer, name)
        self.named = dict(marks or {})
        reading = self._reading
        copying_layer, copying_head = divmod(int(reading.means["induction"].argmax()), reading.shape[1])
        chosen = copying_layer if layer is None else layer, copying_head if head is None else head
        for place in (chosen, *self.named):
            self._check_head(*place)
        token, other = reading.strongest_link(*chosen)
        keys = {f"{layer},{head}": name for (layer, head), name in self.named.items()}
        super().__init__(text=text, layer=chosen[0], head=chosen[1], token=token, other=other, marks=keys)
        self._tell()
        self.observe(self._tell, ["layer", "head", "token", "other", "direction"])

    def static(self) -> Figure:
        """The present choice as one figure, for pages without a kernel: the chosen head's links of the token.

        ValueError for a text that cannot be read.
        """
        reading = self.reading
        labels = reading.labels
        return explorer(
            reading.thumbnails,
            reading.matrix(self.layer, self.head, "pattern"),
            labels,
            (self.layer, self.head),
            self.token,
            self.direction,
            self.threshold / 100,
            self.named,
            title(self.name, f"{self._heading()}: {labels[self.token]} {VERBS[self.direction]}", joint=" · "),
        )

    def __repr__(self) -> str:
        layers, heads, positions = self._reading.shape
        return (
            f"AttentionExplorer({counted(positions, 'token')}, {counted(layers, 'layer')} of {counted(heads, 'head')}, "
            f"layer {self.layer} head {self.head}, token {self.token})"
        )

    def _check_head(self, layer: int, head: int) -> None:
        layers, heads, _ = self._reading.shape
        if not (0 <= layer < layers and 0 <= head < heads):
            raise ValueError(
                f"there is no head {head} in layer {layer}: the model has {counted(layers, 'layer')} of "
                f"{counted(heads, 'head')}"
            )

    @traitlets.validate("layer", "head", "token", "other")
    def _in_range(self, proposal: Proposal) -> int:
        layers, heads, positions = self._reading.shape
        return in_range(proposal, {"layer": layers, "head": heads, "token": positions, "other": positions})

    def _heading(self) -> str:
        name = self.named.get((self.layer, self.head))
        return f"Layer {self.layer}, head {self.head}{f' ({name})' if name else ''}"

    def _reading_of(self, text: str) -> Reading:
        return read(self._model, self._tokenizer, text)

    def _begin(self) -> None:
        self.token, self.other = self._reading.strongest_link(self.layer, self.head)
        self._tell()

    def _warning(self) -> str:
        place = self._reading.not_finite()
        return "" if place is None else (
            f"Scores that are not finite (NaN or infinite) begin in layer {place[0]}, head {place[1]}: what such a "
            "head looks at is unknown, and left blank."
        )  # fmt: skip

    def _tell(self, _change: object = None) -> None:
        """The strongest links of the chosen token, and the one to the other end, in numbers."""
        reading = self._reading
        labels = reading.labels
        rows = {
            view: reading.row(self.layer, self.head, view, self.token, self.direction)
            for view in ("pattern", "rotated", "passed")
        }
        visible = range(self.token + 1) if self.direction == "from" else range(self.token, len(labels))
        listed = sorted(visible, key=lambda position: (-float(rows["pattern"][position]), position))[:LISTED]
        if self.other in visible and self.other not in listed:
            listed.append(self.other)
        links = [Link(labels[end], end, *(float(row[end]) for row in rows.values())) for end in listed]
        chosen = labels[self.token], self.token
        self.details = links_html(links, self._heading(), chosen, VERBS[self.direction], self.other)

    def _answer_to(self, kind: str, arguments: Content) -> Answer | None:
        if kind == "pick":
            ends = strongest_in_block(self._reading, **arguments)
            self.token, self.other = ends if self.direction == "from" else ends[::-1]
            return None
        return answer(self._reading, {"type": kind, **arguments})
