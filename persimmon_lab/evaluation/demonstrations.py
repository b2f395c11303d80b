"""Few-shot prompts: what stands before a question to show how such questions are answered, in the format of a chat."""

import dataclasses
from collections.abc import Sequence

from persimmon_lab.evaluation.items import Item, Task
from persimmon_lab.tokenizer import PersimmonTokenizer

GAP = "\n\n"  # between turns of a chat, and between plain texts
DRAWN = 40  # examples drawn for each that is shown: of some tasks few have the form that is needed


def with_demonstrations(
    items: Sequence[Item], task: Task, tokenizer: PersimmonTokenizer, *, shots: int, seed: int, room: int
) -> list[Item]:
    """The items with `shots` of the task's examples before each, answered, an empty line between: a chat goes on from
    answer to question, plain text from one to the next. A chat is shown chats, and plain text plain text.

    All items see the same examples, and none that is asked. Where prompt, examples and answer would be more than `room`
    tokens, the item gets as many examples as fit: `Item.shots` says how many.

    ValueError where the task has no such examples left.
    """
    if shots == 0:
        return list(items)
    asked = {item.prompt for item in items}
    drawn = [example for example in task.examples(DRAWN * shots, seed) if example.prompt not in asked]
    shown = {form: [example for example in drawn if is_chat(example) == form][:shots] for form in (True, False)}
    return [_shown(item, shown[is_chat(item)], shots, tokenizer, room - task.new_tokens) for item in items]


def is_chat(item: Item) -> bool:
    """Whether the prompt is in the chat format."""
    return item.prompt.startswith("human:")


def _shown(item: Item, examples: Sequence[Item], shots: int, tokenizer: PersimmonTokenizer, room: int) -> Item:
    if len(examples) < shots:
        raise ValueError(
            f"{item.task} has {len(examples)} examples of the form that item {item.number} needs, and {shots} shots "
            "were asked for; ask for fewer shots, or fewer items where examples are the lines that are not asked"
        )
    for count in range(shots, -1, -1):
        context = "".join(example.prompt + example.said + example.after + GAP for example in examples[:count])
        if count == 0 or len(tokenizer.encode(context + item.prompt)) + _longest(item, tokenizer) <= room:
            break
    return dataclasses.replace(item, context=context, shots=count)


def _longest(item: Item, tokenizer: PersimmonTokenizer) -> int:
    """Tokens of the longest choice beyond what an answer may have anyway: usually none."""
    return max((len(tokenizer.encode(choice, add_special_tokens=False)) for choice in item.choices), default=0)
