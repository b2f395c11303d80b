"""How pytest runs the notebooks: nbval sends each cell to a kernel and compares what it says with what is stored."""

import os

import nbval.plugin

# Warnings and progress bars go to stderr; the newer outputs of ipywidgets and anywidget carry random ids.
NOT_COMPARED = ("stderr", "image/svg+xml")


def pytest_collectstart(collector):
    if isinstance(collector, nbval.plugin.IPyNbFile):
        collector.skip_compare += NOT_COMPARED
        os.environ.pop("MPLBACKEND", None)  # the tests' Agg would silence the inline figures
