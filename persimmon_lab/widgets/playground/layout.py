"""Where the parts of the playground stand."""

from collections.abc import Mapping

import ipywidgets

from persimmon_lab.widgets.playground.controls import NUMBERS

ROW = {"flex_flow": "row wrap", "align_items": "center", "margin": "0 2px"}
GRID = {"grid_template_columns": "repeat(auto-fit, minmax(250px, 1fr))", "grid_gap": "0 16px"}


class Parts:
    """The buttons and the small signs of the playground."""

    def __init__(self, as_you_type: bool) -> None:
        self.as_you_type = ipywidgets.Checkbox(
            as_you_type, description="generate as you type", indent=False, layout={"width": "auto"}
        )
        self.generate = ipywidgets.Button(description="Generate", icon="play", button_style="primary")
        self.stop = ipywidgets.Button(description="Stop", icon="stop", disabled=True)
        self.compare = ipywidgets.Button(
            description="Compare",
            icon="columns",
            tooltip="A: the text shown. B: the same prompt and seed with what the controls say now, or else greedy",
        )
        self.status = ipywidgets.Label()
        self.meter = ipywidgets.HTML(layout={"margin": "0 0 0 auto"})
        self.comparison = ipywidgets.HTML(layout={"display": "none"})


def arranged(
    controls: Mapping[str, ipywidgets.DOMWidget],
    parts: Parts,
    view: ipywidgets.DOMWidget,
    branches: ipywidgets.DOMWidget,
) -> list[ipywidgets.DOMWidget]:
    """From top to bottom."""
    buttons = [parts.generate, parts.stop, parts.compare, parts.status]
    return [
        controls["prompt"],
        ipywidgets.Box([controls["chat"], parts.as_you_type, parts.meter], layout={**ROW, "grid_gap": "24px"}),
        ipywidgets.GridBox([controls[name] for name in NUMBERS], layout=GRID),
        ipywidgets.Box(buttons, layout={**ROW, "grid_gap": "8px"}),
        parts.comparison,
        view,
        branches,
    ]
