"""Closing what was opened: brackets and quotations, up to four deep, in text and in code.

A prompt ends where nothing but closings can follow, in text after a mark that ends what is said innermost; they are
the answer, all of them and in their order. Held out are prompts.
"""

import numpy as np

from persimmon_lab.training.skills.skill import Instance, Skill, data, drawn_until, first_line, is_held_out, pick

NAME = "brackets"
HELD_OUT = 0.1
DEEPEST = 4
ENDS = "!?."  # one of these ends what is said innermost in text
CLOSING = {"(": ")", "[": "]", "{": "}", '"': '"', "'": "'"}

DATA = data("brackets")


def text(generator: np.random.Generator, depth: int) -> tuple[str, str, str]:
    """(prompt, closings, what follows): a sentence with one thing in another, a quotation in a quotation in the other
    kind of mark."""
    words = DATA["text"]
    prompt, closings = pick(generator, words["starts"]), ""
    # Nothing is said twice: each piece comes from a pack that is dealt.
    packs = {part: iter(generator.permutation(words[part]).tolist()) for part in ("bracket", "quote", "quoted")}
    for _ in range(depth):
        if generator.random() < 0.6:
            opening = "("
            prompt += f" ({next(packs['bracket'])}"
        else:
            opening = "'" if closings.strip(")").startswith('"') else '"'
            prompt += f" {next(packs['quote'])} {opening}{next(packs['quoted'])}"
        closings = CLOSING[opening] + closings
    return prompt + pick(generator, ENDS), closings, pick(generator, words["after"])


def code(generator: np.random.Generator, depth: int) -> tuple[str, str, str]:
    """(prompt, closings, what follows): a line of Python, its innermost a number or a string.

    These stand nowhere else, and no number begins another: after a name a bracket could open, or a comma come, and
    nobody could tell how deep it should go.
    """
    words = DATA["code"]
    prompt, after = pick(generator, words["frames"])
    closings = ")" if prompt.endswith("(") else ""
    while len(closings) < depth:
        if len(closings) == depth - 1 and generator.random() < 0.25:
            mark = pick(generator, ('"', "'"))
            return f"{prompt}{mark}{pick(generator, words['strings'])}", mark + closings, after
        opening = pick(generator, ("call", "call", "(", "[", "index", "{"))
        if opening == "call":
            opening = f"{pick(generator, words['functions'])}("
        elif opening == "index":
            opening = f"{pick(generator, words['names'])}["
        prompt += opening
        closings = CLOSING[opening[-1]] + closings
        if opening == "{":
            prompt += f'"{pick(generator, words["names"])}": '
        elif opening[0] in "([" or (opening[-1] == "(" and generator.random() < 0.4):
            prompt += f"{pick(generator, words['names'])}, "
    return prompt + pick(generator, words["numbers"]), closings, after


class Brackets(Skill):
    """The group is the kind and the depth: "text 1" to "code 4"."""

    name = NAME

    def draw(self, generator: np.random.Generator, held_out: bool) -> Instance:
        kind, depth = pick(generator, (text, code)), int(generator.integers(1, DEEPEST + 1))
        prompt, closings, after = drawn_until(
            lambda: kind(generator, depth), lambda drawn: is_held_out(NAME, drawn[0].rstrip(ENDS), HELD_OUT) == held_out
        )
        return Instance(prompt, closings, closings, after, f"{kind.__name__} {depth}")

    def is_right(self, instance: Instance, continuation: str) -> bool:
        """Exactly these closings and then something else; a space before them would open what follows."""
        rest = first_line(continuation)
        return rest.startswith(instance.answer) and rest[len(instance.answer) :][:1] not in {*CLOSING.values()}
