"""Scoring by generated text: the model writes, greedily, and the task judges what it wrote.

What counts is told by `EXTRACTION`, and stands in every report: how an answer is cut out of a text decides scores as
much as a model does.
"""

from collections.abc import Sequence

from torch import nn

from persimmon_lab.evaluation.items import Item, Task
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.training.skills.scoring import continuations

EXTRACTION = (
    "Greedy decoding from the prompt, in the chat format where the task asks a question. The answer is what is written "
    "up to the end of the line, the next turn or the end of the text, whichever comes first; the task's own check "
    "judges it: the key as whole words and no wrong key beside it; of a sum the last number; of a comparison the "
    "first; of a text that goes on (agreement, gifts, copying, lists) the very next word; of brackets exactly the "
    "closings."
)


def answers(
    model: nn.Module, tokenizer: PersimmonTokenizer, task: Task, items: Sequence[Item], batch_size: int
) -> list[str]:
    """What the model writes after each item's text, at most the task's `new_tokens`; rows padded on the left.

    ValueError where prompt and answer are longer than the model's context, naming the numbers.
    """
    return continuations(model, tokenizer, [item.text for item in items], batch_size, new_tokens=task.new_tokens)
