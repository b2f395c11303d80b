"""How many held-out instances a model gets right, greedily, and what it says where it is wrong."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.training.skills import SKILLS, Instance, Skill
from persimmon_lab.training.skills.skill import DONT_KNOW, first_line, has_words

NEW_TOKENS = 48  # a sum with its working takes about 30
PATIENCE = 1000  # draws in a row that bring nothing new, before all there is is taken to be found


@dataclass(frozen=True)
class Miss:
    prompt: str
    expected: str
    got: str


@dataclass(frozen=True)
class Score:
    """`groups` holds (right, count) of each group; `refused` is the share of taught questions that the model says it
    doesn't know the answer to, where taught ones were asked."""

    skill: str
    right: int
    count: int
    groups: dict[str, tuple[int, int]]
    misses: list[Miss] = field(repr=False)
    refused: float | None = None

    @property
    def share(self) -> float:
        return self.right / self.count


def instances(skill: Skill, count: int, seed: int, *, held_out: bool = True) -> list[Instance]:
    """Up to `count` instances with prompts of their own: fewer only where the skill has no more."""
    generator = np.random.default_rng(seed)
    by_prompt: dict[str, Instance] = {}
    idle = 0
    while len(by_prompt) < count and idle < PATIENCE:
        instance = skill.draw(generator, held_out)
        idle = idle + 1 if instance.prompt in by_prompt else 0
        by_prompt.setdefault(instance.prompt, instance)
    return list(by_prompt.values())


@torch.no_grad()
def continuations(
    model: nn.Module,
    tokenizer: PersimmonTokenizer,
    prompts: Sequence[str],
    batch: int = 32,
    *,
    new_tokens: int = NEW_TOKENS,
) -> list[str]:
    """What the model goes on to say after each prompt. Prompts of like length share a batch, to save padding."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    device = next(model.parameters(), torch.empty(0)).device
    said: dict[int, str] = {}
    generate: Any = model.generate
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        asked = [prompts[index] for index in chosen]
        rows = tokenizer(asked, padding=True, padding_side="left", return_tensors="pt").to(device)
        ids = generate(rows.input_ids, attention_mask=rows.attention_mask, do_sample=False, max_new_tokens=new_tokens)
        # Decoded alone, a continuation would lose the space that it begins with.
        before, after = (tokenizer.batch_decode(part, skip_special_tokens=True) for part in (rows.input_ids, ids))
        said |= {index: whole[len(prompt) :] for index, prompt, whole in zip(chosen, before, after)}
    return [said[index] for index in range(len(prompts))]


def score(
    model: nn.Module, tokenizer: PersimmonTokenizer, skill: Skill, count: int = 200, seed: int = 0, batch: int = 32
) -> Score:
    """The score on distinct held-out instances; for facts also how many taught questions are refused."""
    asked = instances(skill, count, seed)
    got = continuations(model, tokenizer, [instance.prompt for instance in asked], batch)
    groups: dict[str, tuple[int, int]] = {}
    misses = []
    for instance, continuation in zip(asked, got):
        right = skill.is_right(instance, continuation)
        so_far = groups.get(instance.group, (0, 0))
        groups[instance.group] = (so_far[0] + right, so_far[1] + 1)
        if not right:
            misses.append(Miss(instance.prompt, instance.answer, continuation))
    refused = None
    if skill.name == "facts":
        prompts = [instance.prompt for instance in instances(skill, count, seed, held_out=False)]
        taught = [prompt for prompt in prompts if prompt.endswith("adept:")]  # plain text never asks
        answers = continuations(model, tokenizer, taught, batch)
        refused = sum(has_words(first_line(answer), DONT_KNOW) for answer in answers) / len(taught)
    return Score(skill.name, len(asked) - len(misses), len(asked), dict(sorted(groups.items())), misses, refused)


def score_all(model: nn.Module, tokenizer: PersimmonTokenizer, count: int = 200) -> dict[str, dict[str, Any]]:
    """The scores of all skills by name, fit for JSON."""
    return {name: asdict(score(model, tokenizer, skill, count)) for name, skill in SKILLS.items()}
