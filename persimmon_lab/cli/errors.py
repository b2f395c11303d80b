"""Where a command's errors end: told in one to three lines, or traced where `--traceback` asks for it."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import typer
from typer.core import TyperGroup

from persimmon_lab.cli.streams import settle_streams

MOST_LINES = 3
# Which say what to do about them; ImportError, what to install.
MISTAKES = (ValueError, OSError, RuntimeError, FloatingPointError, MemoryError, ImportError)


@runtime_checkable
class UsageError(Protocol):
    """What Typer raises for a command line that makes no sense; its message is empty where help was shown instead."""

    exit_code: int
    ctx: Any

    def format_message(self) -> str:
        """What is wrong with it."""


class ToldErrors(TyperGroup):
    """Commands whose errors are told, not traced. Its callback has an option `traceback`."""

    def parse_args(self, context: Any, arguments: list[str]) -> list[str]:
        with _told(context):
            return super().parse_args(context, arguments)

    def invoke(self, context: Any) -> Any:
        with _told(context), warnings.catch_warnings():
            warnings.showwarning = _tell_warning  # type: ignore[assignment]  # it looks at the message alone
            settle_streams()
            return super().invoke(context)


def _tell_warning(message: Warning | str, *_where: object) -> None:
    """A warning as a line of the command's own, without the place in the code."""
    typer.echo(f"persimmon-lab: {' '.join(str(message).split())}", err=True)


@contextlib.contextmanager
def _told(context: Any) -> Iterator[None]:
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        raise typer.Exit(130) from None  # as a shell reports a program that Ctrl-C ended
    except Exception as error:
        code = error.exit_code if isinstance(error, UsageError) else 1
        if code == 1 and context.params.get("traceback"):  # there is none while the command line is read
            raise
        for line in _lines(error):
            typer.echo(line, err=True)
        raise typer.Exit(code) from None


def _lines(error: Exception) -> list[str]:
    if isinstance(error, UsageError):
        message = " ".join(error.format_message().split())
        hint = f"Try '{error.ctx.command_path} --help'." if error.ctx is not None else "Try 'persimmon-lab --help'."
        return [f"persimmon-lab: {message}", hint] if message else []
    if not isinstance(error, MISTAKES):
        first = next(iter(str(error).splitlines()), "")
        return [
            f"persimmon-lab: {type(error).__name__}: {first}",
            "That is a fault of persimmon-lab itself. To see where it comes from: persimmon-lab --traceback COMMAND …",
        ]
    first, *more = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if 1 + len(more) > MOST_LINES:
        rest = len(more) - MOST_LINES + 2
        more[MOST_LINES - 2 :] = [f"… and {rest} lines more; to see them all: persimmon-lab --traceback COMMAND …"]
    return [f"persimmon-lab: {first}", *more]
