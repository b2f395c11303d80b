"""The pictures hold the numbers they were given."""

import numpy as np
import torch

from persimmon_lab.viz.attention import attention_grid, attention_head
from persimmon_lab.viz.predictions import next_token_bars


def test_one_head_shows_its_pattern_with_queries_as_rows():
    pattern = torch.rand(3, 3, generator=torch.Generator().manual_seed(0)).tril()
    axes = attention_head(pattern, ["a", "b", "<c>"], "a head").axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), pattern.numpy())
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "<c>"]
    assert axes.images[0].get_clim() == (0, 1)


def test_the_grid_puts_layers_down_and_heads_across():
    patterns = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    figure = attention_grid(patterns, marks={(1, 2): "this one"})
    cells = figure.axes
    assert len(cells) == 6
    np.testing.assert_allclose(np.square(cells[5].images[0].get_array()), patterns[1, 2].numpy(), rtol=1e-6)
    assert [text.get_text() for text in cells[5].texts] == ["this one"]
    assert not any(cell.texts for cell in cells[:5])


def test_bars_are_the_probabilities_best_first():
    figure = next_token_bars([("a prompt", ["▁x", "y"], [0.75, 0.25]), ("another", ["z", "w"], [0.5, 0.125])])
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.75, 0.25]
    assert [text.get_text() for text in figure.axes[1].texts] == ["50.0%", "12.5%"]
    assert figure.axes[0].yaxis_inverted()
