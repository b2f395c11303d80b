"""Running an answer that may never end."""

import contextvars
import ctypes
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")

PATIENCE = 60.0  # seconds that a check may take; all but the longest take less than five
REMINDERS = 20  # how often a thread is told to stop, so many times a second


class OutOfPatience(Exception):
    """What was run took longer than it may."""


class Exited(Exception):
    """What was run tried to leave more than itself: SystemExit, KeyboardInterrupt and their like."""


class _Stop(BaseException):
    """Thrown into a thread that takes too long. No Exception, so that `except Exception` in a loop lets it through."""


def within(seconds: float, function: Callable[[], Result]) -> Result:
    """What a function returns or raises, run in a thread of its own; OutOfPatience if it takes longer, Exited if it
    raises what is no Exception.

    The thread is then told to stop. Python hears that between two steps: a loop ends at once, while a call into C, such
    as a long sleep, is given up on and left to itself. The mode of autograd is the caller's. An interrupt from the
    keyboard stops both.
    """
    results: list[Result] = []
    errors: list[BaseException] = []
    context, with_gradients = contextvars.copy_context(), torch.is_grad_enabled()
    ended = threading.Event()  # asking the thread itself is no good: Python 3.11's is not alive after an interrupt

    def run() -> None:
        try:
            with torch.set_grad_enabled(with_gradients):
                results.append(context.run(function))
        except _Stop:
            pass
        except BaseException as error:  # handed to the caller, whatever it is
            errors.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=run, name="persimmon_lab.checks", daemon=True)
    try:
        thread.start()
        in_time = ended.wait(seconds)
    except BaseException:
        _stop(thread, ended)
        raise
    if not in_time:
        _stop(thread, ended)
        raise OutOfPatience(seconds)
    thread.join()
    for error in errors:
        raise error if isinstance(error, Exception) else Exited(f"{type(error).__name__}: {error}") from error
    return results[0]


def _stop(thread: threading.Thread, ended: threading.Event) -> None:
    """Ask a thread to end, for a second at most; an answer that catches everything hears it several times."""
    until = time.monotonic() + 1.0
    while not ended.is_set() and time.monotonic() < until:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Stop))
        ended.wait(1 / REMINDERS)
    if ended.is_set():
        thread.join(1.0)
