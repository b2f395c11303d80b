"""Notebook 03 as a reader meets it: move the explorer, answer an exercise."""

from playwright.sync_api import expect

NOTEBOOK = "03_rotation_as_position.ipynb"
ANSWER = """def undo_rotation(rotated, positions, theta, rotary_dim):
    cos, sin = tables(positions, frequencies(rotary_dim, theta))
    return rotate(rotated, cos, -sin)"""


def test_a_readers_answer_is_marked(jupyter):
    page = jupyter.page
    jupyter.open_excerpt(
        NOTEBOOK,
        "def frequencies(",
        "def quarter_turn(",
        "def tables(",
        "def rotate(",
        "from persimmon_lab.rotary",
        "from persimmon_lab.widgets import RotaryExplorer",
        "def undo_rotation(",
    )
    jupyter.run_all()

    picture = page.locator("img.widget-image")
    before = picture.get_attribute("src")
    page.locator("input[type=checkbox]").uncheck()
    expect(picture).not_to_have_attribute("src", before)

    jupyter.answer("def undo_rotation(", ANSWER)
