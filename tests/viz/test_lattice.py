"""The lattice of a text: an arc from node to node for each piece, the best cut above, its numbers readable."""

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from persimmon_lab.mini import MINI
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.tokenizer.unigram import Unigram
from persimmon_lab.viz import lattice as figures
from persimmon_lab.viz.style import CATEGORICAL
from tests.viz.drawing import drawn
from tests.viz.overlaps import overlapping

ARCS = [(0, 1, -2.0), (0, 2, -3.5), (1, 2, -4.25), (1, 3, -6.0), (2, 3, -1.5)]
UNIGRAM = Unigram.of(PersimmonTokenizer.from_pretrained(MINI))


def of(text: str):
    found = UNIGRAM.lattice(text)
    best = {found.arcs.index(arc) for arc in found.best().arcs}
    return figures.lattice(found.text, [(a.start, a.end, a.score) for a in found.arcs], best, found.probabilities())


def shown(axes) -> dict[tuple[int, int], object]:
    """The line of each arc, by the nodes where it starts and ends."""
    ends = [(line, line.get_xdata()) for line in axes.get_lines()]
    return {(round(float(x[0])), round(float(x[-1]))): line for line, x in ends}


def test_every_piece_is_an_arc_and_the_best_stand_above():
    (axes,) = drawn(figures.lattice("abc", ARCS, best={1, 4})).axes
    arcs = shown(axes)
    assert len(axes.get_lines()) == len(ARCS)
    assert set(arcs) == {(start, end) for start, end, _ in ARCS}
    for index, (start, end, _) in enumerate(ARCS):
        line = arcs[start, end]
        heights = np.asarray(line.get_ydata())
        assert abs(heights[[0, -1]]).max() < 1e-9  # it stands on its nodes
        assert (heights[1:-1] > 0).all() if index in (1, 4) else (heights[1:-1] < 0).all()
        assert line.get_linewidth() > 3 if index in (1, 4) else line.get_linewidth() < 2
        assert (to_hex(line.get_color()) == CATEGORICAL[0].lower()) == (index in (1, 4))
    (nodes,) = axes.collections
    assert nodes.get_offsets()[:, 0].tolist() == [0, 1, 2, 3]


def test_a_longer_piece_is_a_higher_arc_so_that_labels_part():
    (axes,) = drawn(figures.lattice("abc", ARCS, best={0, 3})).axes
    arcs = shown(axes)
    assert max(arcs[1, 3].get_ydata()) > max(arcs[0, 1].get_ydata()) > 0
    assert min(arcs[0, 2].get_ydata()) < min(arcs[2, 3].get_ydata()) < 0


def test_each_arc_has_its_number_at_its_top_and_the_title_their_sum():
    figure = drawn(figures.lattice("a c", ARCS, best=[4, 1], title="Three letters"))
    (axes,) = figure.axes
    labels = {text.get_text(): text.get_position() for text in axes.texts}
    for index, (start, end, score) in enumerate(ARCS):
        x, y = labels[f"\u2212{-score:.2f}"]
        assert x == (start + end) / 2
        assert abs(y) == figures.height(end - start)
        assert (y > 0) == (index in (1, 4))
    assert [labels[letter] for letter in "ac"] == [(0.5, 0), (2.5, 0)]
    assert [text.get_text() for text in figure.texts] == [
        "Three letters\nabove, the best cut: \u22123.50 + \u22121.50 = \u22125.00"
    ]


def test_what_cannot_be_seen_has_a_sign():
    (axes,) = drawn(figures.lattice("\u2581\n\t$", [(0, 4, -1.0)], best=())).axes
    assert [text.get_text() for text in axes.texts] == ["\u22121.00", "␣", "↵", "⇥", "$"]


def test_arcs_that_few_cuts_use_are_faint():
    shares = [0.005, 1.0, 0.2, 0.01, 1.0]
    (axes,) = drawn(figures.lattice("abc", ARCS, {1, 4}, shares)).axes
    arcs = shown(axes)
    grey = {nodes: to_rgb(line.get_color())[0] for nodes, line in arcs.items()}
    assert grey[0, 1] > 0.6 > 0.3 > grey[1, 2] == grey[1, 3]
    assert arcs[0, 1].get_linewidth() < arcs[1, 2].get_linewidth()
    (axes,) = drawn(figures.lattice("abc", ARCS, {1, 4})).axes
    assert to_rgb(shown(axes)[0, 1].get_color())[0] < 0.3


@pytest.mark.parametrize("text", ["Hannah", "unbelievably", "golden rings", "persimmons", "\u00e9 a"])
def test_no_number_stands_on_another(text):
    figure = drawn(of(text))
    assert not overlapping(figure)
    assert figure.get_size_inches()[0] <= 9


def test_the_longest_that_fits_and_what_does_not():
    text = "x" * figures.MOST_CHARACTERS
    figure = drawn(figures.lattice(text, [(n, n + 1, -10.25) for n in range(len(text))], best=range(len(text))))
    assert figure.get_size_inches()[0] == 9
    assert not overlapping(figure)
    assert figure.texts[0].get_text().endswith("the sum of 16 pieces = \u2212164.00")
    with pytest.raises(ValueError, match="17 characters are too many"):
        figures.lattice(text + "x", [], best=())
    with pytest.raises(ValueError, match="an arc from 0 to 4 has no place in a text of 3"):
        figures.lattice("abc", [(0, 4, -1.0)], best=())
    assert drawn(figures.lattice("", [], best=())).axes
