"""What a room hands on: the functions themselves, under the names that a reader guesses."""

import importlib
import inspect
import subprocess
import sys

import pytest

ROOMS = (
    "evaluation",
    "fitting",
    "generation",
    "numerics",
    "tokenizer",
    "trace",
    "training.skills",
    "viz",
    "viz.html",
    "widgets",
)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_hands_on_what_it_lists(room):
    package = importlib.import_module(f"persimmon_lab.{room}")
    assert len(set(package.__all__)) == len(package.__all__) > 1
    for name in package.__all__:
        public = getattr(package, name)
        assert not inspect.ismodule(public), f"persimmon_lab.{room}.{name} is a module, not what is in it"
        if inspect.isfunction(public) or inspect.isclass(public):
            assert inspect.getdoc(public), f"persimmon_lab.{room}.{name} says nothing of itself"


def test_names_that_are_also_files_are_the_functions():
    code = (
        "import persimmon_lab.trace.capture, persimmon_lab.trace.patch, persimmon_lab.numerics.compare\n"
        "from persimmon_lab.trace import capture, patch\n"
        "from persimmon_lab.numerics import compare, lockstep, noise, parity\n"
        "assert all(map(callable, (capture, patch, compare, lockstep, noise, parity)))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_looking_inside_and_planning_need_no_tables_figures_or_offloading():
    code = (
        "import sys, persimmon_lab.trace, persimmon_lab.fitting\n"
        "heavy = {'pandas', 'matplotlib', 'accelerate', 'ipywidgets', 'transformers'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
