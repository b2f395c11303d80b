"""`persimmon-lab`: write text, chat, look into checkpoints, convert them, train the shipped model, check the machine.

Answers go to the standard output and everything else to the standard error, so that output can be piped. A mistake is
told in one line: exit code 2 for a command line that makes no sense, 1 for anything that went wrong after it.
"""

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from persimmon_lab.cli import chat, convert, doctor, generate, inspect, train


class OneLineErrors(TyperGroup):
    """Commands whose errors are told, not traced. What is no mistake of the user's still shows its traceback."""

    def invoke(self, context: Any) -> Any:
        # A terminal that cannot show a character shows a question mark instead of ending the program.
        for output in (sys.stdout, sys.stderr):
            output.reconfigure(errors="replace")
        try:
            return super().invoke(context)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            raise typer.Exit(130) from None  # as a shell reports a program that Ctrl-C ended
        except (ValueError, OSError, RuntimeError, FloatingPointError, MemoryError) as error:
            typer.echo(f"persimmon-lab: {error or type(error).__name__}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    help="Write text with Persimmon models, look into them, convert them, train the small one, and see what fits here.",
)
app.command()(generate.generate)
app.command()(chat.chat)
app.command()(inspect.inspect)
app.command()(convert.convert)
app.command()(convert.export)
app.add_typer(train.train, name="train")
app.command()(doctor.doctor)
