"""No figure draws labels, marks or curves that do not belong to its numbers: users have no check of annotations."""

import importlib
import inspect
import pkgutil

import pytest
import torch
from matplotlib.figure import Figure

import persimmon_lab.viz
from persimmon_lab.viz.agreement import check_curves, check_labels, check_marks, check_names, check_shapes
from tests.viz.drawing import drawn
from tests.viz.examples import EXAMPLES, HEADS, PATTERN, PATTERNS, REFUSED, WORDS

# Arguments of these names are labels or marks wherever they stand: an example says which, or that here they are not.
LABELS = {
    "tokens", "read", "following", "best", "positions", "wavelengths", "clean", "corrupted", "rows", "gains",
    "offsets", "magnitudes", "starts", "temperatures", "batches", "shares", "marks", "highlight", "query", "key",
    "chosen", "token", "groups", "named", "endings", "reference", "repeats", "flips", "inspect", "pairs", "zooms",
    "ranks", "labels", "names",
}  # fmt: skip
pytestmark = pytest.mark.usefixtures("unchecked_annotations")


def public_functions():
    """Every public function of the room by its name, "html.tokens.page_html"."""
    for module in pkgutil.walk_packages(persimmon_lab.viz.__path__, "persimmon_lab.viz."):
        members = vars(importlib.import_module(module.name)).items()
        for name, member in members:
            if inspect.isfunction(member) and member.__module__ == module.name and not name.startswith("_"):
                yield f"{module.name.removeprefix('persimmon_lab.viz.')}.{name}", member


FUNCTIONS = dict(public_functions())
GROUND = ("style.", "agreement.", "signs.", "results.")  # makes no picture by itself
FIGURES = {
    name: function
    for name, function in FUNCTIONS.items()
    if not name.startswith(GROUND)
    and (
        inspect.signature(function).return_annotation is Figure
        or (name.startswith("html.") and {"inspect", "ranks"} & inspect.signature(function).parameters.keys())
    )
}


def test_every_figure_has_an_example():
    assert len(FIGURES) > 60
    assert FIGURES.keys() == EXAMPLES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_says_of_each_label_what_it_labels(name):
    example, parameters = EXAMPLES[name], set(inspect.signature(FIGURES[name]).parameters)
    told = {*example.counted, *example.marks, *example.free}
    assert told <= parameters
    assert parameters & LABELS <= told
    assert set(example.counted) | set(example.marks) <= example.arguments.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_drawn(name):
    picture = FIGURES[name](**EXAMPLES[name].arguments)
    assert drawn(picture) is picture if isinstance(picture, Figure) else picture.startswith("<")


def cut_and_grown(values):
    """The same with one entry less, and with one more; of a mapping, only its last series is changed."""
    if isinstance(values, dict):
        name, last = list(values.items())[-1]
        return [values | {name: changed} for changed in cut_and_grown(last)]
    if isinstance(values, tuple) and isinstance(values[0], torch.Tensor):
        return [(values[0], changed) for changed in cut_and_grown(values[1])]
    if isinstance(values, tuple) and isinstance(values[0], list):
        return [(values[0], changed) for changed in cut_and_grown(values[1])]
    if isinstance(values, torch.Tensor):
        return [values[:-1], torch.cat([values, values[-1:]])]
    return [values[:-1], [*values, values[-1]]]


def beside(mark):
    """Marks of the same kind on what is not there."""
    if isinstance(mark, str):
        return ["nowhere"]
    if isinstance(mark, int):
        return [1000, -1]
    if isinstance(mark, tuple):
        return [(1000, mark[1]), (mark[0], 1000), (-1, mark[1])]
    if isinstance(mark, dict):
        key, value = next(iter(mark.items()))
        changed = [{**mark, other: value} for other in beside(key)]
        inner = [mark | {key: other} for other in beside(value)] if isinstance(value, list) else []
        return changed + inner
    return [[*mark, other] for other in beside(next(iter(mark)))]


BROKEN = [
    pytest.param(name, argument, values, id=f"{name}-{argument}-{index}")
    for name, example in EXAMPLES.items()
    for arguments, change in ((example.counted, cut_and_grown), (example.marks, beside))
    for argument in arguments
    if not (name == "heads.null_strips" and argument == "nulls")  # the other way round, below
    for index, values in enumerate(change(example.arguments[argument]))
    if not (argument == "groups" and "nowhere" in values)  # a group may have any name
]


@pytest.mark.parametrize(("name", "argument", "values"), BROKEN)
def test_what_does_not_belong_together_is_refused(name, argument, values):
    with pytest.raises(ValueError, match="there has to be one for each| for |is marked|without a place|shapes differ"):
        FIGURES[name](**EXAMPLES[name].arguments | {argument: values})


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_belong_together_inside_an_argument_is_refused(name):
    with pytest.raises(ValueError, match="is marked|without a place|there has to be one for each| for "):
        FIGURES[name](**REFUSED[name])


def test_scores_without_a_null_are_refused():
    with pytest.raises(ValueError, match="1 kind without a place: 'one'"):
        FIGURES["heads.null_strips"]({"one": HEADS}, {"other": HEADS})


def test_an_error_names_both_lengths():
    with pytest.raises(ValueError, match="1 token for 3 queries and 3 keys: there has to be one for each"):
        FIGURES["attention.attention_head"](PATTERN, WORDS[:1])
    with pytest.raises(ValueError, match=r"layer head \(6, 4\) is marked, but there are 2 layers and 4 heads"):
        FIGURES["attention.attention_grid"](PATTERNS, marks={(6, 4): "copy"})
    with pytest.raises(ValueError, match="2 tokens for 3 queries and 1 key"):
        check_labels("token", WORDS[:2], query=3, key=1)
    with pytest.raises(ValueError, match="'top-p' has 1 number for 2 tokens"):
        check_curves("token", WORDS[:2], {"top-p": [1]})
    with pytest.raises(ValueError, match="head -1 is marked, but there are 8 heads, counted from 0"):
        check_marks([-1], head=8)
    with pytest.raises(ValueError, match="2 endings without a place: 'b', 'c'; there are 'a'"):
        check_names("ending", ["b", "a", "c"], ["a"])
    with pytest.raises(ValueError, match=r"phases \(3,\) and exact \(2,\)"):
        check_shapes(phases=torch.zeros(3), exact=torch.zeros(2))


def test_a_slice_with_all_labels_is_refused():
    for figure in ("attention.attention_head", "attention.attention_arcs"):
        with pytest.raises(ValueError, match="3 tokens for 2 queries and 2 keys"):
            FIGURES[figure](PATTERN[1:, 1:], WORDS)
        with pytest.raises(ValueError, match="3 tokens for 1 query and 3 keys"):
            FIGURES[figure](PATTERN[1:2], WORDS)
