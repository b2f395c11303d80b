"""The model that a command asks for, and the options that choose it and its next tokens."""

from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from persimmon_lab.generation.prompts import context_limit
from persimmon_lab.heads import PersimmonForCausalLM
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


def load(name: str, dtype: str, device: str) -> tuple[PersimmonForCausalLM, PersimmonTokenizer]:
    """The model, ready to write, and its tokenizer."""
    path = MINI if name == "mini" else name
    with Console(stderr=True).status(f"Loading {name}"):
        model = PersimmonForCausalLM.from_pretrained(path, torch_dtype=dtype, device=choose_device(device))
        return model, PersimmonTokenizer.from_pretrained(path)


def choose_device(name: str) -> torch.device:
    """The device of this name; for `auto` a GPU if torch sees one. ValueError for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} was asked for, but torch {torch.__version__} sees no CUDA device here")
    return torch.device(name)


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
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "seed": seed}
    settings = {name: value for name, value in given.items() if value is not None}
    if temperature == 0:
        settings = {"do_sample": False}
    elif settings:
        settings["do_sample"] = True
    return settings | ({} if repetition_penalty is None else {"repetition_penalty": repetition_penalty})


def room_after(model: PersimmonForCausalLM, prompt_length: int, asked: int | None) -> int:
    """How many tokens to write: as many as asked, or the default, or what the context has room for."""
    if asked is not None:
        return asked
    return max(1, min(DEFAULT_NEW_TOKENS, context_limit(model.config) - prompt_length))
