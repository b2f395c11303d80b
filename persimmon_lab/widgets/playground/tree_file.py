"""What a tree of texts is in a file, and a check of one that anybody may have written, before any of it is used."""

import math
from collections.abc import Callable
from typing import Any, NoReturn

from persimmon_lab.field_checks import parsed

FORMAT, VERSION = "persimmon-lab branches", 1
SLACK = 1e-6  # sums of float32 may be so much below 0 or above 1

Rule = tuple[str, Callable[[Any], bool]]  # what a value should be, in words and as a question


def checked(text: str) -> dict[str, Any]:
    """The tree as JSON has it, with every name and every value as it should be: "model" (None where the file says
    none) and "branches". ValueError, which says what is wrong and where, for any other text."""
    try:
        stored = parsed(text)
    except ValueError as error:
        raise ValueError(f"this is no tree of texts: it cannot be read as JSON ({error})") from None
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise ValueError(f"this is no tree of texts: its format should be {FORMAT!r}")
    if "version" not in stored:
        raise ValueError(f"the tree does not say its version; this playground reads version {VERSION}")
    if type(stored["version"]) is not int or stored["version"] != VERSION:
        raise ValueError(f"the tree has version {stored['version']!r}, and this playground reads version {VERSION}")
    tree = _check("the tree", {"model": stored.get("model"), "branches": stored.get("branches")}, TREE)
    for number, branch in enumerate(tree["branches"], start=1):
        place = f"branch {number} of the file"
        _check(place, branch, BRANCH)
        _check(f"the settings of {place}", branch["settings"], SETTINGS)
        for index, token in enumerate(branch["tokens"]):
            _check(f"token {index} of {place}", token, TOKEN)
    return tree


def _check(place: str, entry: object, rules: dict[str, Rule]) -> dict[str, Any]:
    """The entry, if it has these names and no others, and their values are as the rules say."""
    if not isinstance(entry, dict):
        _refuse(place, "should be an object with " + ", ".join(rules), entry)
    for name in rules:
        if name not in entry:
            raise ValueError(f"{place} has no {name}")
    for name, value in entry.items():
        if name not in rules:
            raise ValueError(f"{place} has {name!r}, which is not one of {', '.join(rules)}")
        words, is_right = rules[name]
        if not is_right(value):
            _refuse(place, f"should have {words} as its {name}", value)
    return entry


def _refuse(place: str, should: str, value: object) -> NoReturn:
    said = repr(value)
    raise ValueError(f"{place} {should}, and has {said if len(said) <= 60 else said[:59] + '…'}")


def _whole(least: int) -> Rule:
    return f"a whole number from {least} on", lambda value: type(value) is int and value >= least


def _number(most: float = math.inf, slack: float = 0.0) -> Rule:
    words = "a number from 0 on" if most == math.inf else f"a number from 0 to {most:g}"
    low, high = -slack, most + slack
    return words, lambda value: type(value) in (int, float) and math.isfinite(value) and low <= value <= high


def _or_none(rule: Rule) -> Rule:
    words, is_right = rule
    return f"{words} or null", lambda value: value is None or is_right(value)


def _is_text(value: object) -> bool:
    """Half of a surrogate pair is none: it can be neither shown nor saved."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


TEXT: Rule = ("a text", _is_text)
TRUTH: Rule = ("true or false", lambda value: isinstance(value, bool))
TREE: dict[str, Rule] = {
    "branches": ("a list of at least one branch", lambda value: isinstance(value, list) and bool(value)),
    "model": _or_none(TEXT),
}
BRANCH: dict[str, Rule] = {
    "number": _whole(1),
    "name": TEXT,
    "parent": _or_none(_whole(1)),
    "fork": _whole(0),
    "forced": TRUTH,
    "stopped": TRUTH,
    "settings": ("an object", lambda value: isinstance(value, dict)),
    "tokens": ("a list of tokens", lambda value: isinstance(value, list)),
}
SETTINGS: dict[str, Rule] = {
    "prompt": TEXT,
    "chat": TRUTH,
    "temperature": _number(),
    "top_k": _whole(0),
    "top_p": _number(1.0),
    "min_p": _number(1.0),
    "max_new_tokens": _whole(1),
    "seed": _whole(0),
}
TOKEN: dict[str, Rule] = {
    "token_id": _whole(0),
    "text": TEXT,
    "piece": TEXT,
    "probability": _number(1.0, SLACK),
    "rank": _whole(1),
    "entropy_bits": _number(math.inf, SLACK),
}
