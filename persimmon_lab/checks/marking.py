"""Marking an answer: run it on cases, compare it with a reference, and recognise the mistakes that people make."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

TOLERANCE = 1e-4  # float32 phases of a few hundred radians; a wrong answer is off by far more
LONGEST = 120  # characters of a value that a message quotes


@dataclass(frozen=True)
class Verdict:
    """What a check found. It shows itself as one line and is true when the answer is right; it never raises, so that
    running a whole notebook does not stop at an exercise that is still open."""

    passed: bool
    message: str

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return self.message


class Wrong(Exception):
    """Why an answer is not right yet, told to the person who wrote it."""


class Unanswered(Exception):
    """The answer is still the stub of the exercise: it returns None."""


@dataclass(frozen=True)
class Exercise:
    """An exercise whose answer is a function from tensors to a tensor. Call it with an answer to get a Verdict.

    `mistakes` maps what to tell the reader to a function that makes this mistake: an answer that is wrong and agrees
    with the function on every case is told so. `axes` names the axes of the result, for messages.
    """

    reference: Callable[..., Tensor]
    cases: Callable[[], Iterable[Mapping[str, object]]]
    axes: tuple[str, ...]
    praise: str
    mistakes: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)

    def __call__(self, answer: Callable[..., Tensor]) -> Verdict:
        return verdict(self._check, answer, self.praise)

    def _check(self, answer: Callable[..., Tensor]) -> None:
        cases = list(self.cases())
        expected = [self.reference(**case) for case in cases]
        given = [attempt(answer, case, right.shape) for case, right in zip(cases, expected)]
        if all(map(agree, given, expected)):
            return
        for message, mistake in self.mistakes.items():
            if all(agree(value, mistake(**case)) for value, case in zip(given, cases)):
                raise Wrong(message)
        count = sum(not agree(value, right) for value, right in zip(given, expected))
        value, right = next(pair for pair in zip(given, expected) if not agree(*pair))
        difference = (value - right).abs()
        worst = torch.unravel_index(difference.argmax(), difference.shape)
        place = "".join(f"{axis} {int(index)}, " for axis, index in zip(self.axes[-len(worst) :], worst))
        raise Wrong(
            f"the shape is right, the numbers are not, in {count} of {len(cases)} cases; for example "
            f"{place}the answer is {value[worst]:.4f} and should be {right[worst]:.4f}"
        )


def verdict(check: Callable[[Callable], object], answer: Callable, praise: str | Callable[..., str]) -> Verdict:
    """Run a check that raises Wrong or Unanswered, and say how it went; praise may be made from what it returns."""
    try:
        found = check(answer)
    except Unanswered:
        return Verdict(False, "○ not answered yet: replace the ... in the cell above, run it, then run this one again")
    except Wrong as wrong:
        return Verdict(False, f"✗ not yet: {wrong}")
    return Verdict(True, f"✓ right: {praise if isinstance(praise, str) else praise(found)}")


def call(answer: Callable, *given: object, **named: object) -> object:
    """What an answer returns, if anything. It may write into the tensors that it is given: they are copies."""
    try:
        result = answer(*map(copied, given), **{name: copied(value) for name, value in named.items()})
    except Wrong:  # from what it was given to call
        raise
    except Exception as error:
        told = ", ".join([*map(brief, given), *(f"{name} {brief(value)}" for name, value in named.items())])
        raise Wrong(f"it stopped with {type(error).__name__}: {error} (given {told})") from error
    if result is None or result is Ellipsis:
        raise Unanswered
    return result


def attempt(answer: Callable[..., Tensor], case: Mapping[str, object], shape: torch.Size) -> Tensor:
    """The answer's result on one case, if it is a finite tensor of the right shape."""
    result = call(answer, **case)
    if isinstance(result, int | float):
        result = torch.tensor(float(result))
    if not isinstance(result, Tensor):
        raise Wrong(f"it returned a {type(result).__name__}; return a tensor of shape {tuple(shape)}")
    if result.shape != shape:
        raise Wrong(f"it returned the shape {tuple(result.shape)}; expected {tuple(shape)}")
    if not result.isfinite().all():
        raise Wrong("it returned numbers that are not finite (inf or nan)")
    return result


def agree(value: Tensor, right: Tensor) -> bool:
    return torch.allclose(value.double(), right.double(), rtol=TOLERANCE, atol=TOLERANCE)


def copied(value: object) -> object:
    """The same with tensors of its own, also those in a list or a tuple."""
    if isinstance(value, list | tuple):
        return type(value)(map(copied, value))
    return value.clone() if isinstance(value, Tensor) else value


def brief(value: object) -> str:
    """A value as a message shows it: a tensor by its shape, a model or a function by what it is, what is long cut."""
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    if isinstance(value, list | tuple):
        text = f"[{', '.join(map(brief, value))}]"
    else:
        text = str(value)
    if isinstance(value, nn.Module) or " at 0x" in text:  # an address says nothing
        return f"a {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def numbers(seed: int) -> Callable[..., Tensor]:
    """Normal random tensors of any shape, one after the other from one seed."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator)
