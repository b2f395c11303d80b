"""Marking an answer: run it on cases, compare it with a reference, and recognise the mistakes that people make."""

import inspect
import numbers as kinds
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from persimmon_lab.checks import patience
from persimmon_lab.dtypes import dtype_name
from persimmon_lab.numerics.tolerances import ANSWERS

LONGEST = 120  # characters of a value that a message quotes
ROUNDINGS = 32  # half-precision steps that a computation in half precision may be off by

Case = dict[str, Any]  # what an answer is given, by the names of its parameters
Answer = TypeVar("Answer", bound=Callable[..., object])
Outcome = TypeVar("Outcome")


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

    def __call__(self, answer: Callable[..., object]) -> Verdict:
        return verdict(self._check, answer, self.praise)

    def _check(self, answer: Callable[..., object]) -> None:
        cases = list(self.cases())
        rights = [self.reference(**case) for case in cases]
        values = [attempt(answer, case, right.shape, finite=False) for case, right in zip(cases, rights)]
        wrong = [pair for pair in zip(values, rights) if not agree(*pair)]
        if not wrong:
            return
        for message, mistake in self.mistakes.items():
            if all(agree(value, mistake(**case)) for value, case in zip(values, cases)):
                raise Wrong(message)
        for value in values:
            _require_finite(value)
        value, right = wrong[0]
        difference = (value.double() - right.double()).abs()
        worst = torch.unravel_index(difference.argmax(), difference.shape)
        place = "".join(f"{axis} {int(index)}, " for axis, index in zip(self.axes[-len(worst) :], worst))
        raise Wrong(
            f"the shape is right, the numbers are not, in {len(wrong)} of {len(cases)} cases; for example "
            f"{place}the answer is {value[worst]:.6g} and should be {right[worst]:.6g}: {distance(value, right)}"
        )


def verdict(
    check: Callable[[Answer], Outcome],
    answer: Answer,
    praise: str | Callable[[Outcome], str],
    seconds: float | None = None,
) -> Verdict:
    """Run a check that raises Wrong or Unanswered, and say how it went; praise may be made from what it returns.

    Whatever the answer does, this returns: one that takes longer than `seconds` (`patience.PATIENCE` unless given) is
    interrupted, and what nobody foresaw is told as well. Only an interrupt from the keyboard goes through.
    """
    limit = patience.PATIENCE if seconds is None else seconds
    try:
        if not callable(answer):
            raise Wrong(f"a check takes the function itself, without calling it, and was given {brief(answer)}")
        outcome = patience.within(limit, lambda: check(answer))
    except Unanswered:
        return Verdict(False, "○ not answered yet: replace the ... in the cell above, run it, then run this one again")
    except Wrong as wrong:
        return Verdict(False, f"✗ not yet: {wrong}")
    except patience.OutOfPatience:
        return Verdict(False, f"✗ not yet: it was given up on after {limit:g} seconds; does every loop come to an end?")
    except patience.Exited as error:
        return Verdict(False, f"✗ not yet: it stopped with {error}; an answer returns, it does not exit")
    except Exception as error:
        return Verdict(False, f"✗ not yet: what it does cannot be marked ({type(error).__name__}: {error})")
    return Verdict(True, f"✓ right: {praise if isinstance(praise, str) else praise(outcome)}")


def call(answer: Callable[..., object], *given: object, **named: object) -> object:
    """What an answer returns, if anything. It may write into the tensors that it is given: they are copies.

    What is named is passed by name to a function that has these names, and in this order to one that has others.
    """
    try:
        result = invoke(answer, *map(copied, given), **{name: copied(value) for name, value in named.items()})
    except Wrong:  # from what it was given to call
        raise
    except (SystemExit, KeyboardInterrupt) as error:
        raise Wrong(f"it stopped with {type(error).__name__}; an answer returns, it does not exit") from error
    except Exception as error:
        told = ", ".join([*map(brief, given), *(f"{name} {brief(value)}" for name, value in named.items())])
        raise Wrong(f"it stopped with {type(error).__name__}: {error} (given {told})") from error
    if result is None or result is Ellipsis:
        raise Unanswered
    return result


def invoke(answer: Callable[..., object], *given: object, **named: object) -> object:
    """Call a function with named values: by name if it has these names, in this order if it has others."""
    if not named:
        return answer(*given)
    try:
        signature = inspect.signature(answer)
    except (TypeError, ValueError):  # some that are written in C have none
        return answer(*given, *named.values())
    if _fits(signature, *given, **named):
        return answer(*given, **named)
    if _fits(signature, *given, *named.values()):
        return answer(*given, *named.values())
    raise Wrong(f"it takes {signature}, and is given ({', '.join(named)})")


def _fits(signature: inspect.Signature, *given: object, **named: object) -> bool:
    try:
        signature.bind(*given, **named)
    except TypeError:
        return False
    return True


def attempt(
    answer: Callable[..., object], case: Mapping[str, object], shape: torch.Size, finite: bool = True
) -> Tensor:
    """The answer's result on one case, if it is a tensor of the right shape; a finite one, unless told otherwise."""
    result = _tensor_of(call(answer, **case), shape)
    if finite:
        _require_finite(result)
    return result


def _require_finite(result: Tensor) -> None:
    if not result.isfinite().all():
        ending = "; float16 ends at 65,504" if result.dtype == torch.float16 and result.isinf().any() else ""
        raise Wrong(f"it returned numbers that are not finite (inf or nan){ending}")


def _tensor_of(result: object, shape: torch.Size) -> Tensor:
    """What was returned, as a dense tensor of real numbers that no gradient hangs on; a single number may be anything
    that is one. Raises Wrong if it is none, or of another shape."""
    if shape == () and (
        isinstance(result, kinds.Real | np.bool_) or (isinstance(result, np.ndarray) and result.ndim == 0)
    ):
        result = torch.tensor(float(result), dtype=torch.float64)
    if not isinstance(result, Tensor):
        raise Wrong(f"it returned a {type(result).__name__}; return a tensor of shape {tuple(shape)}")
    if result.is_nested or result.is_complex():
        kind = "nested tensor" if result.is_nested else "tensor of complex numbers"
        raise Wrong(f"it returned a {kind}; return a tensor of real numbers of shape {tuple(shape)}")
    if result.shape != shape:
        raise Wrong(f"it returned the shape {tuple(result.shape)}; expected {tuple(shape)}")
    if result.is_meta:
        raise Wrong("it returned a tensor on the meta device, which has a shape and no numbers")
    result = result.detach().cpu()
    result = result if result.layout == torch.strided else result.to_dense()
    result = result.dequantize() if result.is_quantized else result
    return result.float() if result.dtype == torch.bool else result


def agree(value: Tensor, right: Tensor) -> bool:
    return torch.allclose(value.double(), right.double(), rtol=ANSWERS, atol=ANSWERS)


def distance(value: Tensor, right: Tensor) -> str:
    """How far off numbers are, and half precision by its name where it explains that."""
    worst, largest = (float(tensor.abs().max()) for tensor in (value.double() - right.double(), right.double()))
    told = f"off by up to {worst:.2g}, among numbers up to {largest:.2g}"
    for dtype in (torch.bfloat16, torch.float16):  # what bfloat16 holds, float16 holds as well
        rounded = torch.equal(value.double(), value.to(dtype).double())
        exact = torch.equal(right.double(), right.to(dtype).double())
        if rounded and not exact and worst <= ROUNDINGS * torch.finfo(dtype).eps * largest:
            name = dtype_name(dtype)
            return f"{told}, as {name} rounds; compute in the dtype of what you are given"
    return told


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
