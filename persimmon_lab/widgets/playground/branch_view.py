"""The branches of a text, to be chosen, named, removed, and saved."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anywidget
import traitlets

from persimmon_lab.viz.html.tree import Row
from persimmon_lab.widgets.page import joined
from persimmon_lab.widgets.playground.tree import Branch, Tree

WORDS_BEFORE = 3  # tokens shown of what a branch keeps


class BranchView(anywidget.AnyWidget):
    """A list that Python renders, and what a reader asks of it: `on_ask(what, number, text)`, where `what` is
    "select", "rename", "remove", "json", "python" or "open"."""

    _esm = joined("keys.js", "playground/branch_view.js")
    _css = joined("base.css", "playground/branch_view.css")
    html = traitlets.Unicode().tag(sync=True)

    def __init__(self, on_ask: Callable[[str, int, str], None]) -> None:
        super().__init__()
        self._on_ask = on_ask
        self.on_msg(self._answer)

    def save(self, name: str, text: str) -> None:
        """Let the browser save a file."""
        self.send({"file": name, "text": text})

    def _answer(self, widget: object, content: dict[str, Any], buffers: object) -> None:
        self._on_ask(content["type"], int(content.get("number", 0)), str(content.get("text", "")))


def tree_rows(tree: Tree, selected: Branch) -> list[Row]:
    """A row for each branch, in the order in which a page lists them."""
    return [row(branch, branch is selected) for branch in tree.in_order()]


def row(branch: Branch, selected: bool) -> Row:
    forced = branch.tokens[0] if branch.forced else None
    own = branch.tokens[1:] if branch.forced else branch.tokens
    last_kept = branch.inherited[-WORDS_BEFORE:]
    before = "" if branch.parent is None else "…" + "".join(token.text for token in last_kept)
    return Row(
        branch.number,
        len(branch.lineage) - 1,
        before,
        None if forced is None else forced.text or forced.piece,
        None if forced is None else forced.probability,
        "".join(token.text for token in own),
        f"{replace(branch, seconds=0.0).summary()} · {branch.settings.says()}",
        branch.name,
        selected,
    )
