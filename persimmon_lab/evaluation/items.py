"""A question with a known answer, and what a task is: a way to draw such questions and to judge what is said."""

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Item:
    """One question of a task, as a model reads it.

    `prompt` is the text that is to be continued, and `answer` the key that a right continuation says. `said` is a
    continuation that says it in full: what a demonstration shows, and what the oracle says.

    `choices` are continuations to be compared by their log-likelihood, as they would stand after the prompt (so most
    begin with a space); `correct` says which of them is right. There are none where no wrong answer is surely wrong.

    `context` is what stands before the prompt: demonstrations, `shots` of them. `group` is a sub-kind that is reported
    alone. `wrong` and `entry` are for the task's own check.
    """

    task: str
    number: int
    prompt: str
    answer: str
    choices: tuple[str, ...] = ()
    correct: int | None = None
    said: str = ""
    after: str = ""
    group: str = ""
    context: str = ""
    shots: int = 0
    wrong: tuple[str, ...] = field(default=(), repr=False)
    entry: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if (self.correct is None) != (not self.choices) or not 0 <= (self.correct or 0) < max(1, len(self.choices)):
            raise ValueError(
                f"item {self.number} of {self.task}: correct={self.correct} with {len(self.choices)} choices; it says "
                "which of them is right, and is None where there are none"
            )

    @property
    def text(self) -> str:
        """What the model reads."""
        return self.context + self.prompt


@runtime_checkable
class Task(Protocol):
    """Draws items and judges answers. Nothing of it depends on a model, so two models can be asked the same."""

    name: str

    @property
    def new_tokens(self) -> int:
        """How many tokens an answer may have."""

    @property
    def source(self) -> str:
        """What the items are made of, so that others can tell whether they have the same: a version, a checksum."""

    def items(self, count: int, seed: int) -> list[Item]:
        """Up to `count` items with prompts of their own, numbered from 0; fewer only where there are no more."""
        ...

    def examples(self, count: int, seed: int) -> list[Item]:
        """Up to `count` items to demonstrate the task with. They may be among `items`; whoever shows them looks."""
        ...

    def check(self, item: Item, text: str) -> bool:
        """Whether `text`, a continuation of the item's prompt from its first character on, is right."""
        ...
