"""Figures as a widget shows them, and as a page without a kernel does: PNG."""

import base64
import io

from matplotlib.figure import Figure

WIDTH = 900  # of the picture on the page, in pixels
DOTS_PER_INCH = 130


def as_png(figure: Figure, dots_per_inch: int = DOTS_PER_INCH) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dots_per_inch)
    return file.getvalue()


def png_data(png: bytes | memoryview) -> dict[str, str]:
    """A picture as an entry of a mime bundle."""
    return {"image/png": base64.b64encode(png).decode()}


def with_picture(bundle: dict | tuple[dict, dict], png: bytes | memoryview) -> tuple[dict, dict]:
    """A widget's own mime bundle and a picture for pages that cannot run it, WIDTH wide.

    The bundle is what `_repr_mimebundle_` gives: of ipywidgets the data, of anywidget the data and the metadata.
    """
    data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
    return data | png_data(png), metadata | {"image/png": {"width": WIDTH}}
