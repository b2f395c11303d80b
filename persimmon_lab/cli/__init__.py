"""`persimmon-lab`: write text, chat, look into checkpoints, convert them, train the shipped model, check the machine.

Answers go to the standard output and everything else to the standard error, so that output can be piped. A mistake is
told in one to three lines, and traced with `persimmon-lab --traceback`: exit code 2 for a command line that makes no
sense, 1 for anything that went wrong after it.
"""

from typing import Annotated, Any

import typer

from persimmon_lab.cli import chat, classify, convert, doctor, evaluate, finetune, generate, inspect, score, train
from persimmon_lab.cli.company import require_known
from persimmon_lab.cli.errors import ToldErrors


class Commands(ToldErrors):
    """The commands, of which torchrun may start some."""

    def resolve_command(self, context: Any, arguments: list[str]) -> tuple[str | None, Any, list[str]]:
        found: tuple[str | None, Any, list[str]] = super().resolve_command(context, arguments)
        require_known(found[0])
        return found


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a traceback that was asked for is Python's own
    help="Write text with Persimmon models, look into them, convert them, train the small one, and see what fits here.",
)


@app.callback()
def options(
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error comes from; stands before the command.")
    ] = False,
) -> None:
    pass  # `ToldErrors` looks at it


app.command()(generate.generate)
app.command()(chat.chat)
app.command()(inspect.inspect)
app.command()(convert.convert)
app.command()(convert.export)
app.add_typer(train.train, name="train")
app.command()(finetune.finetune)
app.command()(classify.classify)
app.command()(evaluate.evaluate)
app.command()(score.score)
app.command()(doctor.doctor)
