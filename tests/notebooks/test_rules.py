"""Every notebook keeps the rules of CONTRIBUTING.md, CONTRIBUTING.md names every rule, and every rule can be broken."""

import copy
import re

import pytest

from tests.notebooks.rules import ROOT, RULES, Notebook

NOTEBOOKS = [Notebook.read(path) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]


# What breaks a rule, by notebook and rule. A line here goes when its notebook is mended: an exception that is none is
# an error.
KNOWN: dict[tuple[str, str], list[str]] = {}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.number)
def test_every_notebook_keeps_every_rule(notebook, rule):
    assert list(RULES[rule](notebook)) == KNOWN.get((notebook.number, rule), [])


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.number)
def test_exported_pages_leave_the_solutions_out(notebook):
    """nbconvert knows nothing of collapsed cells; what it leaves out has `remove_source` under `transient`."""
    shown = [cell.index for cell in notebook.tagged("solution") if not cell.left_out]
    assert not shown, f"cells {shown}"


def test_the_exceptions_are_of_notebooks_and_rules():
    assert {number for number, _ in KNOWN} <= {notebook.number for notebook in NOTEBOOKS}
    assert {rule for _, rule in KNOWN} <= set(RULES)


def test_contributing_names_every_rule():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.partition("## The rules of a notebook\n")[2].partition("\n## ")[0]
    assert re.findall(r"^- \*\*(.+?)\*\*", section, flags=re.MULTILINE) == list(RULES)


def test_contributing_names_no_file_that_is_not_there():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = re.findall(r"\b(?:tests|persimmon_lab|notebooks|tools)/[\w./-]+\w", page)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists() and "NN_" not in path] == []


# A notebook that keeps all rules, and what breaks each


def markdown(source):
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code(source, *tags, count, hidden=False):
    metadata = {"tags": list(tags)} | ({"jupyter": {"source_hidden": True}} if hidden else {})
    return {"cell_type": "code", "metadata": metadata, "source": source, "execution_count": count, "outputs": []}


def exercise(name, level, count):
    return [
        markdown(f"### {level}: {name}\n\n<details><summary>Hint 1</summary>Think.</details>"),
        code(f"def {name}(x):\n    ...", "exercise", count=count),
        code(f"checks.{name}({name})", "check", count=count + 1),
        code(f"def {name}_solution(x):\n    return x", "solution", count=count + 2, hidden=True),
    ]


def good():
    opening = (
        "# 13 · When does it know?\n\n*About 15 seconds on two CPU cores · no GPU needed · the module it builds: "
        "[`trace/lens.py`](../persimmon_lab/trace/lens.py)*\n\n*Where you are: at a test.*\n\n1. one\n2. two\n3. three"
    )
    cells = [
        markdown(opening),
        markdown("## Predict first\n\nGuess."),
        code("from persimmon_lab.widgets import LensExplorer\nfrom persimmon_lab.trace import lens", count=1),
        code("assert torch.equal(mine, lens.theirs)", count=2),
        markdown("## 4 · Break it\n\nLook."),
        code("from persimmon_lab.checks import nb13_lens as checks", count=3),
        *exercise("read_stream", "Easy", 4),
        *exercise("head_share", "Medium", 7),
        *exercise("score_keys", "Open", 10),
        markdown("## What you have now\n\nMuch. **Still open.** More."),
    ]
    return {"cells": cells}


def broken(rule, document):
    """The name of a rule, and the notebook with that rule broken."""
    replaced = {
        "Title": (0, "# 13 · ", "# 12 · "),
        "Badge": (0, "CPU cores", "cores"),
        "What is built": (0, "the module it builds", "see also"),
        "Where you are": (0, "Where you are: ", "Here: "),
        "Objectives": (0, "\n3. three", ""),
        "Predict first": (1, "Predict first", "Guess"),
        "Equality": (3, "assert torch.equal(mine, lens.theirs)", "mine - lens.theirs"),
        "Break it": (4, "Break it", "Look at it"),
        "Recap": (-1, "What you have now", "The end"),
        "Links": (1, "Guess.", "Guess. [There](nowhere.ipynb)"),
        "Exercises": (14, "### Open", "### Hard"),
        "Hints": (6, "<summary>", ""),
        "The reader's answer": (9, "def read_stream_solution", "def read_stream"),
        "Copies for students": (12, "checks.head_share(head_share)", "read_stream_solution(1)"),
        "Checks": (5, "nb13_lens", "nb12_heads"),
        "Short cells": (3, "assert", "x = 1\n" * 25 + "assert"),
        "No absolute paths": (3, "lens.theirs", 'open("/home/ada/x")'),
        "No semicolon": (3, "theirs)", "theirs);"),
    }
    document = copy.deepcopy(document)
    cells = document["cells"]
    if rule in replaced:
        index, before, after = replaced[rule]
        assert before in cells[index]["source"]
        cells[index]["source"] = cells[index]["source"].replace(before, after)
    elif rule == "Three cells":
        del cells[12]  # a check
        for count, cell in enumerate((cell for cell in cells if cell["cell_type"] == "code"), start=1):
            cell["execution_count"] = count
    elif rule == "Collapsed solutions":
        del cells[9]["metadata"]["jupyter"]
    elif rule == "Outputs":
        cells[3]["execution_count"] = None
    return document


def complaints(document, name="13_when_does_it_know.ipynb"):
    notebook = Notebook.of(name, document)
    return {rule: list(told) for rule, breaks in RULES.items() if (told := list(breaks(notebook)))}


def test_a_good_notebook_keeps_all_rules():
    assert complaints(good()) == {}


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "Browser"])
def test_a_notebook_that_breaks_one_rule_is_told_that_one(rule):
    assert set(complaints(broken(rule, good()))) == {rule}


def test_a_widget_without_a_browser_test():
    assert set(complaints(good(), "13_another.ipynb")) == {"Browser"}


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("print('x')", False),
        ("print('/home/ada')", True),
        (r"open('C:\\Users')", True),
        ("'https://example.org/home/x'", False),
        ("'../persimmon_lab/tmp/x'", False),
    ],
)
def test_absolute_paths_are_told_from_others(source, told):
    document = good()
    document["cells"][3]["source"] += f"\n{source}"
    assert ("No absolute paths" in complaints(document)) == told


def test_paths_in_outputs_and_errors_are_seen():
    document = good()
    document["cells"][3]["outputs"] = [{"output_type": "stream", "text": ["saved to /tmp/x"]}]
    assert set(complaints(document)) == {"No absolute paths"}
    document["cells"][3]["outputs"] = [{"output_type": "error"}]
    assert set(complaints(document)) == {"Outputs"}


def test_one_exercise_is_too_few():
    document = good()
    del document["cells"][10:18]
    for count, cell in enumerate((cell for cell in document["cells"] if cell["cell_type"] == "code"), start=1):
        cell["execution_count"] = count
    assert complaints(document)["Exercises"] == [
        "no exercise is called Medium or Open",
        "1 exercises with a stub; two at least are asked for",
    ]


@pytest.mark.parametrize(
    ("solution", "use"),
    [
        ("helper = 1", "print(f'{helper:.1f}')"),
        ("import string", "print(string.digits)"),
        ("from string import digits as figures", "def later():\n    return figures"),
        ("class Solved: ...", "[Solved() for _ in range(2)]"),
        ("for turn in range(2): ...", "print(lambda: turn)"),
        ("with open('x') as file: ...", "file.name"),
        ("if (found := 1): ...", "found + 1"),
    ],
)
def test_whatever_a_solution_leaves_behind_is_missed_without_it(solution, use):
    document = good()
    document["cells"][9]["source"] += f"\n{solution}"
    document["cells"][12]["source"] += f"\n{use}"
    assert set(complaints(document)) == {"Copies for students"}
    document["cells"][3]["source"] += f"\n{solution}"  # said before, outside of the solution as well
    assert complaints(document) == {}


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("Hints", lambda cells: cells[10].update(source="### Medium: head_share")),
        ("Exercises", lambda cells: cells[14].update(source=cells[14]["source"].replace("Open", "Hard"))),
        ("Three cells", lambda cells: cells[13]["metadata"].update(tags=[])),
        ("Badge", lambda cells: cells[0].update(source=cells[0]["source"].replace("*About", "About"))),
        ("Objectives", lambda cells: cells[0].update(source=cells[0]["source"] + "\n4. d\n5. e\n6. f")),
    ],
)
def test_a_rule_is_broken_in_other_ways_too(rule, change):
    document = good()
    change(document["cells"])
    assert rule in complaints(document)
