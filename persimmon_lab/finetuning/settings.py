"""How to fine-tune: one dataclass, checked when it is made."""

import math
from dataclasses import dataclass

import torch

from persimmon_lab.dtypes import DTYPES
from persimmon_lab.field_checks import check_seed

SCHEDULES = ("cosine", "linear", "constant")
RATES = {"adamw": 3e-4, "muon": 1e-3}
FASTER_WITH_LORA = 10.0  # thin matrices, one of them 0 at the start, want about ten times the rate of the whole


@dataclass(frozen=True)
class Settings:
    """All that decides what is learned, besides the model and the examples. ValueError for what makes no sense.

    A step reads `accumulate` batches of `rows` rows, each of up to `length` tokens, and takes the mean over all their
    learned tokens, however they are spread over the batches.
    """

    epochs: int = 3
    rate: float | None = None  # at its highest; None: RATES, times FASTER_WITH_LORA where there is a rank
    warmup: float = 0.1  # share of the steps in which the rate rises
    schedule: str = "cosine"  # how it falls to 0 afterwards
    optimiser: str = "adamw"  # for the matrices in the layers; the rest is AdamW's in any case
    weight_decay: float = 0.0
    clip: float = 1.0  # the largest norm of a step's gradient
    length: int | None = None  # of a row; None: 512, or what the model's context allows
    rows: int = 2
    accumulate: int = 1
    packed: bool = True  # several documents in a row; else one
    evaluate_every: int | None = None  # steps; None: twice an epoch
    patience: int | None = 4  # evaluations without a better one, after which it stops; None: never
    checkpoint_every: int = 50  # steps, and at each evaluation
    seed: int = 0
    dtype: str = "float32"  # what the model computes in
    masters: bool = True  # float32 copies of the weights take the updates where dtype is narrower
    float16_without_masters: bool = False  # the switch to see what becomes of it
    # Of LoRA, in place of the weights themselves: the width of its matrices. None trains what is not frozen.
    rank: int | None = None
    alpha: float | None = None  # over the rank: by what the adapters' product is multiplied; None: twice the rank
    dropout: float = 0.0  # within the adapters

    def __post_init__(self) -> None:
        for name in ("epochs", "rows", "accumulate", "checkpoint_every"):
            _at_least(name, getattr(self, name), 1)
        for name in ("evaluate_every", "patience", "rank"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 1)
        check_seed(self.seed)
        if self.length is not None:
            _at_least("length", self.length, 2)
        for name in ("rate", "clip", "alpha"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; give a number above 0")
        for name in ("warmup", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a share from 0 to below 1")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay is {self.weight_decay}; give 0 or more")
        for name, choices in (("schedule", SCHEDULES), ("optimiser", RATES), ("dtype", DTYPES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}")
        if self.dtype == "float16" and not (self.masters or self.float16_without_masters):
            raise ValueError(
                "float16 without float32 masters ends in nan: AdamW's eps of 1e-8 is 0 there, and updates below a "
                "thousandth of a weight are rounded away (notebook 11); keep masters=True, compute in bfloat16, or "
                "give float16_without_masters=True to see it happen"
            )

    @property
    def compute_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    @property
    def highest_rate(self) -> float:
        """The rate that was asked for, or the optimiser's own."""
        if self.rate is not None:
            return self.rate
        return RATES[self.optimiser] * (1.0 if self.rank is None else FASTER_WITH_LORA)

    def row_length(self, context: int) -> int:
        """Tokens of a row for a model of this context. ValueError where more were asked for."""
        if self.length is None:
            return min(512, context)
        if self.length > context:
            raise ValueError(f"length is {self.length}, and the model's context {context}; give at most that")
        return self.length


def _at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r}; give a whole number from {least} on")
