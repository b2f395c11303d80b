"""Notebook 12 as a reader meets it: ask the explorer, answer an exercise."""

import re

from playwright.sync_api import expect

NOTEBOOK = "12_where_does_it_look.ipynb"
ANSWER = """def sink_score(patterns):
    return patterns[..., 1:, 0].mean(dim=-1)"""


def test_the_explorer_answers_and_a_readers_answer_is_marked(jupyter):
    page = jupyter.page
    jupyter.open_excerpt(
        NOTEBOOK, "def said_twice(", "from persimmon_lab.widgets import AttentionExplorer", "def sink_score("
    )
    jupyter.run_all()

    # From the second "gave" one head looks at what followed the first one, and another one back.
    tokens = page.locator(".persimmon-attention .token")
    tokens.filter(has_text="gave").nth(1).click()
    seven = tokens.filter(has_text="seven").first
    expect(seven).to_have_attribute("aria-label", re.compile(r"^seven, token \d+: [2-9]\d\.\d %$"))
    jupyter.screenshot("notebook-12-explorer")
    page.locator(".persimmon-attention .marks button", has_text="one back").click()
    king = tokens.filter(has_text="king").nth(1)
    expect(king).to_have_attribute("aria-label", re.compile(r"^king, token \d+: [2-9]\d\.\d %$"))

    jupyter.answer("def sink_score(", ANSWER)
