"""`score`: how well a model predicts texts, in units that can be compared between models."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from persimmon_lab.cli.inspect import plain_console
from persimmon_lab.cli.options import Device, Dtype, ModelName, load
from persimmon_lab.cli.streams import standard_input
from persimmon_lab.generation import score_tokens
from persimmon_lab.training.evaluate import bits_per_byte

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class TextScore:
    """`nats` is -log p of the whole text; `tokens` are those that were predicted, of `bytes` of UTF-8. Bits per byte
    can be compared between models; perplexity (per token) only between models with the same tokenizer."""

    text: str
    tokens: int
    bytes: int
    nats: float

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        return bits_per_byte(self.nats_per_token, self.tokens, self.bytes)

    @property
    def perplexity(self) -> float:
        """math.inf where it is too large for a number."""
        return math.exp(self.nats_per_token) if self.nats_per_token < 700 else math.inf


def score(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="UTF-8 text files; - reads the standard input.")],
    model: ModelName = "mini",
    lines: Annotated[bool, typer.Option("--lines", help="Score each line by itself.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a text, one a line.")] = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
) -> None:
    """How well a model predicts each FILE: nats per token, bits per byte, perplexity.

    A text longer than the model's context is read in windows, and at least half a window precedes each token.
    """
    texts = [one for file in files for one in _texts(file, lines)]
    network, tokenizer = load(model, dtype, device)
    scores = [score_text(network, tokenizer, name, text) for name, text in texts]
    if as_json:
        for one in scores:
            rates = {name: getattr(one, name) for name in ("nats_per_token", "bits_per_byte")}
            typer.echo(json.dumps({**asdict(one), **rates}, ensure_ascii=False))
        return
    table = Table()
    for column in ("text", "tokens", "nats per token", "bits per byte", "perplexity"):
        table.add_column(column, justify="left" if column == "text" else "right")
    for one in scores:
        table.add_row(
            one.text,
            f"{one.tokens:,}",
            f"{one.nats_per_token:.3f}",
            f"{one.bits_per_byte:.3f}",
            f"{one.perplexity:,.2f}",
        )
    plain_console().print(table)


def score_text(model: Any, tokenizer: Any, name: str, text: str) -> TextScore:
    """The score of a text from its first token on, which is predicted from bos.

    Raises ValueError for a text without a token, and where the tokenizer has no bos to begin with.
    """
    ids = tokenizer.encode(text, add_special_tokens=False)
    if not ids:
        raise ValueError(f"{name} has no text to score")
    if tokenizer.bos_token_id is None:
        raise ValueError("the tokenizer has no bos_token, so nothing predicts the first token; set one")
    row = torch.tensor([[tokenizer.bos_token_id, *ids]])
    limit = model.config.context_limit
    scores = score_tokens(model, row, window=limit if row.shape[1] > limit else None)
    return TextScore(name, len(ids), len(text.encode("utf-8")), -float(scores.tokens.double().sum()))


def _texts(file: str, lines: bool) -> list[tuple[str, str]]:
    """(what it is called, the text) of a file, or of each of its lines that has one. Raises ValueError for what is no
    UTF-8 text, OSError for what cannot be read."""
    content = standard_input().buffer.read() if file == STANDARD_INPUT else Path(file).expanduser().read_bytes()
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    if not lines:
        return [(file, text)]
    scored = [(f"{file}:{number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not scored:
        raise ValueError(f"{file} has no line to score")
    return scored
