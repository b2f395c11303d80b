"""A number that prose quotes stands in an output, or is listed here with where it comes from."""

import pytest

from tests.notebooks.quotations import Number, Quotations, numbers
from tests.notebooks.rules import Notebook
from tests.notebooks.test_rules import NOTEBOOKS, code, markdown

# What no output prints, and why it may stand. A line here goes when its number does: an exception that is none is an
# error.
REVIEWED = {
    "00": {"23%": "twice the 11.4% of a table"},
    "01": {
        "1 %": "the threshold of the figure's shade",
        "9.4": "billion parameters of the 8B, counted in notebook 00",
    },
    "03": {"6.28": "two pi"},
    "04": {"5.23": "a version of transformers"},
    "07": {
        "0.82": "half of 0.02² times 4,096, by the formula above",
        "13.3": "the sum, in the same formula",
    },
    "10": {
        "1.6": "a version of torch",
        "18.8": "GB: the 8B's parameters, two bytes each",
        "29.6": "GB, from the release's own numbers: section 8 adds it up",
        "30.7": "GB, from the release's own numbers: section 8 adds it up",
    },
    "11": {"0.00098": "half of two to the minus ninth, in the same sentence"},
    "14": {
        "99.5%": "what the printed 0.54% leaves",
        "95%": "what the printed 5% leaves",
        "1.06": "measured elsewhere, as the sentence says",
        "1.13": "measured elsewhere, as the sentence says",
        "1.18": "measured elsewhere, as the sentence says",
        "1.21": "measured elsewhere, as the sentence says",
        "43%": "0.9 to the eighth",
        "83%": "reported by gpt-fast, as the sentence says",
    },
}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.number)
def test_what_prose_quotes_is_printed_or_reviewed(notebook):
    reviewed = REVIEWED.get(notebook.number, {})
    unfounded = list(Quotations(notebook).unfounded())
    told = [f"cell {index} says {text}, which no cell up to the next one prints" for index, text in unfounded]
    assert [line for line, (_, text) in zip(told, unfounded, strict=True) if text not in reviewed] == []
    assert set(reviewed) <= {text for _, text in unfounded}, "an exception that is none"


def unfounded(*cells):
    return [text for _, text in Quotations(Notebook.of("13_x.ipynb", {"cells": list(cells)})).unfounded()]


def printing(text, source="x", **data):
    outputs = [{"output_type": "stream", "text": [text]}, {"output_type": "display_data", "data": data}]
    return code(source, count=1) | {"outputs": outputs}


@pytest.mark.parametrize(
    ("quoted", "said"),
    [
        ("2.0 times", "each position 2.0 times"),
        ("2 times, a count", "nothing"),
        ("about 0.6 nats", "-0.57 nats"),
        ("4.6 nats", "4.65, which may have been 4.649"),
        ("54 % of it", "53.6%"),
        ("54% of it", "0.536"),
        ("9.7 GB", "9,663,676,416 bytes"),
        (r"$e = 8.3$", "8.32"),
        ("`0.77` in code, [there](0.77.html)", "nothing"),
        ("transformers 4.37.2", "nothing"),
    ],
)
def test_what_is_printed_may_be_quoted(quoted, said):
    assert unfounded(printing(said), markdown(quoted)) == []


@pytest.mark.parametrize(
    ("quoted", "said", "missing"),
    [
        ("2.5 times", "2.0 times", "2.5"),
        ("2.04 times", "2.0 times", "2.04"),
        ("81% of it", "81 heads", "81%"),
        ("0.4 of it", "37% of it", "0.4"),
        ("the 4.1 of it", "4.37.2", "4.1"),
        ("17.5 GB", "1,750 bytes", "17.5"),
    ],
)
def test_what_is_not_printed_is_told(quoted, said, missing):
    assert unfounded(printing(said), markdown(quoted)) == [missing]


def test_prose_may_look_at_the_next_cell_and_no_further():
    cells = [printing("nothing"), markdown("It costs 2.0."), printing("2.0"), markdown("It costs 7.5."), printing("x")]
    assert unfounded(*cells, printing("7.5")) == ["7.5"]


def test_the_opening_and_what_unfolds_may_look_ahead():
    hidden = markdown("<details><summary>Hint</summary>It is 7.5.</details>")
    assert unfounded(markdown("It is 7.5."), printing("x"), hidden, printing("x"), printing("7.5")) == []
    assert unfounded(markdown("It is 7.5."), printing("x"), hidden, printing("x")) == ["7.5", "7.5"]


def test_code_and_html_print_and_pictures_do_not():
    said = markdown("It is 7.5.")
    assert unfounded(printing("x", source="threshold = 7.5"), said) == []
    assert unfounded(printing("x", **{"text/html": "<b>7.5</b>"}), said) == []
    assert unfounded(printing("x", **{"text/html": "<b style='width: 7.5em'>x</b>"}), said) == ["7.5"]
    assert unfounded(printing("x", **{"image/png": "7.5"}), said) == ["7.5"]


def test_numbers_as_they_are_written():
    assert numbers("1,234.50 and 4e-06, 3.1, 53 %") == [
        Number("1,234.50", 1234.5, 2, False),
        Number("4e-06", 4e-6, 6, False),
        Number("3.1", 3.1, 1, False),
        Number("53 %", 53.0, 0, True),
    ]
