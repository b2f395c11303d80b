"""Tasks of the package `reasoning-gym`, for whoever installs it: it draws puzzles by a seed and judges them itself.

Its datasets are made for models that think aloud and put their answer into <answer> tags; here the first line of what
is written is the answer, and the package's own judge has to give it full marks.
"""

from typing import Any

from persimmon_lab.evaluation.items import Item
from persimmon_lab.tokenizer.chat import render_chat
from persimmon_lab.training.skills.skill import first_line

try:
    import reasoning_gym
except ImportError:  # told on use; everything else works without it
    reasoning_gym = None

PREFIX = "reasoning-gym:"
OTHER_SEED = 1_000_003  # examples are drawn as far from the items as that
INSTALL = "pip install reasoning-gym"  # no extra of ours: it pins versions that others need otherwise


class ReasoningTask:
    """A dataset of reasoning-gym, such as `reasoning-gym:chain_sum`, with its default settings.

    Raises ValueError where the package is not installed, with the line that installs it, and for a dataset that it does
    not have.
    """

    new_tokens = 64

    def __init__(self, dataset: str) -> None:
        self.name, self.dataset = f"{PREFIX}{dataset}", dataset
        if reasoning_gym is None:
            raise ValueError(f"the task {self.name} needs the package reasoning-gym, which is not installed: {INSTALL}")
        known = sorted(reasoning_gym.factory.DATASETS)
        if dataset not in known:
            raise ValueError(f"reasoning-gym has no dataset {dataset!r}; it has {len(known)}: {', '.join(known)}")
        self.source = f"reasoning-gym {reasoning_gym.__version__}, {dataset} with its default settings"

    def items(self, count: int, seed: int) -> list[Item]:
        items: dict[str, Item] = {}
        for entry in self._dataset(count, seed):
            if not isinstance(entry["answer"], str):
                raise ValueError(
                    f"{self.name} has questions with no one answer to hold against a model's; choose another dataset"
                )
            prompt = render_chat(entry["question"])
            item = Item(self.name, len(items), prompt, answer=entry["answer"], said=f" {entry['answer']}", entry=entry)
            items.setdefault(prompt, item)
        return list(items.values())

    def examples(self, count: int, seed: int) -> list[Item]:
        return self.items(count, seed + OTHER_SEED)

    def check(self, item: Item, text: str) -> bool:
        # An answer may have several lines, such as a grid: as many count as it has.
        lines = item.answer.count("\n")
        said = first_line(text).strip() if lines == 0 else "\n".join(text.split("\n")[: lines + 1]).strip()
        judge = reasoning_gym.get_score_answer_fn(self.dataset)
        return float(judge(said, item.entry)) == 1.0

    def _dataset(self, count: int, seed: int) -> Any:
        return reasoning_gym.create_dataset(self.dataset, size=count, seed=seed)
