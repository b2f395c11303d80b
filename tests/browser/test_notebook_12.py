"""Notebook 12 as a reader meets it: ask the explorer, answer an exercise."""

import re

from playwright.sync_api import expect

NOTEBOOK = "12_where_does_it_look.ipynb"
ANSWER = """def sink_score(patterns):
    return patterns[..., 1:, 0].mean(dim=-1)"""
SEVEN, SECOND_GAVE = 4, 17


def test_the_explorer_answers_and_a_readers_answer_is_marked(jupyter):
    page = jupyter.page
    jupyter.open_excerpt(
        NOTEBOOK, "phrase = ", "from persimmon_lab.widgets import AttentionExplorer", "def sink_score("
    )
    jupyter.run_all()

    # Head 6.4 looks from the second "gave" at what followed the first one; head 3.7 looks one back.
    tokens = page.locator(".persimmon-attention .token")
    expect(tokens).to_have_count(28)
    tokens.nth(SECOND_GAVE).click()
    expect(tokens.nth(SEVEN)).to_have_attribute("aria-label", re.compile(rf"^seven, token {SEVEN}: 9\d\.\d %$"))
    jupyter.screenshot("notebook-12-explorer")
    page.locator(".persimmon-attention .grid button").nth(3 * 8 + 7).click()
    king = SECOND_GAVE - 1
    expect(tokens.nth(king)).to_have_attribute("aria-label", re.compile(rf"^king, token {king}: 9\d\.\d %$"))

    jupyter.answer("def sink_score(", ANSWER)
