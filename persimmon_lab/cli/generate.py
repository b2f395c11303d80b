"""`generate`: text from a prompt."""

import sys
import time
from typing import Annotated

import typer

from persimmon_lab.cli.answers import show, write_answers
from persimmon_lab.cli.company import common_seed, company, load_together
from persimmon_lab.cli.options import (
    Device,
    Dtype,
    EngineName,
    LengthPenalty,
    Mapped,
    MaxNewTokens,
    MinP,
    ModelName,
    NoRepeatNgramSize,
    NumBeams,
    NumReturnSequences,
    PrefillChunkSize,
    QuantizeName,
    RepetitionPenalty,
    Seed,
    Temperature,
    TopK,
    TopP,
    decoding_settings,
    load,
    room_after,
    search_settings,
)
from persimmon_lab.cli.streams import standard_input
from persimmon_lab.distributed.world import shared
from persimmon_lab.generation import stream
from persimmon_lab.generation.prompts import settle
from persimmon_lab.tokenizer.chat import NEXT_TURN, render_chat


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
    no_repeat_ngram_size: NoRepeatNgramSize = None,
    seed: Seed = None,
    num_beams: NumBeams = None,
    length_penalty: LengthPenalty = None,
    num_return_sequences: NumReturnSequences = None,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be given several times.")] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    quantize: QuantizeName = None,
    mmap: Mapped = False,
    engine: EngineName = None,
    prefill_chunk_size: PrefillChunkSize = None,
) -> None:
    """Continue PROMPT. Takes the most probable tokens unless an option that draws them is given.

    A single text is shown while it is written; the best of several beams, and several answers, when they are whole.
    Under torchrun (torchrun --nproc-per-node 2 -m persimmon_lab generate …) each process holds a part of the model.
    """
    settings = decoding_settings(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    settings |= search_settings(
        settings.get("do_sample", False),
        num_beams,
        length_penalty,
        num_return_sequences,
        no_repeat_ngram_size=no_repeat_ngram_size,
        prefill_chunk_size=prefill_chunk_size,
    )
    with company(device) as world:
        text = prompt
        if prompt == "-" and (world is None or world.is_first):
            text = standard_input().read().removesuffix("\n")
        if world is None:
            network, tokenizer = load(model, dtype, device, quantize, mmap)
        elif mmap:
            raise ValueError("--mmap is for one process: each of several reads its own part; leave it out")
        elif quantize is not None:
            raise ValueError("--quantize is for one process: rounded weights are not shared out; leave one of the two")
        else:
            network, tokenizer = load_together(model, dtype, world)
            text = shared(text, world)
        if chat:
            prompt_ids = tokenizer(render_chat(text), return_tensors="pt").input_ids
            stop = [*(stop or []), NEXT_TURN]
        else:
            prompt_ids = tokenizer(text, return_tensors="pt").input_ids
            if sys.stderr.isatty():
                typer.secho(text, dim=True, nl=False, err=True)
        if stop:
            settings["stop_strings"] = stop
        settings["max_new_tokens"] = room_after(network, prompt_ids.shape[1], max_new_tokens)
        config = settle(network, None, {name: value for name, value in settings.items() if name != "seed"})
        if world is not None and config.do_sample:
            settings["seed"] = seed = common_seed(seed, world)
        started = time.monotonic()
        count, text = 0, ""
        if config.num_beams == config.num_return_sequences == 1:
            for event in stream(network, tokenizer, prompt_ids, engine=engine, **settings):
                text, count = show(event.text, text, trim=chat), count + 1
            typer.echo()
        else:
            count = write_answers(network, tokenizer, prompt_ids, config, seed, engine, trim=chat)
        if sys.stderr.isatty():
            speed = count / (time.monotonic() - started)
            typer.secho(f"{count} tokens, {speed:,.0f} a second", dim=True, err=True)
