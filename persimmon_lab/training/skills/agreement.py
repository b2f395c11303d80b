"""A verb that agrees with its subject, whatever stands between the two: the keys to the cabinet are.

Held out are nouns as subjects. A held-out prompt ends with an adverb, so that nothing but the verb can follow: after
"the key" alone the subject may go on, or turn out to be keys.
"""

import numpy as np

from persimmon_lab.training.skills.skill import Instance, Skill, begins, data, drawn_until, is_held_out, pick
from persimmon_lab.training.skills.words import plural

NAME = "agreement"
HELD_OUT = 0.2
BE, HAVE = (("is", "are"), ("was", "were")), (("has", "have"),)
ADVERBS = ("now", "still", "probably", "really", "certainly", "perhaps", "clearly", "always")
FORMS = tuple(zip(*BE, *HAVE))  # singular, plural

DATA = data("agreement")
SUBJECTS = tuple((family, head) for family in DATA["family"] for head in family["heads"])


class Agreement(Skill):
    """Groups: alone, same number, opposite number: that of the noun before the verb, beside the subject's."""

    name = NAME

    def draw(self, generator: np.random.Generator, held_out: bool) -> Instance:
        family, head = drawn_until(
            lambda: pick(generator, SUBJECTS), lambda subject: is_held_out(NAME, subject[1], HELD_OUT) == held_out
        )
        many, group = int(generator.integers(2)), "alone"
        words = ["the", plural(head) if many else head]
        for noun in generator.choice(family["between"], size=int(generator.integers(3)), replace=False):
            number = int(generator.integers(2))
            words += [pick(generator, family["prepositions"]), "the", plural(str(noun)) if number else str(noun)]
            group = "same number" if number == many else "opposite number"
        if held_out or generator.random() < 0.5:
            words.append(pick(generator, ADVERBS))
        prompt = pick(generator, DATA["intros"]) + " ".join(words)
        verb, predicates = pick(generator, [(form, "be") for form in BE] + [(form, "have") for form in HAVE])
        after = f" {pick(generator, family[predicates])}"
        answer = verb[many]
        return Instance(prompt[0].upper() + prompt[1:], answer, f" {answer}", after, group, FORMS[1 - many])

    def is_right(self, instance: Instance, continuation: str) -> bool:
        """The next word is a verb of the subject's number: which of the three is a matter of taste."""
        return begins(continuation, next(forms for forms in FORMS if instance.answer in forms))
