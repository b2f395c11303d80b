"""The steps of a run: how many batches each reads, and its rate."""

import pytest

from persimmon_lab.finetuning import Settings, conversation, encode_all
from persimmon_lab.finetuning.steps import rate_scale, steps_of_epoch
from persimmon_lab.mini import load_mini

EXAMPLES = [conversation(f"What is {n}?", " ".join(["A number"] * (1 + n)), name=str(n)) for n in range(8)]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        ("linear", [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.25, 0.5, 0.75, 1, 1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_the_rate_rises_then_falls(schedule, expected):
    settings = Settings(warmup=0.5, schedule=schedule)
    assert [rate_scale(step, 8, settings) for step in range(8)] == pytest.approx(expected, abs=1e-6)


def test_a_step_reads_as_many_batches_as_it_accumulates():
    _, tokenizer = load_mini()
    encoded = encode_all(EXAMPLES, tokenizer, 64)
    settings = Settings(rows=1, accumulate=3, packed=False)
    assert [len(step) for step in steps_of_epoch(encoded, settings, 64, 0)] == [3, 3, 2]
