"""How answers are shown: one as it grows, and what does not grow one token at a time at its end."""

import collections
from collections.abc import Sequence

import typer
from jaxtyping import Int
from rich.console import Console
from torch import Tensor

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.generation import decode_steps
from persimmon_lab.generation.stopping import Ending
from persimmon_lab.generation.streaming import decoder_after
from persimmon_lab.generation_config import GenerationConfig
from persimmon_lab.tokenizer import PersimmonTokenizer


def write_answers(
    model: PersimmonForCausalLM,
    tokenizer: PersimmonTokenizer,
    prompt_ids: Int[Tensor, "1 position"],
    config: GenerationConfig,
    seed: int | None,
    engine: str | None,
    trim: bool,
) -> int:
    """Generate, then write each answer, under a line with its number where there are several; returns their tokens.

    The line also has a beam's score: its mean log-probability a token, or what `length_penalty` makes of that. `trim`
    leaves out the space that an answer begins with.
    """
    with Console(stderr=True).status("Writing"):
        steps = decode_steps(model, prompt_ids, tokenizer=tokenizer, generation_config=config, seed=seed, engine=engine)
        [last] = collections.deque(steps, maxlen=1)
    prompt: list[int] = prompt_ids[0].tolist()
    rows: list[list[int]] = last.result.tolist()
    scores = [None] * len(rows) if last.result_scores is None else last.result_scores.tolist()
    ending = Ending(config, tokenizer, prompt_ids.device)
    count = 0
    for number, (row, score) in enumerate(zip(rows, scores, strict=True), 1):
        answer = ending.until_end(row, len(prompt))
        text = text_after(tokenizer, prompt, answer, config.stop_string_list())
        if len(rows) > 1:
            of = f"{number} of {len(rows)}" + ("" if score is None else f", score {score:.3f}")
            typer.echo(("\n" if number > 1 else "") + f"--- {of} ---")
        typer.echo(text.lstrip() if trim else text)
        count += len(answer)
    return count


def text_after(
    tokenizer: PersimmonTokenizer, prompt: Sequence[int], answer: Sequence[int], stop_strings: Sequence[str]
) -> str:
    """The text that an answer adds to a prompt, up to a stop string: what a stream of its tokens would have shown."""
    text = "".join(map(decoder_after(tokenizer, prompt).push, answer))
    return text[: min((text.find(stop) for stop in stop_strings if stop in text), default=len(text))]


def show(new: str, text: str, trim: bool) -> str:
    """Write `new` and return the whole text with it; `trim` leaves out the space that an answer begins with."""
    if trim and not text:
        new = new.lstrip()
    typer.echo(new, nl=False)
    return text + new
