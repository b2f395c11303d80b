"""What every test may rely on.

Annotations are checked: jaxtyping and beartype wrap every function of persimmon_lab that is imported after this file,
so a tensor of the wrong shape or dtype fails the test that passed it on. `report_table` is told of in tests/tables.py.
Tests marked `gpu` are skipped where there is no CUDA device.
"""

import jaxtyping
import pytest
import torch

from tests.annotations import checked
from tests.tables import pytest_terminal_summary, report_table

__all__ = ["pytest_terminal_summary", "report_table"]

jaxtyping.install_import_hook("persimmon_lab", f"{checked.__module__}.{checked.__name__}")
torch.set_num_threads(1)  # the models here are tiny: more threads would only wait for each other


@pytest.fixture
def unchecked_annotations():
    """For tests that call torch.compile, which cannot trace the checks."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
