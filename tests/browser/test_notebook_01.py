"""Notebook 01 as a reader meets it: type into the inspector, answer an exercise."""

from playwright.sync_api import expect

from persimmon_lab.checks.nb01_tokens import shipped
from persimmon_lab.tokenizer.unigram import Unigram

NOTEBOOK = "01_tokens_are_probabilities.ipynb"
ANSWER = """def count_cuts(text, scores):
    ways = [1] + [0] * len(text)
    for end in range(1, len(text) + 1):
        ways[end] = sum(ways[start] for start in range(end) if text[start:end] in scores)
    return ways[-1]"""


def ways(word):
    return f"{Unigram.of(shipped()).lattice(word).count()} ways to cut it"


def test_a_readers_answer_is_marked(jupyter):
    page = jupyter.page
    jupyter.open_excerpt(NOTEBOOK, "phrase = ", "from persimmon_lab.widgets import TokenInspector", "def count_cuts(")
    jupyter.write_into_cell("phrase = ", 'phrase = "the king gave seven golden rings to Hannah"')
    jupyter.run_all()

    inspector = page.locator(".persimmon-pieces")
    expect(inspector.locator(".details")).to_contain_text(ways("banana"))
    inspector.get_by_label("Text to cut into pieces").fill("unbelievably")
    expect(inspector.locator(".details")).to_contain_text(ways("unbelievably"))
    inspector.get_by_text("lie", exact=True).first.click()
    expect(inspector.locator(".details")).to_contain_text("characters 4\u20137")

    jupyter.answer("def count_cuts(", ANSWER)
