"""The model that a command asks for, and the options that choose it and its next tokens."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from persimmon_lab.atomic import place_for
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.checkpoints import hub
from persimmon_lab.mini import MINI
from persimmon_lab.tokenizer import PersimmonTokenizer

ModelName = Annotated[
    str, typer.Option("--model", "-m", help="A checkpoint's folder or hub id; `mini` is the model in this package.")
]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16, float16; auto is the one the weights are stored in.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps; auto takes a GPU where there is one.")]
MaxNewTokens = Annotated[int | None, typer.Option(min=1, help="The longest answer; 256 or the room left if not given.")]
Temperature = Annotated[
    float | None, typer.Option(min=0, help="Below 1 plays safe, above 1 dares more; 0 takes the most probable token.")
]
TopK = Annotated[int | None, typer.Option(min=0, help="Draw from this many of the most probable tokens; 0: from all.")]
TopP = Annotated[float | None, typer.Option(min=0, max=1, help="Draw from the fewest tokens that are this probable.")]
MinP = Annotated[float | None, typer.Option(min=0, max=1, help="Drop tokens below this share of the best one's.")]
RepetitionPenalty = Annotated[float | None, typer.Option(help="Above 1 shuns tokens that the text already has.")]
Seed = Annotated[int | None, typer.Option(help="Draw the same text every time.")]

DEFAULT_NEW_TOKENS = 256

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


def new_place(given: str) -> Path:
    """A folder or file to write, as an option's parser: an empty name would be the current folder."""
    try:
        return place_for(given, "the name")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def empty_place(out: Path, instead: str = "delete it") -> None:
    """Refuse to write into what is there already. ValueError for a file, a folder that holds something, and a
    link that leads nowhere; the error says what to do `instead` of giving another name."""
    if out.is_symlink() and not out.exists():
        raise ValueError(f"{out} is a link that leads nowhere; give a new folder, or delete it")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give the name of a folder to write")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty; give a new folder, or {instead}")


class Quantize(StrEnum):
    """What weights are rounded to."""

    int8 = "int8"
    int4 = "int4"


QuantizeName = Annotated[
    Quantize | None,
    typer.Option(help="Round the weights as they are read: to eight bits by row, or to four in groups of 32."),
]


Mapped = Annotated[
    bool,
    typer.Option(
        "--mmap",
        help="Leave the weights in their file until they are used: the first token comes sooner, and what is not used "
        "takes no memory. The file must not be written to meanwhile.",
    ),
]


class Engine(StrEnum):
    """What `generate` calls its engines."""

    plain = "plain"
    fast = "fast"
    compiled = "compiled"
    int8 = "int8"
    int8_weight_only = "int8-weight-only"


EngineName = Annotated[
    Engine | None,
    typer.Option(
        help="What computes. plain: the model as it is written; fast: the same numbers sooner; compiled: fast through "
        "torch.compile; int8, int8-weight-only: rounded to 8 bits, on a CPU. If not given: fast, where it applies."
    ),
]


def load(
    name: str, dtype: str, device: str, quantize: str | None = None, mmap: bool = False
) -> tuple[PersimmonForCausalLM, PersimmonTokenizer]:
    """The model, ready to write, and its tokenizer."""
    path = MINI if name == "mini" else name
    with Console(stderr=True).status(f"Loading {name}"):
        place = choose_device(device)
        model = PersimmonForCausalLM.from_pretrained(
            path, torch_dtype=dtype, device=place, quantize=quantize, mmap=mmap
        )
        return model, PersimmonTokenizer.from_pretrained(path)


def stored_folder(name: str) -> Path:
    """The folder of a checkpoint that is on this machine: itself, a hub id's, or that of `mini`."""
    return MINI if name == "mini" else hub.resolve(name, local_files_only=True)


def choose_device(name: str) -> torch.device:
    """The device of this name; for `auto` a GPU if torch sees one. ValueError for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} was asked for, but torch {torch.__version__} sees no CUDA device here")
    return usable_device(name)


def usable_device(name: str) -> torch.device:
    """The device of this name, on which something was made to see that it is there. ValueError of one line if not."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__).split(". ")[0]
        raise ValueError(f"--device {name}: {reason}; take cpu, or a device that torch has here") from None
    if device.type == "meta":
        raise ValueError("--device meta: there tensors have shapes and no numbers; take cpu, cuda or mps")
    return device


def decoding_settings(
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    repetition_penalty: float | None,
    seed: int | None,
) -> dict[str, Any]:
    """Settings for `generate`: any option that only sampling has turns sampling on, temperature 0 turns it off.

    What is not given is left to the model's own generation_config.
    """
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "seed": seed}
    settings = {name: value for name, value in options.items() if value is not None}
    if temperature == 0:
        settings = {"do_sample": False}
    elif settings:
        settings["do_sample"] = True
    return settings | ({} if repetition_penalty is None else {"repetition_penalty": repetition_penalty})


def room_after(model: PersimmonForCausalLM, prompt_length: int, asked: int | None) -> int:
    """How many tokens to write: as many as asked, or the default, or what the context has room for."""
    if asked is not None:
        return asked
    return max(1, min(DEFAULT_NEW_TOKENS, model.config.context_limit - prompt_length))


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
    options = {"num_beams": num_beams, "length_penalty": length_penalty, "num_return_sequences": num_return_sequences}
    return {name: value for name, value in (options | others).items() if value is not None}
