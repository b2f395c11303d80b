"""The tree of texts, and the code and the JSON that give it again."""

import json
from dataclasses import replace

import pytest

from persimmon_lab.viz.html.tokens import Token
from persimmon_lab.widgets.playground.settings import Settings
from persimmon_lab.widgets.playground.tree import Tree

SETTINGS = Settings("Once", temperature=1.3, seed=5)


def tokens(*ids):
    return [Token(f" {index}", f"▁{index}", 0.5, 1, 1.0, token_id=index) for index in ids]


def ids(branch):
    return [token.token_id for token in branch.path]


@pytest.fixture
def tree():
    tree = Tree()
    root = tree.add(SETTINGS)
    root.tokens = tokens(1, 2, 3, 4)
    child = tree.add(SETTINGS, root, 2, tokens(7)[0])
    child.tokens += tokens(8, 9)
    return tree


def test_a_branch_keeps_the_beginning_of_its_parent(tree):
    root, child = tree.branches
    assert ids(child) == [1, 2, 7, 8, 9]
    assert (root.generated, child.generated) == (4, 2)
    assert [child.owner(index) for index in range(5)] == [root, root, child, child, child]


def test_alternatives_of_one_token_are_siblings_wherever_they_are_chosen(tree):
    root, child = tree.branches
    for fork in (0, 1, 2):
        assert tree.add(SETTINGS, child, fork, tokens(6)[0]).parent is root
    assert tree.add(SETTINGS, child, 3, tokens(6)[0]).parent is child


def test_a_branch_that_says_the_same_is_found(tree):
    root, child = tree.branches
    assert tree.find(SETTINGS, root, 2, 7) is tree.find(SETTINGS, child, 2, 7) is child
    assert tree.find(SETTINGS, root, 1, 7) is None
    assert tree.find(SETTINGS, root, 2, 8) is None
    assert tree.find(replace(SETTINGS, seed=6), root, 2, 7) is None


def test_the_list_goes_down_before_it_goes_on(tree):
    root, child = tree.branches
    grandchild = tree.add(SETTINGS, child, 4, tokens(6)[0])
    early = tree.add(SETTINGS, root, 1, tokens(6)[0])
    other = tree.add(replace(SETTINGS, prompt="Twice"))
    assert tree.in_order() == [root, early, child, grandchild, other]
    tree.remove(child)
    assert tree.branches == [root, early, other]
    assert tree.add(SETTINGS).number == 6


def test_a_stopped_branch_asks_for_what_the_model_wrote(tree):
    child = tree.branches[1]
    assert child.repeatable_settings == SETTINGS
    child.stopped = True
    assert child.repeatable_settings == replace(SETTINGS, max_new_tokens=2)


def test_json_gives_the_same_tree(tree):
    tree.branches[1].name, tree.branches[1].stopped = "zwei ✓", True
    again = Tree.from_json(tree.to_json())
    assert again.to_json() == tree.to_json()
    assert [branch.path for branch in again.branches] == [branch.path for branch in tree.branches]
    assert again.branches[1].parent is again.branches[0]
    assert again.branches[1].settings == SETTINGS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stored: stored.update(format="notes"), "no tree of texts"),
        (lambda stored: stored.update(version=9), "version 9"),
        (lambda stored: stored["branches"][1].update(fork=5), "beyond the text"),
        (lambda stored: stored["branches"][1].update(parent=4), "no branch 4"),
        (lambda stored: stored.pop("version"), "does not say its version"),
        (lambda stored: stored.update(version=True), "version True"),
        (lambda stored: stored.pop("branches"), "at least one branch"),
        (lambda stored: stored.update(branches=[]), "at least one branch"),
        (lambda stored: stored.update(model=7), "as its model, and has 7"),
        (lambda stored: stored["branches"].append(3), "branch 3 of the file should be an object"),
        (lambda stored: stored["branches"][1].update(number=1), "two branches 1"),
        (lambda stored: stored["branches"][1].update(number="2"), "a whole number from 1 on as its number"),
        (lambda stored: stored["branches"][1].update(fork=-1), "from 0 on as its fork"),
        (lambda stored: stored["branches"][1].update(fork=True), "as its fork, and has True"),
        (lambda stored: stored["branches"][1].update(forced="yes"), "true or false as its forced"),
        (lambda stored: stored["branches"][1].update(colour="red"), "'colour', which is not one of"),
        (lambda stored: stored["branches"][1].pop("tokens"), "branch 2 of the file has no tokens"),
        (lambda stored: stored["branches"][1].update(tokens=[]), "should begin with a token that a reader chose"),
        (
            lambda stored: stored["branches"][1]["settings"].update(temperature="hot"),
            "as its temperature, and has 'hot'",
        ),
        (lambda stored: stored["branches"][1]["settings"].update(temperature=float("inf")), "as its temperature"),
        (lambda stored: stored["branches"][1]["settings"].update(top_p=1.5), "from 0 to 1 as its top_p, and has 1.5"),
        (lambda stored: stored["branches"][1]["settings"].update(seed=1.0), "as its seed, and has 1.0"),
        (lambda stored: stored["branches"][1]["settings"].update(prompt="Twice"), "another prompt than branch 1"),
        (
            lambda stored: stored["branches"][1]["settings"].pop("seed"),
            "the settings of branch 2 of the file has no seed",
        ),
        (
            lambda stored: stored["branches"][1]["tokens"][1].update(probability="0.5"),
            "token 1 of branch 2 of the file",
        ),
        (lambda stored: stored["branches"][1]["tokens"][1].update(probability=float("nan")), "as its probability"),
        (lambda stored: stored["branches"][1]["tokens"][1].update(probability=1.1), "from 0 to 1 as its probability"),
        (lambda stored: stored["branches"][1]["tokens"][1].update(rank=0), "from 1 on as its rank"),
        (lambda stored: stored["branches"][1]["tokens"][1].update(text="\ud800"), "a text as its text"),
        (
            lambda stored: stored["branches"][1]["tokens"].append([]),
            "token 3 of branch 2 of the file should be an object",
        ),
    ],
)
def test_what_is_no_such_tree_is_refused(tree, change, message):
    stored = json.loads(tree.to_json())
    change(stored)
    with pytest.raises(ValueError, match=message):
        Tree.from_json(json.dumps(stored))


@pytest.mark.parametrize("text", ["nonsense", "", "[" * 100_000, "3", "[]", "null"])
def test_nor_is_what_is_no_tree_at_all(text):
    with pytest.raises(ValueError, match="this is no tree of texts"):
        Tree.from_json(text)


def test_a_tree_from_before_models_had_fingerprints_is_read(tree):
    stored = json.loads(tree.to_json())
    del stored["model"]
    assert Tree.from_json(json.dumps(stored)).to_json() == tree.to_json()


def test_a_lineage_without_end_is_refused(tree):
    stored = json.loads(tree.to_json())
    child = stored["branches"][1]
    stored["branches"] += [child | {"number": number, "parent": number - 1} for number in range(3, 2000)]
    with pytest.raises(ValueError, match="branch 101 grows from 100 others"):
        Tree.from_json(json.dumps(stored))
