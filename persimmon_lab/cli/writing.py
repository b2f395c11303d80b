"""`generate` and `chat`: text from a prompt, and a conversation."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import torch
import typer
from jaxtyping import Int
from torch import Tensor

from persimmon_lab.cli import answers
from persimmon_lab.cli.loading import (
    Device,
    Dtype,
    MaxNewTokens,
    MinP,
    ModelName,
    RepetitionPenalty,
    Seed,
    Temperature,
    TopK,
    TopP,
    decoding_settings,
    load,
    room_after,
)
from persimmon_lab.generation import stream
from persimmon_lab.generation.prompts import context_limit, settle
from persimmon_lab.heads import PersimmonForCausalLM
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.tokenizer.chat import NEXT_TURN

with contextlib.suppress(ImportError):
    import readline  # noqa: F401  gives input() its arrow keys and history, where there is one


def generate(
    prompt: Annotated[str, typer.Argument(help="The text to continue; - reads it from the standard input.")],
    model: ModelName = "mini",
    chat: Annotated[bool, typer.Option("--chat", help="Ask the prompt as a question in the chat format.")] = False,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    no_repeat_ngram_size: answers.NoRepeatNgramSize = None,
    seed: Seed = None,
    num_beams: answers.NumBeams = None,
    length_penalty: answers.LengthPenalty = None,
    num_return_sequences: answers.NumReturnSequences = None,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be given several times.")] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    engine: answers.EngineName = None,
    prefill_chunk_size: answers.PrefillChunkSize = None,
) -> None:
    """Continue PROMPT. Takes the most probable tokens unless an option that draws them is given.

    A single text is shown while it is written; the best of several beams, and several answers, when they are whole.
    """
    settings = decoding_settings(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    settings |= answers.search_settings(
        settings.get("do_sample", False),
        num_beams,
        length_penalty,
        num_return_sequences,
        no_repeat_ngram_size=no_repeat_ngram_size,
        prefill_chunk_size=prefill_chunk_size,
    )
    text = sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt
    network, tokenizer = load(model, dtype, device)
    if chat:
        prompt_ids = tokenizer.apply_chat_template(text, return_tensors="pt")
        stop = [*(stop or []), NEXT_TURN]
    else:
        prompt_ids = tokenizer(text, return_tensors="pt").input_ids
        if sys.stderr.isatty():
            typer.secho(text, dim=True, nl=False, err=True)
    if stop:
        settings["stop_strings"] = stop
    settings["max_new_tokens"] = room_after(network, prompt_ids.shape[1], max_new_tokens)
    config = settle(network, None, {name: value for name, value in settings.items() if name != "seed"})
    started, count, text = time.monotonic(), 0, ""
    if config.num_beams == config.num_return_sequences == 1:
        for event in stream(network, tokenizer, prompt_ids, engine=engine, **settings):
            text, count = show(event.text, text, trim=chat), count + 1
        typer.echo()
    else:
        count = answers.write_answers(network, tokenizer, prompt_ids, config, seed, engine, trim=chat)
    if sys.stderr.isatty():
        speed = count / (time.monotonic() - started)
        typer.secho(f"{count} tokens, {speed:,.0f} a second", dim=True, err=True)


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
) -> None:
    """Talk with the model, one line at a time. Ctrl-C ends an answer, /reset the conversation, /quit the program."""
    settings = decoding_settings(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    settings |= {"num_beams": 1, "num_return_sequences": 1}  # whatever the model's own settings: an answer is streamed
    network, tokenizer = load(model, dtype, device)
    if (seed := settings.pop("seed", None)) is not None:
        # One source for the whole conversation: a seed for each answer would draw the same numbers again.
        settings["generator"] = torch.Generator(device=network.device).manual_seed(seed)
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
    interactive = sys.stdin.isatty()
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
    limit = context_limit(model.config)
    room = limit - (limit // 4 if new_tokens is None else new_tokens)
    for oldest in range(0, len(messages), 2):
        prompt_ids = tokenizer.apply_chat_template(messages[oldest:], return_tensors="pt")
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
    interactive, text = sys.stdin.isatty(), ""
    if interactive:
        typer.secho("adept:", nl=False, bold=True)
    new_tokens = room_after(model, prompt_ids.shape[1], max_new_tokens)
    # What suppress() cuts short is the writing; the text so far stays.
    with contextlib.suppress(KeyboardInterrupt):
        for event in stream(
            model, tokenizer, prompt_ids, **{"max_new_tokens": new_tokens, "stop_strings": NEXT_TURN} | settings
        ):
            text = show(event.text, text, trim=not interactive)
    typer.echo("\n" if interactive else "")
    return text.strip()


def show(new: str, text: str, trim: bool) -> str:
    """Write `new` and return the whole text with it; `trim` leaves out the space that an answer begins with."""
    if trim and not text:
        new = new.lstrip()
    typer.echo(new, nl=False)
    return text + new


def tell(message: str) -> None:
    """A word beside the conversation, on the standard error."""
    typer.secho(message, dim=True, err=True)
