"""What comes next and what came before: days, months, letters, numbers.

Held out is an item with a direction, in every phrasing of the question. Recitations, in both directions, are only
training and hold nothing back: from them the answer to a held-out question can be found, and an answer begins as they
do, with the item that was asked about. A list to be continued could be remembered from a recitation word for word, so
lists are a group of their own.
"""

from string import ascii_uppercase

import numpy as np

from persimmon_lab.training.skills.skill import Instance, Skill, asked, begins, drawn_until, parted, pick, says

NAME = "sequences"
HELD_OUT = 0.2
RECITATIONS = 0.3  # of what is taught
LISTS = (0.5, 0.25)  # of the rest of what is taught, and of what is held out: lists are harder than questions
CHATS = 0.65  # of the lists that are taught stand in a chat; of those held out every other one
SHORTEST, LONGEST = 2, 26  # items of a recitation

ITEMS = {
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "month": ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
              "November", "December"),
    "letter": tuple(ascii_uppercase),
    "number": tuple(map(str, range(1, 100))),
}  # fmt: skip
ROUND = {"day", "month"}  # after the last comes the first
WORDS = {"A", "I"}  # letters that are words too: nobody can tell whether they were the answer
WAYS = {"after": 1, "before": -1}
OTHER_WAY = {"after": "before", "before": "after"}

ASKS = (
    "What comes {way} {item}?", "What {kind} comes {way} {item}?", "Which {kind} is {way} {item}?",
    "What is the {kind} {way} {item}?", "Which {kind} comes right {way} {item}?", "Tell me the {kind} {way} {item}.",
    "What's the {kind} {way} {item}?", "Do you know which {kind} comes {way} {item}?",
)  # fmt: skip
SAID = "{told}: {item}, {key}. So it's {key}."
TOLD = {"after": "Forwards", "before": "Backwards"}  # how an answer and a recitation begin
LIST_ASKS = ("{items},", "What comes next: {items}?", "How does this go on: {items}?", "Please go on: {items}")
MORE_LIST_ASKS = ("What is next: {items}?", "Go on: {items}", "Continue: {items}", "Say the next one: {items}")
LISTED = ", listed"

# Recitations of the whole, and of a part; {way} is "" or " backwards".
ALL = {
    "day": ("Name the days of the week{way}.", "What are the days of the week{way}?", "Say all the days{way}."),
    "month": ("Name the months of the year{way}.", "What are the months{way}?", "Say the twelve months{way}."),
    "letter": ("Say the alphabet{way}.", "Tell me the whole alphabet{way}.", "What are the letters{way}?"),
}
ALL_TOLD = {
    "day": "The days of the week{way} are",
    "month": "The months of the year{way} are",
    "letter": "The alphabet{way} goes",
}
PARTS = {
    "after": ("Say the {kind}s from {first} to {last}.", "Which {kind}s are there from {first} to {last}?"),
    "before": ("Say the {kind}s from {first} back to {last}.", "Go back from {first} to {last}, please."),
}
COUNTS = {
    "after": (
        "Count from {first} to {last}.",
        "Can you count from {first} to {last}?",
        "Count up to {last} from {first}.",
    ),
    "before": ("Count down from {first} to {last}.", "Count backwards from {first} to {last}."),
}
PART_TOLD = {"after": "From {first} to {last} it goes", "before": "From {first} back to {last} it goes"}


def neighbour(kind: str, item: str, way: str) -> str | None:
    """The item after or before this one; None where there is none."""
    items = ITEMS[kind]
    index = items.index(item) + WAYS[way]
    return items[index % len(items)] if kind in ROUND or 0 <= index < len(items) else None


# The answers of each kind to questions, as "way item"; of the questions (taught, held out).
ANSWERS = {
    kind: {
        f"{way} {item}": answer
        for item in ITEMS[kind]
        for way in WAYS
        if (answer := neighbour(kind, item, way)) is not None and answer not in WORDS
    }
    for kind in ITEMS
}
QUESTIONS = {kind: parted(NAME, answers, HELD_OUT) for kind, answers in ANSWERS.items()}


def run(kind: str, first: str, way: str, count: int) -> list[str]:
    """An item and those that follow it on the way, `count` in all or until there are no more."""
    items = [first]
    while len(items) < count and (item := neighbour(kind, items[-1], way)):
        items.append(item)
    return items


class Sequences(Skill):
    """Groups: "day", "day, listed" and so on; in training also "recited"."""

    name = NAME

    def draw(self, generator: np.random.Generator, held_out: bool) -> Instance:
        kind = pick(generator, tuple(ITEMS))
        if not held_out and generator.random() < RECITATIONS:
            return _recitation(kind, generator)
        question = pick(generator, QUESTIONS[kind][held_out])
        key = ANSWERS[kind][question]
        way, item = question.split()
        wrong = tuple(other for other in ITEMS[kind] if other not in {key, item, *WORDS})
        before = run(kind, item, OTHER_WAY[way], int(generator.integers(3, 6)))[::-1]
        if len(before) > 2 and generator.random() < LISTS[held_out]:
            return _list(kind, before, key, way, generator, held_out)
        values = {"kind": kind, "way": way, "item": item, "key": key, "told": TOLD[way]}
        prompt = asked(pick(generator, ASKS).format(**values), generator, held_out)
        return Instance(prompt, key, f" {SAID.format(**values)}", group=kind, wrong=wrong)

    def is_right(self, instance: Instance, continuation: str) -> bool:
        """A list may go on after its next item; an answer to a question names no other than the one asked about."""
        if instance.group.endswith(LISTED):
            return begins(continuation, [instance.answer])
        return says(instance, continuation)


def _list(kind: str, items: list[str], key: str, way: str, generator: np.random.Generator, held_out: bool) -> Instance:
    """Three to five items and the next one: in a chat, or plain, where a few more may follow."""
    group = kind + LISTED
    if generator.random() < (0.5 if held_out else CHATS):
        question = pick(generator, LIST_ASKS if held_out else LIST_ASKS + MORE_LIST_ASKS).format(items=", ".join(items))
        return Instance(asked(question, generator, held_out), key, f" {key}.", group=group)
    more = run(kind, key, way, int(generator.integers(1, 5)))[1:]
    after = "".join(f", {item}" for item in more) + "."
    return Instance(f"{', '.join(items)},", key, f" {key}", after, group=group)


def _recitation(kind: str, generator: np.random.Generator) -> Instance:
    """All or a part of a sequence, forwards or backwards, asked for in a chat or told as a sentence."""
    way = pick(generator, tuple(WAYS))
    backwards = " backwards" if way == "before" else ""
    if kind in ALL and generator.random() < 0.5:
        items = list(ITEMS[kind])[:: WAYS[way]]
        asks: tuple[str, ...] = ALL[kind]
        told = ALL_TOLD[kind]
    else:
        most = min(int(generator.integers(SHORTEST, LONGEST + 1)), len(ITEMS[kind]))
        items = drawn_until(
            lambda: run(kind, pick(generator, ITEMS[kind]), way, most), lambda drawn: len(drawn) >= SHORTEST
        )
        asks, told = (COUNTS if kind == "number" else PARTS)[way], PART_TOLD[way]
    values = {"kind": kind, "way": backwards, "first": items[0], "last": items[-1]}
    listed = ", ".join(items)
    if generator.random() < 0.3:
        return Instance(told.format(**values), listed, f" {listed}", ".", group="recited")
    question = asked(pick(generator, asks).format(**values), generator, False)
    return Instance(question, listed, f" {TOLD[way]}: {listed}.", group="recited")
