"""Results on a model card: the tables of an evaluation between two marks, which a later evaluation replaces."""

from collections.abc import Sequence

from persimmon_lab.evaluation.table import Table

BEGIN, END = "<!-- persimmon-lab evaluate: begin -->", "<!-- persimmon-lab evaluate: end -->"


def with_results(card: str, tables: Sequence[Table], command: str) -> str:
    """The card with these tables between BEGIN and END, below the command that made them; what stood there goes.

    A card without marks gets both at its end. ValueError for one mark without the other, several, or END before BEGIN:
    what lies between them cannot be told from the rest.
    """
    counts = card.count(BEGIN), card.count(END)
    if counts == (0, 0):
        before, after = f"{card.rstrip()}\n\n" if card.strip() else "", ""
    elif counts == (1, 1) and card.index(BEGIN) < card.index(END):
        before, _, rest = card.partition(BEGIN)
        after = rest.partition(END)[2].removeprefix("\n")
    else:
        raise ValueError(
            f"the card has the mark {BEGIN} {counts[0]} times and {END} {counts[1]} times; it takes each once, in this "
            "order, or neither"
        )
    results = "\n".join(table.to_markdown() for table in tables)
    return f"{before}{BEGIN}\nMade by `{command}`.\n\n{results}{END}\n{after}"
