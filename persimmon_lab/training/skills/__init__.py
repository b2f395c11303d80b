"""Skills with known answers: each draws instances, keeps some of them out of training, and judges what is said.

`skill` says what an instance is and how it is held out and judged; a file a skill beside it, its data in the TOML file
of the same name; `scoring` asks a model for instances that it was never shown.
"""

from collections.abc import Mapping

from persimmon_lab.training.skills.agreement import Agreement
from persimmon_lab.training.skills.brackets import Brackets
from persimmon_lab.training.skills.facts import Facts
from persimmon_lab.training.skills.gifts import Gifts
from persimmon_lab.training.skills.names_remembered import NamesRemembered
from persimmon_lab.training.skills.not_knowing import NotKnowing
from persimmon_lab.training.skills.sequences import Sequences
from persimmon_lab.training.skills.skill import Instance, Skill
from persimmon_lab.training.skills.sums import Sums
from persimmon_lab.training.skills.words import Words

SKILLS: Mapping[str, Skill] = {
    skill.name: skill
    for skill in (
        Facts(), NotKnowing(), Sums(), Sequences(), Words(), NamesRemembered(), Gifts(), Agreement(), Brackets()
    )
}  # fmt: skip

__all__ = ["SKILLS", "Instance", "Skill"]
