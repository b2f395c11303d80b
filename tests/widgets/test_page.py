"""What goes to the browser: every script and style beside the widgets, whole, and keys that stay inside."""

import shutil
import subprocess
from pathlib import Path

import ipywidgets
import pytest

import persimmon_lab.widgets
from persimmon_lab.widgets.attention.widget import AttentionExplorer
from persimmon_lab.widgets.keys import KEEPS_KEYS, Column, Keys
from persimmon_lab.widgets.lens.widget import LensExplorer
from persimmon_lab.widgets.page import joined
from persimmon_lab.widgets.playground.branch_view import BranchView
from persimmon_lab.widgets.playground.token_view import TokenView
from persimmon_lab.widgets.tokens.widget import TokenInspector

HERE = Path(persimmon_lab.widgets.__file__).parent
SCRIPTS = sorted(HERE.rglob("*.js"))
WIDGETS = [AttentionExplorer, LensExplorer, BranchView, Keys, TokenInspector, TokenView]


def test_files_are_joined_in_their_order():
    script = joined("keys.js", "box.js")
    parts = [(HERE / name).read_text() for name in ("keys.js", "box.js")]
    assert script.startswith(parts[0]) and script.endswith(parts[1])
    assert joined("tokens/widget.css") == (HERE / "tokens" / "widget.css").read_text()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(HERE).as_posix())
def test_every_script_is_somebody_s(path):
    assert any(path.read_text() in str(widget._esm) for widget in WIDGETS)


@pytest.mark.parametrize("path", sorted(HERE.rglob("*.css")), ids=lambda path: path.relative_to(HERE).as_posix())
def test_every_style_is_somebody_s(path):
    assert any(path.read_text() in str(getattr(widget, "_css", "")) for widget in WIDGETS)


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
@pytest.mark.parametrize(
    "script", [*SCRIPTS, *WIDGETS], ids=lambda one: getattr(one, "__name__", getattr(one, "name", ""))
)
def test_scripts_are_javascript_alone_and_joined(script):
    source = script.read_text() if isinstance(script, Path) else str(script._esm)
    command = ["node", "--input-type=module", "--check", "-"]
    result = subprocess.run(command, input=source, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("widget", WIDGETS, ids=lambda widget: widget.__name__)
def test_every_widget_brings_what_keeps_keys_inside_it(widget):
    assert str(widget._esm).startswith((HERE / "keys.js").read_text())


def test_a_column_of_others_widgets_brings_it_too():
    button = ipywidgets.Button()
    column = Column([button], layout={"max_width": "76em"})
    assert KEEPS_KEYS in column._dom_classes
    first, last = column.children
    assert first is button and isinstance(last, Keys) and last.layout.display == "none"
    assert f'const KEEPS_KEYS = "{KEEPS_KEYS}";' in (HERE / "keys.js").read_text()
