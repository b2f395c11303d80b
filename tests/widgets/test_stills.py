"""What a widget leaves in a notebook: itself, and after it its picture or page as an output of its own."""

import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell

from persimmon_lab.widgets import AttentionExplorer, GainExplorer, GenerationPlayground, LensExplorer, TokenInspector

VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def published(monkeypatch):
    """The outputs of a cell."""
    shell = InteractiveShell.instance()
    publisher = CapturingDisplayPublisher()
    monkeypatch.setattr(shell, "display_pub", publisher)
    yield publisher.outputs
    InteractiveShell.clear_instance()


def left(widget, published) -> list[dict]:
    """What a cell that shows the widget holds after the widget itself."""
    widget._ipython_display_()
    shown, *stills = [{"data": each["data"], "metadata": each["metadata"]} for each in published]
    assert [*shown["data"]] == ["text/plain", VIEW], "a page without the widget would show what is more twice"
    return stills


@pytest.mark.parametrize("kind", [AttentionExplorer, LensExplorer, GainExplorer])
def test_the_picture_comes_after_the_widget(kind, model, tokenizer, published):
    [still] = left(kind(model=model, tokenizer=tokenizer), published)
    assert [*still["data"]] == ["image/png"]
    assert still["metadata"]["image/png"]["width"] == 900 and still["metadata"]["image/png"]["alt"]


def test_the_page_comes_after_the_widget(model, tokenizer, published):
    inspector = TokenInspector("to Hannah", tokenizer)
    [still] = left(inspector, published)
    assert still["data"] == {"text/html": f'<div class="persimmon-still">{inspector.static().data}</div>'}


def test_a_playground_leaves_what_was_written(model, tokenizer, published):
    playground = GenerationPlayground(model, tokenizer, "to", max_new_tokens=3)
    assert left(playground, published) == [], "nothing is written yet"
    published.clear()
    playground.generate().wait()
    [still] = left(playground, published)
    assert still["data"] == {"text/html": f'<div class="persimmon-still">{playground.static().data}</div>'}
