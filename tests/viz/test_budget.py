"""Areas and bars are to scale."""

import pytest
import torch

from persimmon_lab.viz.budget import memory_bars, parameter_treemap, row_directions, squarified, stacked_bars


def test_treemap_areas_are_in_proportion_and_fill_the_page():
    sizes = [6.0, 6.0, 4.0, 3.0, 2.0, 2.0, 1.0]  # the example of the paper
    rectangles = squarified(sizes, 0.0, 0.0, 6.0, 4.0)
    assert [width * height for _, _, width, height in rectangles] == pytest.approx(sizes)
    # The paper's figure 2: two squares-ish of 6 in a left column 3 wide.
    assert rectangles[0] == pytest.approx((0, 0, 3, 2))
    assert rectangles[1] == pytest.approx((0, 2, 3, 2))
    assert max(x + width for x, _, width, _ in rectangles) == pytest.approx(6)
    assert max(y + height for _, y, _, height in rectangles) == pytest.approx(4)


def test_treemap_names_the_large_parts_with_their_shares():
    figure = parameter_treemap({"mlp": 600_000_000, "attention": 399_000_000, "norms": 1_000_000}, {"mlp": 6})
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert labels == ["mlp\n0.60 B  ·  60%\n6 layers", "attention\n0.40 B  ·  40%"]


def test_bars_end_where_the_bytes_do():
    figure = memory_bars([("a", 3e9, 1e9), ("b", 2e9, 5e9)], {"8 GB": 8e9, "80 GB": 80e9})
    ends = [bar.get_x() + bar.get_width() for bar in figure.axes[0].patches]
    assert ends == pytest.approx([3, 2, 4, 7])
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words == ["4.0 GB", "7.0 GB", "8 GB"]  # a device far beyond the bars is left out


def test_parts_are_stacked_in_their_order():
    rows = [("a", {"x": 3e9, "y": 1e9, "z": 0.5e9}), ("b", {"x": 1e9, "y": 5e9, "z": 2e9})]
    figure = stacked_bars(rows, {"6 GB": 6e9, "80 GB": 80e9}, "A title")
    (axes,) = figure.axes
    found = {}
    for container in axes.containers:
        found[container.get_label()] = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in container]
    assert found == {"x": [(0, 3), (0, 1)], "y": [(3, 4), (1, 6)], "z": [(4, 4.5), (6, 8)]}
    assert [text.get_text() for text in axes.texts] == ["4.5 GB", "8.0 GB", "6 GB"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]
    assert len({container[0].get_hatch() for container in axes.containers}) == 3


def test_rows_stand_where_they_point():
    cosines, norms = torch.tensor([0.1, -0.3, 0.999, 0.998]), torch.tensor([1.0, 2.0, 4.0, 3.0])
    groups = {"seen": torch.tensor([True, True, False, False]), "never": torch.tensor([False, False, True, True])}
    counts, points = row_directions(cosines, norms, groups, "A title").axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in points.get_lines()}
    assert drawn["seen: 2"] == [pytest.approx([0.1, 1.0]), pytest.approx([-0.3, 2.0])]
    assert drawn["never: 2"] == [pytest.approx([0.999, 4.0]), pytest.approx([0.998, 3.0])]
    heights = [patch.get_xy()[:, 1].max() for patch in counts.patches]
    assert heights == [1, 2]
    assert points.get_xlim()[0] < -0.3
