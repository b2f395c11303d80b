"""Keys that are pressed inside a widget stay there: to the notebook around it, x and d d mean to delete the cell."""

from collections.abc import Sequence
from typing import Any

import anywidget
import ipywidgets

from persimmon_lab.widgets.page import joined

KEEPS_KEYS = "persimmon-widget"  # the class of an element inside which keys stay, as keys.js has it


class Keys(anywidget.AnyWidget):
    """Shows nothing, and brings keys.js to the page."""

    _esm = joined("keys.js", "box.js")


class Column(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Widgets one above the other, inside which keys stay, whoever made those widgets."""

    def __init__(self, children: Sequence[ipywidgets.Widget], **options: Any) -> None:
        super().__init__((*children, Keys(layout={"display": "none"})), **options)
        self.add_class(KEEPS_KEYS)
