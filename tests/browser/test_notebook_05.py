"""Notebook 05 as a reader meets it: move the gain, answer an exercise."""

from playwright.sync_api import expect

NOTEBOOK = "05_bounded_attention.ipynb"
ANSWER = """def largest_score(head_dim, query_weight, key_weight):
    return abs(query_weight * key_weight) * math.sqrt(head_dim)"""


def test_a_readers_answer_is_marked(jupyter):
    page = jupyter.page
    jupyter.open_excerpt(
        NOTEBOOK,
        "from persimmon_lab.trace.heads import stripe",
        "from persimmon_lab.widgets import GainExplorer",
        "def largest_score(",
    )
    jupyter.run_all()

    picture = page.locator("img.widget-image")
    before = picture.get_attribute("src")
    handle = page.locator(".widget-inline-hbox", has=page.get_by_text("gain", exact=True)).locator(".noUi-handle")
    handle.press("ArrowRight")
    expect(picture).not_to_have_attribute("src", before)

    jupyter.answer("def largest_score(", ANSWER)
