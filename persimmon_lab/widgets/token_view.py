"""A pane of text whose tokens can be chosen."""

from collections.abc import Callable, Sequence
from pathlib import Path

import anywidget
import traitlets

from persimmon_lab.viz.tokens import Token, details_html, legend_html, tokens_html

HERE = Path(__file__).parent


class TokenView(anywidget.AnyWidget):
    """Prompt, generated tokens, the details of the chosen one, an error and some code.

    Tokens travel as messages of HTML, each only what is new, since a trait would send the whole text again at every
    step. The other traits go from here to the browser only, so that a thread may set them while messages come in.
    """

    _esm = HERE / "token_view.js"
    _css = HERE / "token_view.css"
    prompt = traitlets.Unicode().tag(sync=True)
    details = traitlets.Unicode().tag(sync=True)
    legend = traitlets.Unicode(legend_html()).tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)
    code = traitlets.Unicode().tag(sync=True)
    stale = traitlets.Bool(False).tag(sync=True)

    def __init__(self, vocab_size: int, on_open: Callable[[], None] = lambda: None):
        super().__init__()
        self.tokens: tuple[Token, ...] = ()
        self._vocab_size = vocab_size
        self._on_open = on_open
        self.on_msg(self._answer)

    def show(self, tokens: Sequence[Token]) -> None:
        """Show these tokens, sending those that are not shown yet; a text that does not go on starts anew."""
        tokens, shown = tuple(tokens), len(self.tokens)
        if tokens[:shown] != self.tokens or not shown:
            self.details, shown = "", 0
        self.tokens = tokens
        self._send_from(shown)

    def _send_from(self, start: int) -> None:
        self.send({"start": start, "html": tokens_html(self.tokens[start:])})

    def _answer(self, widget: object, content: dict, buffers: object) -> None:
        if content["type"] == "whole":
            self._send_from(0)
            self._on_open()
        else:
            index = content["index"]
            chosen = 0 <= index < len(self.tokens)
            self.details = details_html(self.tokens[index], self._vocab_size) if chosen else ""
