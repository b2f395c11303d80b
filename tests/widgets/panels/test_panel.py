"""What all panels share: each choice is drawn and told, or the reason why it cannot be."""

import base64

import ipywidgets
import pytest
from matplotlib.figure import Figure

from persimmon_lab import PersimmonConfig
from persimmon_lab.widgets.panels.memory import MemoryCalculator
from persimmon_lab.widgets.panels.panel import Panel
from persimmon_lab.widgets.pictures import as_png


class Root(Panel):
    """Draws a square root and says it."""

    def __init__(self, start: int) -> None:
        self.number = ipywidgets.IntSlider(start, -9, 9)
        super().__init__((self.number,))

    def _figure(self):
        if self.number.value < 0:
            raise ValueError(f"{self.number.value} has no root & no picture")
        figure = Figure(figsize=(2, 2))
        figure.subplots().plot([0, self.number.value**0.5])
        return figure

    def _words(self):
        return f"root of {self.number.value}", "<b>"


def test_a_choice_is_drawn_and_told_as_text():
    panel = Root(4)
    before = bytes(panel.picture.value)
    assert panel.told.value == "root of 4<br>&lt;b&gt;"
    panel.number.value = 9
    assert bytes(panel.picture.value) == as_png(panel.static()) != before
    assert panel.told.value == "root of 9<br>&lt;b&gt;"


def test_what_cannot_be_drawn_is_told_and_leaves_the_picture():
    panel = Root(4)
    before = bytes(panel.picture.value)
    panel.number.value = -1
    assert bytes(panel.picture.value) == before
    assert panel.told.value == "<b>This cannot be drawn</b>: -1 has no root &amp; no picture"
    with pytest.raises(ValueError, match="no root"):
        panel.static()
    data, metadata = panel._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]) == before
    assert metadata["image/png"]["width"] == 900
    assert Root(-3).told.value.startswith("<b>This cannot be drawn")


def test_the_memory_calculator_is_one():
    calculator = MemoryCalculator(PersimmonConfig.persimmon_8b())
    data, _ = calculator._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]) == bytes(calculator.picture.value)
    assert "application/vnd.jupyter.widget-view+json" in data
