"""How answers are shown: one as it grows, and what does not grow one token at a time at its end."""

from collections.abc import Iterator, Sequence

import typer
from jaxtyping import Int
from rich.console import Console
from torch import Tensor

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.generation_config import GenerationConfig
from persimmon_lab.tokenizer import PersimmonTokenizer, StreamingDecoder


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
        output = model.generate(
            prompt_ids,
            tokenizer=tokenizer,
            generation_config=config,
            seed=seed,
            engine=engine,
            return_dict_in_generate=True,
        )
    rows = output.sequences.tolist()
    scores = [None] * len(rows) if output.sequences_scores is None else output.sequences_scores.tolist()
    count = 0
    for number, (row, score) in enumerate(zip(rows, scores, strict=True), 1):
        new = list(until_end(row[prompt_ids.shape[1] :], config.eos_token_ids()))
        text = text_after(tokenizer, prompt_ids[0].tolist(), new, config.stop_string_list())
        if len(rows) > 1:
            of = f"{number} of {len(rows)}" + ("" if score is None else f", score {score:.3f}")
            typer.echo(("\n" if number > 1 else "") + f"--- {of} ---")
        typer.echo(text.lstrip() if trim else text)
        count += len(new)
    return count


def until_end(token_ids: Sequence[int], eos_token_ids: Sequence[int]) -> Iterator[int]:
    """The tokens of one answer, its end-of-text included: what fills its row after that is none of it."""
    for token_id in token_ids:
        yield token_id
        if token_id in eos_token_ids:
            return


def text_after(
    tokenizer: PersimmonTokenizer, prompt: Sequence[int], new: Sequence[int], stop_strings: Sequence[str]
) -> str:
    """The text that `new` adds to a prompt, up to a stop string: what a stream of these tokens would have shown."""
    decoder = StreamingDecoder(tokenizer, skip_special_tokens=True)
    for token_id in prompt:
        decoder.push(token_id)  # a first piece loses its space at the beginning of a text, but not after a prompt
    text = "".join(map(decoder.push, new))
    return text[: min((text.find(stop) for stop in stop_strings if stop in text), default=len(text))]


def show(new: str, text: str, trim: bool) -> str:
    """Write `new` and return the whole text with it; `trim` leaves out the space that an answer begins with."""
    if trim and not text:
        new = new.lstrip()
    typer.echo(new, nl=False)
    return text + new
