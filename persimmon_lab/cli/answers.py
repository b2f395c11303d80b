"""Answers that do not grow one token at a time, and are shown at the end: the best of many texts, or several."""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from jaxtyping import Int
from rich.console import Console
from torch import Tensor

from persimmon_lab.generation.engines import ENGINES
from persimmon_lab.generation.settings import GenerationConfig
from persimmon_lab.heads import PersimmonForCausalLM
from persimmon_lab.tokenizer import PersimmonTokenizer, StreamingDecoder

NumBeams = Annotated[
    int | None,
    typer.Option(min=1, help="Carry this many of the most probable texts on and show the best one, when it is whole."),
]
LengthPenalty = Annotated[
    float | None,
    typer.Option(
        help="With beams: 0 favours short texts, 1 (the default) is fair to any length, more favours long ones."
    ),
]
NumReturnSequences = Annotated[
    int | None,
    typer.Option(min=1, help="Show this many answers: the best ones of the beams, or several that are drawn."),
]
NoRepeatNgramSize = Annotated[
    int | None, typer.Option(min=1, help="Never write a run of this many tokens that the text already has.")
]
PrefillChunkSize = Annotated[
    int | None,
    typer.Option(min=1, help="Read a long prompt this many tokens at a time: slower, but it needs less memory."),
]

Engine = StrEnum("Engine", [(name, name) for name in ENGINES])
EngineName = Annotated[
    Engine | None,
    typer.Option(
        help="What computes. plain: the model as it is written; fast: the same numbers sooner; compiled: fast through "
        "torch.compile; int8, int8-weight-only: rounded to 8 bits, on a CPU. If not given: fast, where it applies."
    ),
]


def search_settings(
    sampled: bool,
    num_beams: int | None,
    length_penalty: float | None,
    num_return_sequences: int | None,
    **others: Any,
) -> dict[str, Any]:
    """Settings for `generate`, before any model is loaded; what is None is left to the model.

    `sampled` says that tokens are drawn; `others` need no checks. Raises BadParameter for answers that would all be the
    same, or be more than there are beams, and for a length penalty that no beams ask for.
    """
    beams, answers = num_beams or 1, num_return_sequences or 1
    if length_penalty is not None and beams == 1:
        raise typer.BadParameter(
            f"{length_penalty:g} weighs texts of different lengths against each other, and there is only one text; add "
            "--num-beams 4",
            param_hint="--length-penalty",
        )
    if answers > beams > 1:
        raise typer.BadParameter(
            f"{answers} answers cannot come from {beams} beams, which hold one each; add --num-beams {answers}",
            param_hint="--num-return-sequences",
        )
    if answers > beams and not sampled:
        raise typer.BadParameter(
            f"taking the most probable token each time gives one answer, not {answers}; add --num-beams {answers} for "
            "the most probable texts, or --temperature 0.8 to draw different ones",
            param_hint="--num-return-sequences",
        )
    given = {"num_beams": num_beams, "length_penalty": length_penalty, "num_return_sequences": num_return_sequences}
    return {name: value for name, value in (given | others).items() if value is not None}


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
