"""What a field of a configuration may hold: a rule each, kept in one place for Python, JSON and the command line."""

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, TypeVar

Configuration = TypeVar("Configuration")


@dataclass(frozen=True)
class Rule:
    """`accepts` says whether a value is right, `expected` what is, and `kept` is the value in Python's own type.

    With `null` None is right as well.
    """

    expected: str
    accepts: Callable[[Any], bool]
    kept: Callable[[Any], Any] = lambda value: value
    null: bool = False


def whole(at_least: int, null: bool = False, note: str = "") -> Rule:
    """A whole number, numpy's too; neither a bool nor 256.0."""
    return Rule(
        f"a whole number, at least {at_least}{note}",
        lambda value: is_whole(value) and bool(value >= at_least),
        int,
        null,
    )


def number(
    low: float = -math.inf, high: float = math.inf, *, above: bool = False, null: bool = False, note: str = ""
) -> Rule:
    """A finite number from `low` (or `above` it) to `high`; neither a bool nor text."""
    if high < math.inf:
        limits = f" above {low:g} and at most {high:g}" if above else f" from {low:g} to {high:g}"
    else:
        limits = "" if low == -math.inf else f" above {low:g}" if above else f", at least {low:g}"

    def accepts(value: Any) -> bool:
        return is_number(value) and bool(low < value if above else low <= value) and bool(value <= high)

    return Rule(
        f"a number{limits}{note}", accepts, lambda value: value if isinstance(value, int) else float(value), null
    )


def flag() -> Rule:
    """True or False, numpy's too; neither 1 nor "false"."""
    return Rule(
        "True or False", lambda value: isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"), bool
    )


def one_of(choices: Sequence[Any], null: bool = False) -> Rule:
    """One of a few values; 1 is not True."""
    return Rule(
        f"one of {', '.join(map(repr, choices))}",
        lambda value: any(type(value) is type(choice) and value == choice for choice in choices),
        null=null,
    )


def instance_of(kind: type, expected: str, null: bool = False) -> Rule:
    return Rule(expected, lambda value: isinstance(value, kind), null=null)


def token_id() -> Rule:
    """One id of the vocabulary, or None."""
    return whole(0, null=True, note=", the id of a token, or None")


def token_ids() -> Rule:
    """One id, a list of them, or None."""

    def accepts(value: Any) -> bool:
        ids = value if isinstance(value, list | tuple) else [value]
        return all(is_whole(item) and item >= 0 for item in ids)

    return Rule(
        "the id of a token, a list of ids, or None",
        accepts,
        lambda value: [int(item) for item in value] if isinstance(value, list | tuple) else int(value),
        null=True,
    )


def parsed(text: str | bytes, **options: Any) -> Any:
    """The value that a JSON text says; `options` are those of json.loads.

    Raises ValueError for any that cannot be read, also by its depth.
    """
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deep to be read") from None


def check_seed(seed: Any) -> None:
    """ValueError for what torch takes no seed from: it has 64 bits, with a sign or without."""
    if not is_whole(seed) or not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed is {seed!r}; give a whole number from -2**63 to 2**64 - 1")


def is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """A finite number of Python or numpy, and no bool."""
    size: Any = abs(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    return bool(size < math.inf)


def shown(value: Any) -> str:
    """A value in an error: on one line, and not long."""
    words = " ".join(repr(value).split())
    return words if len(words) <= 80 else f"{words[:77]}..."


def check_fields(configuration: Any, rules: Mapping[str, Rule], sentence: str) -> None:
    """Check each field that has a rule and keep it in Python's own type.

    Raises ValueError, one line: `sentence` with {name}, {value} and {expected}.
    """
    for name, rule in rules.items():
        value = getattr(configuration, name)
        if value is None and rule.null:
            continue
        if value is None or not rule.accepts(value):
            raise ValueError(sentence.format(name=name, value=shown(value), expected=rule.expected))
        setattr(configuration, name, rule.kept(value))


def prepared_by(
    prepare: Callable[[dict[str, Any]], dict[str, Any]],
) -> Callable[[type[Configuration]], type[Configuration]]:
    """A class decorator: what the constructor is given by name goes through `prepare` first."""

    def decorate(kind: type[Configuration]) -> type[Configuration]:
        construct = kind.__init__

        @functools.wraps(construct)
        def prepared(self: Configuration, *values: Any, **named: Any) -> None:
            construct(self, *values, **prepare(named))

        type.__setattr__(kind, "__init__", prepared)
        return kind

    return decorate
