"""persimmon-mini, the trained model that ships with the package. MODEL_CARD.md beside this file says what it is."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.mini.stages import YOUNGER, read_moment, read_stage
from persimmon_lab.tokenizer import PersimmonTokenizer

MINI = Path(__file__).parent
REAL = "PERSIMMON_8B"  # the environment variable that says where the converted 8B is
STAGES = ("early", "middle")  # of the shipped model's training


def load_mini(
    torch_dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    *,
    stage: str | None = None,
) -> tuple[PersimmonForCausalLM, PersimmonTokenizer]:
    """The shipped model, ready to generate, and its tokenizer: float32 unless `torch_dtype` says otherwise ("auto"
    gives the stored bfloat16). With `stage`, "early" or "middle", the model as it was then in its training, in weights
    of four bits; `tokens_seen` says when that was.

    Raises ValueError for another stage.
    """
    earlier = None if stage is None else read_stage(_stage_path(stage))
    model = PersimmonForCausalLM.from_pretrained(MINI, torch_dtype=torch_dtype, device=device)
    if earlier is not None:
        model.load_state_dict(earlier.weights)
    return model, PersimmonTokenizer.from_pretrained(MINI)


def tokens_seen(stage: str) -> int:
    """How many tokens the shipped model had been trained on at a stage. Raises ValueError for another stage."""
    _, tokens = read_moment(_stage_path(stage))
    return tokens


def _stage_path(stage: str) -> Path:
    if stage not in STAGES:
        raise ValueError(f"stage is {stage!r}; give one of {', '.join(map(repr, STAGES))}, or None for the last")
    return MINI / YOUNGER / f"{stage}.safetensors"


@dataclass(frozen=True)
class Loaded:
    """A model that a notebook works with, and what its figures say of it: `f"Sparsity ({loaded})"`.

    `path` is where it came from, and where other libraries find it: a folder or a hub id.
    """

    model: PersimmonForCausalLM
    tokenizer: PersimmonTokenizer
    name: str
    path: str | os.PathLike[str]
    is_real: bool

    @property
    def device(self) -> torch.device:
        return self.model.device

    def __str__(self) -> str:
        return f"{self.name}, {str(self.model.dtype).removeprefix('torch.')} on {self.device.type}"


def load_real_or_mini(
    path: str | os.PathLike[str] | None = None,
    torch_dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
) -> Loaded:
    """A converted Persimmon-8B if there is one, else persimmon-mini; on the GPU if there is one.

    The 8B is looked for at `path`, else where the environment variable PERSIMMON_8B says: a folder that
    `persimmon-lab convert` wrote, or a hub id. It comes in bfloat16 and persimmon-mini in float32, unless `torch_dtype`
    says otherwise.

    Raises CheckpointError, which names the variable, where it points at something that cannot be loaded: whoever set
    it wants no figure of another model.
    """
    source = path or os.environ.get(REAL)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if not source:
        model, tokenizer = load_mini(torch_dtype, device)
        return Loaded(model, tokenizer, "persimmon-mini", MINI, is_real=False)
    try:
        tokenizer = PersimmonTokenizer.from_pretrained(source)  # first, because 19 GB take a while
        model = PersimmonForCausalLM.from_pretrained(source, torch_dtype=torch_dtype or torch.bfloat16, device=device)
    except (CheckpointError, OSError) as error:
        where = f"path is {str(source)!r}" if path else f"the environment variable {REAL} is {source!r}"
        raise CheckpointError(
            f"{where}: {error}. Give a folder that `persimmon-lab convert` wrote or a hub id such as "
            "adept/persimmon-8b-chat, or nothing, for persimmon-mini"
        ) from error
    # Other libraries take "~" for the name of a folder.
    return Loaded(model, tokenizer, Path(source).absolute().name, os.path.expanduser(source), is_real=True)
