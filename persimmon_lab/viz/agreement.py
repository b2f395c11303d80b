"""Whether labels, marks and numbers belong together. A figure that draws them all the same is wrong without a word."""

from collections.abc import Collection, Iterable, Mapping, Sized

from torch import Tensor

from persimmon_lab.viz.signs import counted


def check_labels(name: str, labels: Sized, **counts: int) -> None:
    """ValueError unless there is one label for each of what `counts` counts, by its noun: `check_labels("token", words,
    query=24, key=24)`. The error names both lengths."""
    if any(count != len(labels) for count in counts.values()):
        there = " and ".join(counted(count, noun.replace("_", " ")) for noun, count in counts.items())
        raise ValueError(f"{counted(len(labels), name)} for {there}: there has to be one for each; cut the two alike")


def check_curves(name: str, x: Sized, curves: Mapping[str, Sized]) -> None:
    """ValueError unless each curve has as many numbers as `x`, which counts `name`s; the error names both lengths."""
    for curve, values in curves.items():
        if len(values) != len(x):
            raise ValueError(f"{curve!r} has {counted(len(values), 'number')} for {counted(len(x), name)}")


def check_shapes(**tensors: Tensor) -> None:
    """ValueError unless all have one shape; the error names each."""
    if len({tuple(tensor.shape) for tensor in tensors.values()}) > 1:
        shapes = " and ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"shapes differ that should be one: {shapes}; cut them alike")


def check_marks(marks: Iterable[int | tuple[int, ...]], **counts: int) -> None:
    """ValueError unless every mark, a number for each of what `counts` counts, is on something that there is.

    `check_marks([(3, 7)], layer=8, head=8)`; what is counted starts at 0, and nothing is counted from the end.
    """
    for mark in marks:
        index = mark if isinstance(mark, tuple) else (mark,)
        if len(index) != len(counts) or not all(0 <= number < count for number, count in zip(index, counts.values())):
            there = " and ".join(counted(count, noun.replace("_", " ")) for noun, count in counts.items())
            raise ValueError(
                f"{' '.join(counts).replace('_', ' ')} {mark} is marked, but there are {there}, counted from 0"
            )


def check_names(role: str, names: Iterable[str], known: Collection[str]) -> None:
    """ValueError unless every name of that role, such as "ending", is one of the known."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"{counted(len(unknown), role)} without a place: {', '.join(map(repr, unknown))}; "
            f"there are {', '.join(map(repr, known)) or 'none'}"
        )
