"""The memory calculator shows what the budget says, for what was chosen."""

import torch

from persimmon_lab import PersimmonConfig
from persimmon_lab.fitting.memory import memory_plan
from persimmon_lab.widgets.panels.memory import MemoryCalculator, render


def total_shown(figure) -> str:
    return [text.get_text() for text in figure.axes[0].texts if text.get_text().endswith("GB")][1]


def test_choices_move_the_bars():
    config = PersimmonConfig.persimmon_8b()
    calculator = MemoryCalculator(config)
    before = calculator.picture.value
    calculator.batch.value, calculator.context.value = 4, 2048
    assert calculator.picture.value != before
    expected = memory_plan(config, torch.bfloat16, batch=4, context=2048).total / 1e9
    assert total_shown(calculator.static()) == f"{expected:.1f} GB"
    assert repr(calculator) == "MemoryCalculator(4 × 2,048 tokens, bfloat16 or float16 (2 bytes))"


def test_int8_weights_keep_a_two_byte_cache():
    config = PersimmonConfig.persimmon_8b()
    expected = memory_plan(config, torch.int8).weights + memory_plan(config, torch.bfloat16).cache
    assert total_shown(render(config, torch.int8, 16384, 1)) == f"{expected / 1e9:.1f} GB"
