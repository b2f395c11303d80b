"""Keys that are pressed inside a widget stay there: to the notebook around it, x and d d mean to delete the cell."""

from collections.abc import Sequence
from typing import Any

import anywidget
import ipywidgets
import traitlets

from persimmon_lab.widgets.page import joined
from persimmon_lab.widgets.stills import LeavesStill

KEEPS_KEYS = "persimmon-widget"  # the class of an element inside which keys stay, as keys.js has it


class Keys(anywidget.AnyWidget):
    """Shows nothing, and brings keys.js to the page. `alt` is what the pictures around it show, in words."""

    _esm = joined("keys.js", "box.js")
    _css = joined("base.css")
    alt = traitlets.Unicode().tag(sync=True)


class Column(LeavesStill, ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Widgets one above the other, inside which keys stay, whoever made those widgets."""

    def __init__(self, children: Sequence[ipywidgets.Widget], **options: Any) -> None:
        self.keeper = Keys(layout={"display": "none"})
        super().__init__((*children, self.keeper), **options)
        self.add_class(KEEPS_KEYS)
