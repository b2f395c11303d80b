"""A score counts what a model says: all right, all wrong, some of it, or nothing but refusals."""

import json
from collections import Counter

import pytest
import torch
from torch import nn

from persimmon_lab.mini import MINI
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.training.skills import SKILLS, scoring
from persimmon_lab.training.skills.scoring import continuations, instances, score, score_all


class Speaker(nn.Module):
    """Says after each prompt what `answers` holds for it, as generation would: ids, ended and filled up by eos."""

    def __init__(self, tokenizer: PersimmonTokenizer, answers: dict[str, str], otherwise: str = " I don't know."):
        super().__init__()
        self.tokenizer, self.answers, self.otherwise = tokenizer, answers, otherwise
        self.weight = nn.Parameter(torch.zeros(1))
        self.batches: list[int] = []

    def generate(self, ids, *, attention_mask, do_sample, max_new_tokens):
        assert not do_sample and max_new_tokens == scoring.NEW_TOKENS
        assert not torch.is_grad_enabled()
        end = self.tokenizer.eos_token_id
        rows = []
        for row, mask in zip(ids.tolist(), attention_mask.tolist()):
            assert mask == sorted(mask), "padding stands on the left"
            prompt = self.tokenizer.decode([index for index, kept in zip(row, mask) if kept], skip_special_tokens=True)
            said = self.answers.get(prompt, self.otherwise)
            # After a newline no space is put before the first word, so the space that stands there is the answer's.
            pieces = self.tokenizer.encode("\n" + said, add_special_tokens=False)
            new = pieces[pieces.index(self.tokenizer.convert_tokens_to_ids("\n")) + 1 :][:max_new_tokens]
            rows.append(new + [end] * (max_new_tokens - len(new)))
        self.batches.append(len(rows))
        return torch.cat([ids, torch.tensor(rows)], dim=1)


@pytest.fixture(scope="module")
def tokenizer() -> PersimmonTokenizer:
    return PersimmonTokenizer.from_pretrained(MINI)


def answers(skill, count: int, seed: int = 0) -> dict[str, str]:
    return {instance.prompt: instance.said + instance.after for instance in instances(skill, count, seed)}


@pytest.mark.parametrize("name", SKILLS)
def test_who_says_what_is_taught_has_all_right(tokenizer, name):
    skill = SKILLS[name]
    speaker = Speaker(tokenizer, answers(skill, 40))
    result = score(speaker, tokenizer, skill, count=40, batch=16)
    assert (result.right, result.count, result.share, result.misses) == (40, 40, 1.0, [])
    assert all(right == count for right, count in result.groups.values())
    assert sum(count for _, count in result.groups.values()) == 40
    assert speaker.batches[:3] == [16, 16, 8]


@pytest.mark.parametrize("name", [name for name in SKILLS if name != "not knowing"])
def test_who_refuses_has_nothing_right(tokenizer, name):
    result = score(Speaker(tokenizer, {}), tokenizer, SKILLS[name], count=20)
    assert (result.right, result.count) == (0, 20)
    assert all(right == 0 for right, _ in result.groups.values())
    expected = {instance.prompt: instance.answer for instance in instances(SKILLS[name], 20, 0)}
    assert {miss.prompt: miss.expected for miss in result.misses} == expected
    assert {miss.got for miss in result.misses} == {" I don't know."}


def test_refusing_is_right_where_nothing_can_be_known(tokenizer):
    result = score(Speaker(tokenizer, {}), tokenizer, SKILLS["not knowing"], count=30)
    assert result.right == result.count == 30 and result.refused is None


def test_some_are_right_and_counted_in_their_group(tokenizer):
    skill = SKILLS["agreement"]
    asked = instances(skill, 30, seed=7)
    known = {one.prompt: one.said for one in asked if one.group == "opposite number"}
    result = score(Speaker(tokenizer, known, " sees"), tokenizer, skill, count=30, seed=7)
    assert result.right == len(known) > 0
    assert result.groups["opposite number"] == (len(known), len(known))
    assert {group: count for group, (_, count) in result.groups.items()} == Counter(one.group for one in asked)
    assert {right for group, (right, _) in result.groups.items() if group != "opposite number"} == {0}
    assert {miss.prompt for miss in result.misses} == {one.prompt for one in asked} - known.keys()


def test_refused_facts_are_counted_on_what_was_taught(tokenizer):
    skill = SKILLS["facts"]
    taught = [one for one in instances(skill, 40, seed=0, held_out=False) if one.prompt.startswith("human")]
    assert len(taught) < 40
    known = {one.prompt: one.said for one in taught[:10]}
    result = score(Speaker(tokenizer, known), tokenizer, skill, count=40)
    assert result.refused == pytest.approx(1 - 10 / len(taught))
    assert score(Speaker(tokenizer, {}, " Paris."), tokenizer, skill, count=40).refused == 0.0


def test_instances_are_distinct_and_held_out_and_no_more_than_there_are():
    skill = SKILLS["words"]
    found = instances(skill, 100, seed=1)
    assert len({instance.prompt for instance in found}) == 100
    assert instances(skill, 100, seed=1) == found != instances(skill, 100, seed=2)
    assert instances(skill, 50, seed=1) == found[:50]
    everything = instances(skill, 3000, seed=1)
    assert {instance.prompt for instance in found} < {instance.prompt for instance in everything}
    assert 250 < len(everything) < 400
    assert not {one.prompt for one in found} & {one.prompt for one in instances(skill, 100, seed=1, held_out=False)}


def test_continuations_come_in_the_order_of_the_prompts(tokenizer):
    prompts = ["One two three four five six seven", "One", "One two three", "One two"]
    speaker = Speaker(tokenizer, {prompt: f" {len(prompt)}" for prompt in prompts})
    assert continuations(speaker, tokenizer, prompts, batch=3) == [" 33", " 3", " 13", " 7"]
    assert speaker.batches == [3, 1]


def test_all_scores_are_fit_for_json(tokenizer):
    table = json.loads(json.dumps(score_all(Speaker(tokenizer, {}), tokenizer, count=3)))
    assert table.keys() == SKILLS.keys()
    assert all(entry["count"] == 3 and entry["skill"] == name for name, entry in table.items())
    assert table["facts"]["refused"] == 1.0 and table["not knowing"]["right"] == 3
    assert table["sums"]["misses"][0].keys() == {"prompt", "expected", "got"}
