"""What a widget leaves in a saved notebook: its picture, for whoever opens it without a kernel.

A page shows one of the kinds that an output has, and JupyterLab prefers the widget, of which without its kernel nothing
is left but "model not found". So the picture is an output of its own, the next one, which base.css hides for as long as
the widget lives in the page. The trap: other pages than JupyterLab's and Voila's, such as VS Code's, show both.
"""

from typing import Any

from IPython.display import display

PICTURE = "image/png"
_publish: Any = display  # which has no types
BACKGROUND = {"needs_background": "light"}  # which JupyterLab makes a class of, by which base.css knows the picture


class LeavesStill:
    """A mixin, before the widget's class: the picture that `_repr_mimebundle_` has for pages without a kernel becomes
    the output after the widget."""

    def _ipython_display_(self, **options: Any) -> None:
        bundle: Any = self._repr_mimebundle_(**options)  # type: ignore[attr-defined]  # the widget's
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {"text/plain": repr(self)}, {})
        widget = {kind: content for kind, content in data.items() if kind != PICTURE}
        _publish(widget, metadata={kind: metadata[kind] for kind in widget if kind in metadata}, raw=True)
        if PICTURE in data:
            about = {PICTURE: metadata.get(PICTURE, {})} | BACKGROUND
            _publish({PICTURE: data[PICTURE]}, metadata=about, raw=True)
