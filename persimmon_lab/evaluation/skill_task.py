"""A skill of `training/skills` as a task: its held-out instances are asked, its taught ones demonstrate."""

import dataclasses
import hashlib
from functools import cached_property

import numpy as np

from persimmon_lab.evaluation.distractors import choices_of
from persimmon_lab.evaluation.items import Item
from persimmon_lab.training.skills import Instance, Skill
from persimmon_lab.training.skills.scoring import NEW_TOKENS, instances

_SHARED = [field.name for field in dataclasses.fields(Instance)]


class SkillTask:
    """The check is the skill's own. Items come with choices where the skill has wrong answers that are surely wrong."""

    new_tokens: int = NEW_TOKENS

    def __init__(self, skill: Skill) -> None:
        self.skill, self.name = skill, skill.name.replace(" ", "-")

    def __repr__(self) -> str:
        return f"<SkillTask {self.name}>"

    @cached_property  # isinstance(…, Task) reads it, too
    def source(self) -> str:
        """The checksum of ten items: whoever has the same skill, data and generator gets the same."""
        told = repr([(item.prompt, item.answer, item.choices) for item in self.items(10, seed=0)])
        return f"{type(self.skill).__module__}, ten items with sha256 {hashlib.sha256(told.encode()).hexdigest()[:16]}"

    def items(self, count: int, seed: int) -> list[Item]:
        return self._drawn(count, seed, held_out=True)

    def examples(self, count: int, seed: int) -> list[Item]:
        """Instances that training shows: nobody learns from them what is asked."""
        return self._drawn(count, seed, held_out=False)

    def check(self, item: Item, text: str) -> bool:
        return self.skill.is_right(Instance(**{name: getattr(item, name) for name in _SHARED}), text)

    def _drawn(self, count: int, seed: int, held_out: bool) -> list[Item]:
        items = []
        for number, instance in enumerate(instances(self.skill, count, seed, held_out=held_out)):
            # A generator for each item: the same item has the same choices however many are drawn.
            generator = np.random.default_rng([seed, number])
            choices, correct = choices_of(self.skill.name, instance, generator)
            shared = {name: getattr(instance, name) for name in _SHARED}
            items.append(Item(self.name, number, choices=choices, correct=correct, **shared))
        return items
