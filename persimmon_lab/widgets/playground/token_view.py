"""A pane of text whose tokens can be chosen, and whose alternatives can be taken."""

import html
from collections.abc import Callable, Sequence
from typing import Any

import anywidget
import traitlets

from persimmon_lab.viz.html.tokens import Token, legend_html, tokens_html
from persimmon_lab.widgets.page import joined


class TokenView(anywidget.AnyWidget):
    """Prompt, generated tokens, the details of the chosen one, an error and some code.

    Tokens travel as messages of HTML, each only what is new, since a trait would send the whole text again at every
    step. The other traits go from here to the browser only, so that a thread may set them while messages come in.

    `on_choose` is called when `chosen` has changed, the index of a token or -1; `on_take` with the id of an alternative
    that a reader takes; `on_scale` when `log` has changed.
    """

    _esm = joined("keys.js", "playground/token_view.js")
    _css = joined("base.css", "playground/token_view.css")
    prompt = traitlets.Unicode().tag(sync=True)
    details = traitlets.Unicode().tag(sync=True)
    legend = traitlets.Unicode(legend_html()).tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)
    code = traitlets.Unicode().tag(sync=True)
    stale = traitlets.Bool(False).tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)
    forks = traitlets.List(traitlets.Int()).tag(sync=True)
    forced = traitlets.List(traitlets.Int()).tag(sync=True)
    log = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        on_open: Callable[[], None] = lambda: None,
        on_choose: Callable[[], None] = lambda: None,
        on_take: Callable[[int], None] = lambda token_id: None,
        on_scale: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self.tokens: tuple[Token, ...] = ()
        self._about = ""
        self._on_open, self._on_choose, self._on_take, self._on_scale = on_open, on_choose, on_take, on_scale
        self.on_msg(self._answer)

    def show(self, tokens: Sequence[Token]) -> None:
        """Show these tokens, sending those that are not shown yet; a choice that is not among them ends."""
        tokens = tuple(tokens)
        shared = 0
        while shared < min(len(tokens), len(self.tokens)) and tokens[shared] == self.tokens[shared]:
            shared += 1
        self.tokens = tokens
        if self.chosen >= len(tokens):
            self.chosen = -1
            self.describe("")
        self._send_from(shared)

    def describe(self, details: str, about: str = "") -> None:
        """Show some details. `about` says of what: a click that was meant for other details, since they changed while
        it was on its way, then takes nothing."""
        self._about = about
        self.details = details and f'<div data-about="{html.escape(about)}">{details}</div>'

    def _send_from(self, start: int) -> None:
        self.send({"start": start, "html": tokens_html(self.tokens[start:])})

    def _answer(self, widget: object, content: dict[str, Any], buffers: object) -> None:
        if content["type"] == "whole":
            self._send_from(0)
            self._on_open()
        elif content["type"] == "choose":
            index = content["index"]
            self.chosen = index if 0 <= index < len(self.tokens) else -1
            self._on_choose()
        elif content["type"] == "scale":
            self.log = not self.log
            self._on_scale()
        elif self.chosen >= 0 and content["about"] == self._about:
            self._on_take(content["token"])
