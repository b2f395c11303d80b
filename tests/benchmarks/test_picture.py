"""The picture of the benchmark: bars are rates, the line is the limit, the title is the gain."""

import pytest

from benchmarks.cases import limit_rate
from benchmarks.picture import draw_decoding, panel
from persimmon_lab.viz.style import new_figure

CASE = {
    "size": "M", "dtype": "float32", "kind": "decode", "arguments": {"batch": 8, "prompt": 16, "new": 32},
    "rates": {"ours": 250.0, "transformers 5 sdpa": 80.0, "ours plain": 90.0, "transformers 4.37.2": 70.0},
    "ratios": {"transformers 5 sdpa": 3.1, "transformers 4.37.2": 3.6},
    "limits": {"bandwidth": 40e9, "matrix": 200e9},
}  # fmt: skip


def test_a_panel_shows_what_was_measured():
    _, axes = new_figure(4.0, 2.0)
    panel(axes, CASE)
    names = [label.get_text() for label in axes.get_yticklabels()]
    widths = [bar.get_width() for bar in axes.patches]
    assert dict(zip(names, widths, strict=True)) == {
        "transformers 4.37.2": 70.0,
        "transformers 5 sdpa": 80.0,
        "ours": 250.0,
    }
    assert [text.get_text().strip() for text in axes.texts] == ["70", "80", "250"]
    [limit] = axes.lines
    assert limit.get_xdata()[0] == pytest.approx(limit_rate(CASE, CASE["limits"]))
    assert "batch 8: 3.10 × 5 sdpa" in axes.get_title(loc="left")
    assert axes.get_xlim()[1] > limit.get_xdata()[0] > 250


def test_without_decoding_of_the_size_there_is_no_picture(tmp_path):
    assert not draw_decoding([CASE | {"size": "S"}, CASE | {"kind": "prefill"}], tmp_path / "speed.png")
    assert not any(tmp_path.iterdir())
