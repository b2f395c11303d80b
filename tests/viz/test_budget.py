"""Areas and bars are to scale."""

import pytest

from persimmon_lab.viz.budget import memory_bars, parameter_treemap, squarified


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
