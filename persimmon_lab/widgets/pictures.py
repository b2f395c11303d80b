"""Figures as a widget shows them, and as a page without a kernel does: PNG."""

import base64
import io
from typing import Any

from matplotlib.figure import Figure

WIDTH = 900  # of the picture on the page, in pixels
DOTS_PER_INCH = 130

Bundle = dict[str, Any]


def as_png(figure: Figure, dots_per_inch: int = DOTS_PER_INCH) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dots_per_inch)
    return file.getvalue()


def with_picture(
    bundle: Bundle | tuple[Bundle, Bundle] | None, png: bytes | memoryview, alt: str
) -> tuple[Bundle, Bundle]:
    """A widget's own mime bundle and a picture for pages that cannot run it, WIDTH wide, and what it shows in words.

    The bundle is what `_repr_mimebundle_` gives: of ipywidgets the data, of anywidget the data and the metadata, or
    nothing where there is no front end.
    """
    data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
    picture = base64.b64encode(png).decode()
    return data | {"image/png": picture}, metadata | {"image/png": {"width": WIDTH, "alt": alt}}
