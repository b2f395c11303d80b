"""The standard streams of a command, any of which a shell may have closed."""

import io
import os
import sys
from typing import TextIO


def settle_streams() -> None:
    """Make ready what is written to: a terminal that cannot show a character shows a question mark instead of ending
    the program. OSError where there is nowhere for the answer to go."""
    if sys.stdout is None:
        raise OSError("the standard output is closed, and there the answer goes; send it to /dev/null to be rid of it")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  as long as the program
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="replace")


def standard_input() -> TextIO:
    """What the human types, or what is piped in. OSError where it is closed."""
    if sys.stdin is None:
        raise OSError("the standard input is closed, and the text should come from there")
    return sys.stdin
