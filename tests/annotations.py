"""The checker of annotations that the tests put around every function of the package."""

from typing import Any, Self, get_args

from beartype import beartype


def checked(function: Any) -> Any:
    """beartype's, which checks a function outside of its class and so does not know what `Self` is there."""
    annotations = getattr(function, "__annotations__", {})
    for name, hint in annotations.items():
        if hint is Self or Self in get_args(hint):
            annotations[name] = Any
    return beartype(function)
