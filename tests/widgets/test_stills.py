"""What a widget leaves in a notebook: itself, and after it its picture as an output of its own."""

import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell

from persimmon_lab.widgets import AttentionExplorer, GainExplorer, GenerationPlayground, LensExplorer

VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def published(monkeypatch):
    """The outputs of a cell."""
    shell = InteractiveShell.instance()
    publisher = CapturingDisplayPublisher()
    monkeypatch.setattr(shell, "display_pub", publisher)
    yield publisher.outputs
    InteractiveShell.clear_instance()


@pytest.mark.parametrize("kind", [AttentionExplorer, LensExplorer, GainExplorer, GenerationPlayground])
def test_the_picture_comes_after_the_widget(kind, model, tokenizer, published):
    kind(model=model, tokenizer=tokenizer)._ipython_display_()
    widget, *still = [{"data": each["data"], "metadata": each["metadata"]} for each in published]
    assert VIEW in widget["data"] and "text/plain" in widget["data"]
    assert "image/png" not in widget["data"], "a page without the widget would show it twice"
    if kind is GenerationPlayground:
        assert still == [], "nothing is written yet"
    else:
        assert [[*each["data"]] for each in still] == [["image/png"]]
        assert still[0]["metadata"]["image/png"]["width"] == 900 and still[0]["metadata"]["image/png"]["alt"]
