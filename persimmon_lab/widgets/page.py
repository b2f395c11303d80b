"""What goes to the browser: the scripts and styles that lie beside the widgets, and pages for where none can run."""

from pathlib import Path

from IPython.display import HTML

HERE = Path(__file__).parent


def joined(*names: str) -> str:
    """These files, by their paths in this folder, one after the other as one script or one style.

    A module that works without a network can import nothing; so what several widgets share stands in front of each.
    """
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in names)


def page(html: str) -> HTML:
    """What a notebook shows as HTML; its text is in `data`."""
    return HTML(html)  # type: ignore[no-untyped-call]  # IPython is annotated in parts
