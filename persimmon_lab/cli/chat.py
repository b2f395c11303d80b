"""`chat`: a conversation."""

import contextlib
from collections.abc import Iterator
from typing import Any

import typer
from jaxtyping import Int
from torch import Tensor

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.cli.answers import show
from persimmon_lab.cli.options import (
    Device,
    Dtype,
    Mapped,
    MaxNewTokens,
    MinP,
    ModelName,
    QuantizeName,
    RepetitionPenalty,
    Seed,
    Temperature,
    TopK,
    TopP,
    decoding_settings,
    load,
    room_after,
)
from persimmon_lab.cli.streams import standard_input
from persimmon_lab.generation import stream
from persimmon_lab.generation.arguments import random_source
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.tokenizer.chat import NEXT_TURN, render_chat

with contextlib.suppress(ImportError):
    import readline  # noqa: F401  gives input() its arrow keys and history, where there is one


def chat(
    model: ModelName = "mini",
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = 0.7,
    top_k: TopK = None,
    top_p: TopP = 0.9,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    seed: Seed = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    quantize: QuantizeName = None,
    mmap: Mapped = False,
) -> None:
    """Talk with the model, one line at a time. Ctrl-C ends an answer, /reset the conversation, /quit the program."""
    settings = decoding_settings(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    settings |= {"num_beams": 1, "num_return_sequences": 1}  # whatever the model's own settings: an answer is streamed
    network, tokenizer = load(model, dtype, device, quantize, mmap)
    limit = network.config.context_limit
    if max_new_tokens is not None and max_new_tokens >= limit:
        raise ValueError(
            f"--max-new-tokens {max_new_tokens} leaves no room for a question: the model reads {limit} tokens, with "
            f"question and answer; ask for fewer, such as {max(1, limit // 2)}"
        )
    if (seed := settings.pop("seed", None)) is not None:
        # One source for the whole conversation: a seed for each answer would draw the same numbers again.
        settings["generator"] = random_source(network, seed, None)
    messages: list[dict[str, str]] = []
    for line in read_lines():
        if line == "/quit":
            return
        if line == "/reset":
            messages = []
        elif line.startswith("/"):
            tell(f"{line} is no command; there are /reset and /quit")
        elif line:
            question = {"role": "human", "content": line}
            try:
                messages, prompt_ids = fit_conversation(network, tokenizer, [*messages, question], max_new_tokens)
            except ValueError as error:
                tell(str(error))
                continue
            answer = write_answer(network, tokenizer, prompt_ids, max_new_tokens, settings)
            # A turn without an answer is not remembered: turns have to alternate.
            messages = [*messages, {"role": "adept", "content": answer}] if answer else messages[:-1]


def read_lines() -> Iterator[str]:
    """What the human types, line by line, until the input ends. Without a terminal nothing prompts."""
    interactive = standard_input().isatty()
    while True:
        try:
            yield input("human: " if interactive else "").strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            if not interactive:
                raise
            tell("\n/quit or Ctrl-D leaves")


def fit_conversation(
    model: PersimmonForCausalLM, tokenizer: PersimmonTokenizer, messages: list[dict[str, str]], new_tokens: int | None
) -> tuple[list[dict[str, str]], Int[Tensor, "1 position"]]:
    """The conversation without its oldest exchanges where the context would overflow, and its ids.

    Leaves room for `new_tokens`, or for a quarter of the context. Raises ValueError when the last question alone is too
    long.
    """
    limit = model.config.context_limit
    room = limit - (limit // 4 if new_tokens is None else new_tokens)
    for oldest in range(0, len(messages), 2):
        prompt_ids = tokenizer(render_chat(messages[oldest:]), return_tensors="pt").input_ids
        if prompt_ids.shape[1] <= room:
            if oldest:
                tell(f"(the conversation outgrew {limit} tokens: its oldest {oldest // 2} exchanges are forgotten)")
            return messages[oldest:], prompt_ids
    raise ValueError(f"that is {prompt_ids.shape[1]} tokens long, and the context has room for {max(room, 0)}")


def write_answer(
    model: PersimmonForCausalLM,
    tokenizer: PersimmonTokenizer,
    prompt_ids: Int[Tensor, "1 position"],
    max_new_tokens: int | None,
    settings: dict[str, Any],
) -> str:
    """Stream one answer to the standard output and return it; Ctrl-C ends it where it is."""
    interactive = standard_input().isatty()
    text = ""
    if interactive:
        typer.secho("adept:", nl=False, bold=True)
    new_tokens = room_after(model, prompt_ids.shape[1], max_new_tokens)
    options: dict[str, Any] = {"max_new_tokens": new_tokens, "stop_strings": NEXT_TURN} | settings
    # What suppress() cuts short is the writing; the text so far stays.
    with contextlib.suppress(KeyboardInterrupt):
        for event in stream(model, tokenizer, prompt_ids, **options):
            text = show(event.text, text, trim=not interactive)
    typer.echo("\n" if interactive else "")
    return text.strip()


def tell(message: str) -> None:
    """A word beside the conversation, on the standard error."""
    typer.secho(message, dim=True, err=True)
