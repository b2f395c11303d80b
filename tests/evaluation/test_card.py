"""Results on a model card: between the marks and nowhere else."""

import pytest

from persimmon_lab.evaluation.card import BEGIN, END, with_results
from persimmon_lab.evaluation.table import Table

TABLES = [Table("mini", ("task", "way", "right"), (("sums", "generated", "7/8"),), ("a note",)), Table("two", (), ())]
MADE = f"{BEGIN}\nMade by `persimmon-lab evaluate mini`.\n\n{TABLES[0].to_markdown()}\n{TABLES[1].to_markdown()}{END}\n"


def put(card):
    return with_results(card, TABLES, "persimmon-lab evaluate mini")


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("", MADE),
        ("# A card\n", f"# A card\n\n{MADE}"),
        ("# A card\n\n\n", f"# A card\n\n{MADE}"),
        (f"# A card\n\n{BEGIN}\nold\n{END}\n\n## Limits\n", f"# A card\n\n{MADE}\n## Limits\n"),
        (f"{BEGIN}{END}", MADE),
    ],
)
def test_the_tables_stand_between_the_marks_and_the_rest_stays(card, expected):
    assert put(card) == expected
    assert put(put(card)) == expected, "and are replaced, not repeated"


@pytest.mark.parametrize(
    "card", [BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}\n{END}\n{BEGIN}\n{END}", f"{BEGIN}{BEGIN}{END}"]
)
def test_marks_that_do_not_part_the_card_are_refused(card):
    with pytest.raises(ValueError, match="it takes each once, in this order, or neither"):
        put(card)
