"""Looping and ending, as the card counts them, and whose answers a judgement is about."""

import json
from pathlib import Path

import pytest
import torch

from persimmon_lab.mini import load_mini
from persimmon_lab.training.conversation import OPENINGS, Answer, answers, loops, read_judgement, said_hash, summary


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([], False),
        ([1, 2, 3], False),
        ([1, 2, 3, 4] * 2, False),
        ([1, 2, 3, 4] * 3, True),
        ([7] * 6, True),  # runs may overlap
        ([7] * 5, False),
        ([1, 2, 3, 4, 9, 1, 2, 3, 4, 8, 1, 2, 3, 4], True),
        ([1, 2, 3, 9, 1, 2, 3, 8, 1, 2, 3, 7], False),  # only three in a row come again
    ],
)
def test_a_loop_is_four_tokens_three_times(ids, expected):
    assert loops(ids) is expected


def test_there_are_a_hundred_openings():
    assert len(OPENINGS) == len(set(OPENINGS)) == 100 and all(line.strip() for line in OPENINGS)


class Saying(torch.nn.Module):
    """A model that says the given tokens, whatever it is asked."""

    def __init__(self, said: list[int]) -> None:
        super().__init__()
        self.said, self.asked = said, []

    def generate(self, ids, max_new_tokens, **settings):
        self.asked.append((ids, max_new_tokens, settings))
        return torch.cat((ids, torch.tensor([self.said])), dim=1)


def test_an_answer_is_the_first_turn_of_a_chat_and_is_counted():
    _, tokenizer = load_mini()
    hello = tokenizer.encode("adept: Hello there.")[1:]
    hello = hello[len(tokenizer.encode("adept:")) - 1 :]
    ends, loops_on = Saying([*hello, tokenizer.eos_token_id]), Saying(hello * 9)
    [answer] = answers(ends, tokenizer, "greedy", ["Good day"])
    assert answer == Answer("Good day", "Hello there.", loops=False, ends=True)
    ids, new_tokens, settings = ends.asked[0]
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == "human: Good day\n\nadept:"
    assert (new_tokens, settings) == (120, {"do_sample": False})
    [looping] = answers(loops_on, tokenizer, "temperature 0.7", ["Good day"])
    assert looping.loops and not looping.ends
    assert loops_on.asked[0][2] == {"do_sample": True, "temperature": 0.7, "seed": 0}
    both = summary([answer, looping])
    assert (both["loops"], both["ends"]) == (0.5, 0.5) and both["said"][0] == ["Good day", "Hello there."]


def test_a_judgement_counts_for_the_answers_that_it_judged(tmp_path: Path):
    said = [["Hi", "Hello."], ["Bye", "Goodbye."]]
    path = tmp_path / "judged.json"
    assert read_judgement(path, said) is None
    path.write_text(json.dumps({"answers": said_hash(said), "sensible": [2, 1]}))
    assert read_judgement(path, said) == [2, 1]
    assert read_judgement(path, [["Hi", "Hello."], ["Bye", "Good day."]]) is None
