"""What panels have in common: controls above a picture and words, drawn anew at every choice."""

import html
from collections.abc import Sequence
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from persimmon_lab.widgets.keys import Column
from persimmon_lab.widgets.pictures import DOTS_PER_INCH, WIDTH, Bundle, as_png, with_picture

CONTROLS = {"grid_template_columns": "1fr 1fr", "max_width": f"{WIDTH}px", "grid_gap": "2px 24px"}


class Panel(Column):
    """Controls in two columns, below them a picture of what they say, and below that a few words.

    A kind of panel says what is drawn (`_figure`) and told (`_words`). A choice for which either raises ValueError
    leaves the picture, and the reason is told instead.
    """

    dots_per_inch = DOTS_PER_INCH

    def __init__(self, controls: Sequence[ipywidgets.DOMWidget]) -> None:
        self.picture = ipywidgets.Image(format="png", layout={"max_width": f"{WIDTH}px"})
        self.told = ipywidgets.HTML()
        for control in controls:
            control.observe(self.draw, "value")
            control.layout.width = "auto"
        super().__init__((ipywidgets.GridBox(controls, layout=CONTROLS), self.picture, self.told))
        self.draw()

    def static(self) -> Figure:
        """The present choice as one figure, for pages without a kernel. ValueError where it cannot be drawn."""
        return self._figure()

    def draw(self, _change: object = None) -> None:
        """Show the present choice, or why it cannot be drawn."""
        try:
            picture, words = as_png(self._figure(), self.dots_per_inch), self._words()
        except ValueError as error:
            self.told.value = f"<b>This cannot be drawn</b>: {html.escape(str(error))}"
            return
        self.picture.value = picture
        self.keeper.alt = " ".join((f"{self!r}.", *words))
        self.told.value = "<br>".join(map(html.escape, words))

    def _figure(self) -> Figure:
        raise NotImplementedError

    def _words(self) -> Sequence[str]:
        return ()

    def _repr_mimebundle_(self, **options: Any) -> tuple[Bundle, Bundle]:
        """The widget, and its figure for pages that cannot run it: the last one that could be drawn."""
        try:
            picture = as_png(self.static(), self.dots_per_inch)
        except ValueError:
            picture = self.picture.value
        bundle: Bundle = super()._repr_mimebundle_(**options)
        return with_picture(bundle, picture, self.keeper.alt) if picture else (bundle, {})
