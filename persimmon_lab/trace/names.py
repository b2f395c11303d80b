"""What an activation is called: the path of the module that makes it, or `PATH:input` for what the module is given.

A *tap* is a module that is there to be listened to: an `nn.Identity` that the model passes an activation through, such
as `layers.3.self_attn.pattern`. Every other module can be listened to in the same way. Which there are, what the paths
mean and the axes of what is found there says `anatomy.PARTS`.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from persimmon_lab.anatomy import INPUT

Activation = Float[Tensor, "..."]


def matches(path: str, patterns: Iterable[str] | None) -> bool:
    """Whether a path, or its tail from a dot on, matches one of the patterns as file names do; None matches everything.

    "mlp" and "layers.3.mlp" match `model.layers.3.mlp`, "*.mlp.*" what is inside it. The trap: * goes across dots.
    """
    if patterns is None:
        return True
    return any(fnmatchcase(path, pattern) or fnmatchcase(path, f"*.{pattern}") for pattern in patterns)


def pattern_list(patterns: Iterable[str]) -> list[str]:
    """Patterns that can be read twice; one by itself is a list of one. Raises TypeError for what is no text."""
    if not isinstance(patterns, Iterable):
        raise TypeError(f'{patterns!r} is no pattern of names; give a text, such as "layers.3.*", or several in a list')
    listed = [patterns] if isinstance(patterns, str) else list(patterns)
    for pattern in listed:
        if not isinstance(pattern, str):
            raise TypeError(f'{pattern!r} is no pattern of names; give a text, such as "layers.3.*"')
    return listed


def patterns_to_keep(only: Iterable[str] | None) -> list[str] | None:
    """`pattern_list` of what shall be kept, or None for everything. Raises ValueError for an empty list."""
    if only is None:
        return None
    if not (patterns := pattern_list(only)):
        raise ValueError(
            'only is empty, which keeps nothing; name a module, such as "lm_head", or leave it out for all'
        )
    return patterns


def first_tensor(made: Any) -> Activation | None:
    """What a module made: its output, or the first of a tuple; None where that is no tensor of floats."""
    first = made[0] if isinstance(made, tuple) and made else made
    return first if isinstance(first, Tensor) and first.is_floating_point() else None


@dataclass(frozen=True)
class Site:
    """A place where an activation can be seen: what a module makes, or what it is given."""

    path: str
    module: nn.Module
    is_input: bool

    @property
    def name(self) -> str:
        return self.path + INPUT if self.is_input else self.path


def sites(model: nn.Module, patterns: Iterable[str] | None) -> list[Site]:
    """The places that match, in the model's order, a module's input before its output; None gives every output.

    A pattern that ends in ":input" matches inputs. A list of modules has neither. Raises ValueError for a pattern that
    matches nothing.
    """
    modules = [(path, module) for path, module in model.named_modules() if path and _runs(module)]
    if patterns is None:
        return [Site(path, module, is_input=False) for path, module in modules]
    wanted = pattern_list(patterns)
    check_patterns(wanted, [path for path, _ in modules], ending=INPUT)
    inputs = [pattern.removesuffix(INPUT) for pattern in wanted if pattern.endswith(INPUT)]
    outputs = [pattern for pattern in wanted if not pattern.endswith(INPUT)]
    return [
        Site(path, module, is_input)
        for path, module in modules
        for is_input, chosen in ((True, inputs), (False, outputs))
        if matches(path, chosen)
    ]


def check_patterns(patterns: Iterable[str], paths: Sequence[str], what: str = "module", ending: str = "") -> None:
    """Raises ValueError for a pattern that matches none of the paths, with names that look like it.

    `what` says what the paths are of; a pattern may have this `ending`, which no path has.
    """
    for pattern in patterns:
        wanted = pattern.removesuffix(ending)
        if not any(matches(path, [wanted]) for path in paths):
            raise ValueError(f"no {what} matches {pattern!r}; {_known(wanted, paths)}")


def _runs(module: nn.Module) -> bool:
    return not isinstance(module, nn.ModuleList | nn.ModuleDict)


def _known(wanted: str, paths: Sequence[str]) -> str:
    """What to write instead of a pattern without a match: names of as many parts that look like it."""
    if not paths:
        return "there are none"
    parts = wanted.count(".") + 1
    tails = list(dict.fromkeys([*(".".join(path.split(".")[-parts:]) for path in paths), *paths]))
    near = difflib.get_close_matches(wanted, tails, n=3)
    known = f"did you mean {' or '.join(map(repr, near))}?" if near else f"names look like {paths[-1]!r}."
    return f"{known} A pattern is a whole path, or its end after a dot"
