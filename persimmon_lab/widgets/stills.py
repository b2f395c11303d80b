"""What a widget leaves in a saved notebook: its picture or its page, for whoever opens it without a kernel.

A page shows one of the kinds that an output has, and JupyterLab prefers the widget, of which without its kernel nothing
is left but "model not found". So what is left is an output of its own, the next one, which base.css hides for as long
as the widget lives in the page. The trap: other pages than JupyterLab's and Voila's, such as VS Code's, show both.
"""

from typing import Any

from IPython.display import display

PICTURE, PAGE = "image/png", "text/html"
_publish: Any = display  # which has no types
BACKGROUND = {"needs_background": "light"}  # which JupyterLab makes a class of, by which base.css knows the picture
STILL = "persimmon-still"  # the class by which base.css knows the page


class LeavesStill:
    """A mixin, before the widget's class: the picture or page that `_repr_mimebundle_` has for pages without a kernel
    becomes the output after the widget."""

    def _ipython_display_(self, **options: Any) -> None:
        bundle: Any = self._repr_mimebundle_(**options)  # type: ignore[attr-defined]  # the widget's
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {"text/plain": repr(self)}, {})
        widget = {kind: content for kind, content in data.items() if kind not in (PICTURE, PAGE)}
        _publish(widget, metadata={kind: metadata[kind] for kind in widget if kind in metadata}, raw=True)
        if PICTURE in data:
            about = {PICTURE: metadata.get(PICTURE, {})} | BACKGROUND
            _publish({PICTURE: data[PICTURE]}, metadata=about, raw=True)
        elif PAGE in data:
            _publish({PAGE: f'<div class="{STILL}">{data[PAGE]}</div>'}, raw=True)
