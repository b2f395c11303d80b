"""Who gave what to whom: two are named, one of them gives, so that it can only be given to the other.

The sentence of Wang et al. 2022, "Interpretability in the wild". Held out is the meeting of two held-out names in a
held-out place.
"""

import numpy as np

from persimmon_lab.training.skills.skill import Instance, Skill, begins, data, drawn_until, parted, pick

NAME = "gifts"
HELD_OUT = 0.25  # of the names, and of the places

DATA = data("gifts")
# (all, held out) of each
NAMES, PLACES = (
    (tuple(words), parted(NAME, words, HELD_OUT)[True]) for words in (data("names")["name"], DATA["places"])
)


def meeting_is_held_out(one: str, two: str, place: str) -> bool:
    return {one, two} <= set(NAMES[True]) and place in PLACES[True]


class Gifts(Skill):
    """The group says which of the two was named first: the one who receives, or the one who gives."""

    name = NAME

    def draw(self, generator: np.random.Generator, held_out: bool) -> Instance:
        sides = (NAMES[held_out], NAMES[held_out], PLACES[held_out])
        one, two, place = drawn_until(
            lambda: [pick(generator, side) for side in sides],
            lambda drawn: drawn[0] != drawn[1] and meeting_is_held_out(*drawn) == held_out,
        )
        first_gives = generator.random() < 0.5
        giver, receiver = (one, two) if first_gives else (two, one)
        prompt = pick(generator, DATA["frames"]).format(
            one=one,
            two=two,
            place=place,
            giver=giver,
            verb=pick(generator, DATA["verbs"]),
            object=pick(generator, DATA["objects"]),
        )
        group = "giver first" if first_gives else "receiver first"
        return Instance(prompt, receiver, f" {receiver}", pick(generator, DATA["after"]), group, (giver,))

    def is_right(self, instance: Instance, continuation: str) -> bool:
        """The very next word counts: the text may name anybody afterwards."""
        return begins(continuation, [instance.answer])
