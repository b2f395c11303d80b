"""The shape-flow diagram draws the sizes it is given, and says them."""

import pytest
from matplotlib.patches import FancyArrowPatch, Rectangle

from persimmon_lab.trace.capture import capture
from persimmon_lab.viz import shapes
from persimmon_lab.viz.layouts import COLOURS, HATCHES, fused_layouts, parts, stripes
from persimmon_lab.viz.shapes import Stop, axis_lengths, in_full_words, shape_flow
from tests.models import ids, tiny
from tests.viz.drawing import drawn
from tests.viz.overlaps import overlapping

FUSED = "(head three channel)"
HEADS = ("batch", "head", "position", "channel")


def stops(head=4, position=9, channel=16):
    hidden = head * channel
    sizes = (1, head, position, channel)
    stream = ("batch", "position", "hidden")
    return [
        [Stop("stream", stream, (1, position, hidden), on_stream=True)],
        [Stop("fused", ("batch", "position", FUSED), (1, position, 3 * hidden), ("stream",), "one Linear")],
        [Stop(kind, HEADS, sizes, ("fused",), "split", kind=kind) for kind in ("query", "key", "value")],
        [Stop("pattern", ("batch", "head", "query", "key"), (1, head, position, position), ("query", "key"))],
        [Stop("mixed", HEADS, sizes, ("pattern", "value"))],
        [Stop("merged", ("batch", "position", "(head channel)"), (1, position, hidden), ("mixed",))],
        [Stop("sum", stream, (1, position, hidden), ("stream", "merged"), "added", on_stream=True)],
    ]


def boxes(figure, row=None):
    """Outlines, one for each drawn tensor or head, of one row from the top."""
    found = [each for each in figure.axes[0].patches if isinstance(each, Rectangle) and not each.get_fill()]
    if row is None:
        return found
    middle = shapes.TOP + shapes.PITCH * (row + 0.5)
    return [each for each in found if abs(each.get_y() + each.get_height() / 2 - middle) < 0.01]


def blocks(figure, row):
    middle = shapes.TOP + shapes.PITCH * (row + 0.5)
    filled = [each for each in figure.axes[0].patches if isinstance(each, Rectangle) and each.get_fill()]
    return [each for each in filled if abs(each.get_y() + each.get_height() / 2 - middle) < 0.01]


def test_lengths_inside_parentheses_are_worked_out():
    flat = [stop for row in stops() for stop in row]
    assert axis_lengths(flat) == {
        "batch": 1, "position": 9, "hidden": 64, "head": 4, "channel": 16, "query": 9, "key": 9, "three": 3
    }  # fmt: skip
    assert parts(FUSED) == ["head", "three", "channel"]
    assert parts("hidden") == ["hidden"]


def test_an_axis_that_no_stop_has_stays_unsaid():
    only = Stop("fused", ("position", "(head three channel)"), (9, 192))
    assert axis_lengths([only]) == {"position": 9}
    assert in_full_words(only, axis_lengths([only])) == "position 9 · head × three × channel"


def test_stops_that_disagree_are_an_error():
    with pytest.raises(ValueError, match="merged has 60 where the other stops make it head 4 × channel 16"):
        axis_lengths([Stop("mixed", HEADS, (1, 4, 9, 16)), Stop("merged", ("(head channel)",), (60,))])
    with pytest.raises(ValueError, match="late has 8 where the other stops make it position 9"):
        axis_lengths([Stop("early", ("position",), (9,)), Stop("late", ("position",), (8,))])
    with pytest.raises(ValueError, match="mixed has the axes"):
        Stop("mixed", HEADS, (4, 9, 16))


def test_widths_and_heights_are_to_scale_and_heads_are_counted():
    figure = drawn(shape_flow(stops(), "A layer"))
    (stream,), (fused,), heads, pattern = (boxes(figure, row) for row in range(4))
    assert fused.get_width() == pytest.approx(3 * stream.get_width())
    left, right = heads[0].get_x(), heads[-1].get_x() + heads[-1].get_width()
    assert right - left == pytest.approx(shapes.WIDEST)  # the widest row fills the branch
    assert left + right == pytest.approx(2 * shapes.BRANCH_X)
    assert len(heads) == 12
    assert len(pattern) == 4
    assert heads[0].get_width() == pytest.approx(stream.get_width() / 4)
    assert pattern[0].get_width() == pytest.approx(stream.get_width() * 9 / 64)
    assert {round(each.get_height(), 6) for each in boxes(figure)} == {shapes.TALLEST}


def test_the_stripes_of_the_fused_axis_go_head_by_head():
    figure = drawn(shape_flow(stops()))
    found = sorted(blocks(figure, 1), key=lambda block: block.get_x())
    assert [block.get_hatch() or "" for block in found] == [HATCHES[kind] for kind in ("query", "key", "value")] * 4
    assert len({round(block.get_width(), 6) for block in found}) == 1
    merged = blocks(figure, 5)
    assert len(merged) == 4


def test_arrows_lead_from_each_source_except_along_the_stream():
    figure = drawn(shape_flow(stops()))
    arrows = [each for each in figure.axes[0].patches if isinstance(each, FancyArrowPatch)]
    sources = [source for row in stops() for stop in row for source in stop.sources]
    assert len(arrows) == len(sources) - 1
    assert [text.get_text() for text in figure.axes[0].texts].count("+") == 1


def test_every_tensor_is_named_with_its_shape():
    figure = drawn(shape_flow(stops(), "A layer of tiny"))
    texts = [text.get_text() for text in figure.axes[0].texts]
    for expected in (
        "A layer of tiny", "fused", "one Linear", "query, key, value", "query", "key", "value",
        "batch 1 · position 9 · head 4 × three 3 × channel 16", "batch 1 · head 4 · position 9 · channel 16",
        "batch 1 · head 4 · query 9 · key 9", "batch 1 · position 9 · head 4 × channel 16", "residual stream",
    ):  # fmt: skip
        assert expected in texts


@pytest.mark.parametrize(("head", "position", "channel"), [(4, 9, 16), (8, 28, 32), (64, 2048, 64)])
def test_nothing_overlaps_or_leaves_the_page(head, position, channel):
    figure = drawn(shape_flow(stops(head, position, channel), "A layer"))
    assert overlapping(figure) == []
    width, height = figure.get_size_inches() * figure.dpi
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= width
        assert box.y0 >= 0
        assert box.y1 <= height
    assert len(boxes(figure, 2)) <= 3 * shapes.MANY


def test_names_are_no_formulas():
    figure = drawn(shape_flow([[Stop("$x_1$ <script>", ("position", "hidden"), (2, 3), how="$")]]))
    assert "$x_1$ <script>" in [text.get_text() for text in figure.axes[0].texts]


def test_a_captured_layer_can_be_drawn():
    trace = capture(tiny(), ids(), only=["layers.0:input", "query_key_value", "value", "pattern", "dense:input"])
    names = [name for name in trace.names if "layers.0" in name]
    figure = drawn(shape_flow([[Stop(name, trace.axes[name], tuple(trace[name].shape))] for name in names]))
    assert len(boxes(figure, 1)) == 1
    assert len(boxes(figure, 2)) == 4


def test_two_layouts_of_one_axis():
    lengths = {"head": 2, "three": 3, "channel": 5}
    assert stripes(lengths)[:4] == [
        {"head": 0, "three": 0}, {"head": 0, "three": 1}, {"head": 0, "three": 2}, {"head": 1, "three": 0}
    ]  # fmt: skip
    figure = drawn(fused_layouts([FUSED, "(three head channel)"], lengths, "Twice"))
    (axes,) = figure.axes
    whose = [text.get_text() for text in axes.texts if len(text.get_text()) == 2]
    assert whose == ["q0", "k0", "v0", "q1", "k1", "v1", "q0", "q1", "k0", "k1", "v0", "v1"]
    rows = [[each for each in axes.patches if each.get_fill() and each.get_y() == row] for row in (0, 1)]
    kinds = {hatch: kind for kind, hatch in HATCHES.items()}
    assert ["".join(kinds[each.get_hatch() or ""][0] for each in row) for row in rows] == ["qkvqkv", "qqkkvv"]
    assert [each.get_width() for each in rows[0]] == [5] * 6
    assert overlapping(figure) == []
    assert {text.get_text() for text in axes.get_legend().get_texts()} == set(COLOURS)


def test_a_layout_without_head_and_three_is_an_error():
    with pytest.raises(ValueError, match=r"'\(head channel\)' should name head and three"):
        fused_layouts(["(head channel)"], {"head": 2, "three": 3, "channel": 5})


def test_a_sum_is_marked_where_something_is_added():
    """A stream that is only handed on has one source, and no plus."""
    stream = ("position", "hidden")
    rows = [[Stop(name, stream, (9, 64), sources, on_stream=True)] for name, sources in (("a", ()), ("b", ("a",)))]
    assert "+" not in [text.get_text() for text in drawn(shape_flow(rows)).axes[0].texts]


def test_side_by_side_with_other_shapes_both_are_said():
    row = [Stop("part.one", ("position", "hidden"), (9, 64)), Stop("part.two", ("position", "mlp"), (9, 128))]
    texts = [text.get_text() for text in drawn(shape_flow([row])).axes[0].texts]
    assert "part.one, two" in texts
    assert "position 9 · hidden 64, position 9 · mlp 128" in texts


def test_the_names_of_kinds_stand_clear_of_the_arrows():
    figure = drawn(shape_flow(stops(8, 28, 32)))
    axes = figure.axes[0]
    heads = boxes(figure, 2)
    for place, kind in enumerate(("query", "key", "value")):
        (text,) = [each for each in axes.texts if each.get_text() == kind]
        left, right = heads[8 * place], heads[8 * place + 7]
        middle = axes.transData.transform(((left.get_x() + right.get_x() + right.get_width()) / 2, 0))[0]
        box = text.get_window_extent()
        assert not box.x0 <= middle <= box.x1, kind
        assert axes.transData.transform((left.get_x(), 0))[0] - 1 <= box.x0
        assert box.x1 <= axes.transData.transform((right.get_x() + right.get_width(), 0))[0] + 1
