"""The token inspector: a text as it is typed, cut into pieces, and for each piece how else it could have been cut."""

import math
from typing import Any, Literal

import anywidget
import traitlets
from IPython.display import HTML

from persimmon_lab.mini import MINI
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.tokenizer.lattice import Arc, Lattice
from persimmon_lab.tokenizer.segmentation import split_at
from persimmon_lab.tokenizer.tokenizer_json import SPACE
from persimmon_lab.tokenizer.unigram import Unigram
from persimmon_lab.viz.html.pieces import Cut, Piece, Stretch, counts_html, details_html, page_html, piece_html
from persimmon_lab.widgets.page import joined, page
from persimmon_lab.widgets.pictures import Bundle
from persimmon_lab.widgets.stills import LeavesStill

ALTERNATIVES = 6  # cuts that are shown of a stretch
WINDOW = 24  # characters before and after a piece that its stretch may have; longer, such as a row of `_`, is not read
TEXT = "the king gave seven golden rings to Hannah"
WHOLE = {"type": "whole"}


class Part:
    """A text, or one between special tokens, as its lattice and the best path through that."""

    def __init__(self, text: str, unigram: Unigram, first_token: int) -> None:
        self.lattice: Lattice = unigram.lattice(text)
        self.path: tuple[Arc, ...] = self.lattice.best().arcs
        self.token_of = [first_token]  # of each arc of the path, and of what comes after: the number of its first token
        for arc in self.path:
            self.token_of.append(self.token_of[-1] + len(arc.ids))
        self.seams = seams(self.lattice)

    @property
    def share(self) -> float:
        """Of the best path, in the probability of all."""
        return math.exp(math.fsum(arc.score for arc in self.path) - self.lattice.log_total)

    def stretch_around(self, step: int) -> tuple[Stretch, tuple[int, int]]:
        """The word around an arc of the path, and which tokens that are, first and after the last."""
        chosen = self.path[step]
        first = last = step
        while self.path[first].start not in self.seams and chosen.start - self.path[first - 1].start <= WINDOW:
            first -= 1
        while self.path[last].end not in self.seams and self.path[last + 1].end - chosen.end <= WINDOW:
            last += 1
        start = self.path[first].start
        part = self.lattice.part(start, self.path[last].end)
        cuts = [
            Cut(tuple(cut.pieces), cut.score, math.exp(cut.score - part.log_total)) for cut in part.n_best(ALTERNATIVES)
        ]
        place = (chosen.start - start, chosen.end - start)
        shares = zip(part.arcs, part.probabilities())
        [used] = [share for arc, share in shares if (arc.start, arc.end) == place]
        stretch = Stretch(part.text, part.count(), used, tuple(cuts))
        return stretch, (self.token_of[first], self.token_of[last + 1])


def seams(lattice: Lattice) -> set[int]:
    """The joints that are not within a word or between it and its space: what lies between two of them is cut for
    itself, and is something to read."""
    text = lattice.text

    def within_word(joint: int) -> bool:
        before, after = text[joint - 1 : joint], text[joint : joint + 1]
        return after.isalnum() and (before.isalnum() or before == SPACE)

    return {joint for joint in lattice.joints() if joint == 0 or not within_word(joint)}


Place = tuple[Part, int, int]  # of a token: its part, the step of the part's path, and which byte of that


class Reading:
    """A text as a tokenizer reads it: a `Piece` for each token. ValueError for half a surrogate pair."""

    def __init__(self, text: str, tokenizer: PersimmonTokenizer, unigram: Unigram, parse_special: bool = False) -> None:
        self.text = text
        special = tokenizer.special_tokens
        coded = tokenizer(text, parse_special=parse_special, return_offsets_mapping=True)
        before = [tokenizer.bos_token_id] if tokenizer.add_bos_token else []
        self.places: list[Place | None] = [None] * len(before)
        self.parts: list[Part] = []
        for stretch in split_at(special, text) if parse_special else [text]:
            if parse_special and stretch in special:
                self.places.append(None)
                continue
            part = Part(stretch, unigram, len(self.places))
            self.parts.append(part)
            self.places += [(part, step, byte) for step, arc in enumerate(part.path) for byte in range(len(arc.ids))]
        self.places += [None] * (len(coded.input_ids) - len(self.places))  # eos, where the tokenizer adds it
        self.pieces = [
            self._piece(tokenizer, *token) for token in zip(coded.input_ids, coded.offset_mapping, self.places)
        ]

    def _piece(
        self, tokenizer: PersimmonTokenizer, token_id: int, offsets: tuple[int, int], place: Place | None
    ) -> Piece:
        name = tokenizer.convert_ids_to_tokens(token_id)
        data = tokenizer.id_to_bytes(token_id)
        if place is None:
            return Piece(token_id, name, data, *offsets, kind="special")
        part, step, byte = place
        arc = part.path[step]
        kind: Literal["byte", "piece"] = "byte" if tokenizer.sp_model.is_byte(token_id) else "piece"
        return Piece(token_id, name, data, *offsets, kind, arc.score, arc.text, byte, len(arc.ids))

    def stretch(self, index: int) -> tuple[Stretch | None, tuple[int, int]]:
        """What is cut together with a token, and the numbers of its tokens; a special token stands alone."""
        place = self.places[index]
        return (None, (index, index + 1)) if place is None else place[0].stretch_around(place[1])

    def counts(self) -> str:
        ways = math.prod(part.lattice.count() for part in self.parts)
        return counts_html(self.text, self.pieces, ways, math.prod(part.share for part in self.parts))

    def least_certain(self) -> int | None:
        """The token whose piece the fewest of all cuts use where it stands, by their probability."""
        shares: dict[int, float] = {}
        for part in self.parts:
            used = dict(zip(part.lattice.arcs, part.lattice.probabilities()))
            shares |= {token: round(used[arc], 6) for token, arc in zip(part.token_of, part.path)}
        return min(shares, key=shares.__getitem__, default=0 if self.pieces else None)


def render(text: str, tokenizer: PersimmonTokenizer, parse_special: bool = False, inspect: int | None = None) -> HTML:
    """What the inspector shows, where nothing can be clicked: the details are those of the token at `inspect`, else of
    the least certain one. ValueError for half a surrogate pair, or a model that is not Unigram."""
    reading = Reading(text, tokenizer, Unigram.of(tokenizer), parse_special)
    return _page_of(reading, reading.least_certain() if inspect is None else inspect)


def _page_of(reading: Reading, inspect: int | None) -> HTML:
    stretch = None if inspect is None else reading.stretch(inspect)[0]
    return page(page_html(reading.pieces, reading.counts(), inspect, stretch))


class TokenInspector(LeavesStill, anywidget.AnyWidget):
    """Type a text and see it cut; choose a piece, with the mouse or the arrow keys, to see all that there is to it.

    `tokenizer` is persimmon-mini's unless one is given. With `parse_special` special tokens in the text are read as
    such; without it, as for everything that a user types, they are spelt out. `chosen` is the number of the chosen
    token, -1 for the least certain one; `shown` the one whose details are shown.

    Pieces travel as messages of HTML, each only what has changed, so that typing into a long text stays quick.
    ValueError for a tokenizer whose model is not Unigram.
    """

    _esm = joined("keys.js", "tokens/widget.js")
    _css = joined("base.css", "tokens/widget.css")
    text = traitlets.Unicode().tag(sync=True)
    parse_special = traitlets.Bool(False).tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)
    looked_at = traitlets.Int(-1).tag(sync=True)  # what the mouse is on, which goes before what is chosen
    shown = traitlets.Int(-1).tag(sync=True)
    together = traitlets.List(traitlets.Int(), [0, 0]).tag(sync=True)  # the tokens that are cut together with it
    details = traitlets.Unicode().tag(sync=True)
    counts = traitlets.Unicode().tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)

    def __init__(
        self, text: str = TEXT, tokenizer: PersimmonTokenizer | None = None, parse_special: bool = False
    ) -> None:
        self.tokenizer = PersimmonTokenizer.from_pretrained(MINI) if tokenizer is None else tokenizer
        self._unigram = Unigram.of(self.tokenizer)
        self._spans: list[str] = []
        self._version = 0
        self.reading = Reading("", self.tokenizer, self._unigram)
        super().__init__(text=text, parse_special=parse_special)
        self.on_msg(self._answer)
        self.observe(self._read, ["text", "parse_special"])
        self.observe(self._explain, ["chosen", "looked_at"])
        self._read()

    @property
    def pieces(self) -> list[Piece]:
        """The tokens of the text; none while there is an error."""
        return self.reading.pieces

    def static(self) -> HTML:
        """The text and the piece that is shown now, as a page. Raises what reading the text raises."""
        reading = Reading(self.text, self.tokenizer, self._unigram, self.parse_special)
        return _page_of(reading, self.shown if 0 <= self.shown < len(reading.pieces) else None)

    def __repr__(self) -> str:
        return f"TokenInspector({self.text if len(self.text) <= 60 else self.text[:59] + '…'!r})"

    def _repr_mimebundle_(self, **options: Any) -> tuple[Bundle, Bundle] | None:
        """The widget, and its page for where it cannot run."""
        bundle = super()._repr_mimebundle_(**options)
        if bundle is None or self.error:
            return bundle
        data, metadata = bundle
        return {**data, "text/html": self.static().data}, metadata

    def _read(self, _change: object = None) -> None:
        """Read the text anew, and send the pieces that are others now."""
        try:
            self.reading = Reading(self.text, self.tokenizer, self._unigram, self.parse_special)
            self.error, self.counts = "", self.reading.counts()
        except Exception as error:  # whatever it is, the person who types is to see it
            self.reading = Reading("", self.tokenizer, self._unigram)
            self.error, self.counts = f"{type(error).__name__}: {error}", ""
        before, self._spans = self._spans, [piece_html(piece) for piece in self.reading.pieces]
        start = same_start(before, self._spans)
        end = same_start(before[start:][::-1], self._spans[start:][::-1])
        self._version += 1
        self._replace(self._version - 1, start, len(before) - end, self._spans[start : len(self._spans) - end])
        self.chosen = self.looked_at = -1
        self._explain()

    def _replace(self, base: int, start: int, end: int, spans: list[str]) -> None:
        """Replace the pieces from `start` to `end` of version `base` (-1: of any, all of them)."""
        self.send({"base": base, "version": self._version, "start": start, "end": end, "spans": spans})

    def _explain(self, _change: object = None) -> None:
        wanted = [index for index in (self.looked_at, self.chosen) if 0 <= index < len(self.pieces)]
        index = wanted[0] if wanted else self.reading.least_certain()
        if index is None:
            self.details, self.together, self.shown = "", [0, 0], -1
            return
        stretch, together = self.reading.stretch(index)
        self.details, self.together, self.shown = details_html(self.pieces[index], stretch), list(together), index

    def _answer(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        if content == WHOLE:
            self._replace(-1, 0, -1, self._spans)


def same_start(one: list[str], other: list[str]) -> int:
    """How many of the first are the same in both."""
    differing = (index for index, (mine, theirs) in enumerate(zip(one, other)) if mine != theirs)
    return next(differing, min(len(one), len(other)))
