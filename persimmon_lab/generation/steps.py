"""What decoding hands out: each step as it happens, and all of them at the end."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from persimmon_lab.generation.sampling import TokenChoice, describe_choice
from persimmon_lab.generation_config import GenerationConfig
from persimmon_lab.outputs import ModelOutput


@runtime_checkable
class Streamer(Protocol):
    """What takes tokens as they come, as transformers' TextStreamer does."""

    def put(self, value: Tensor, /) -> None:
        """Take ids: first the prompt, (batch, position), then one a row, (batch,); on the CPU."""

    def end(self) -> None:
        """Know that there are no more."""


@dataclass(frozen=True, eq=False)
class DecodingStep:
    """One new token per row. Tensors are float32 where they are logits; rows that had finished carry the pad id."""

    token_ids: Int[Tensor, "batch"]
    logits: Float[Tensor, "batch vocab"]
    """As the model gave them."""
    scores: Float[Tensor, "batch vocab"]
    """After penalties, the caller's own processors, temperature and filters: what the token was chosen from."""
    sequences: Int[Tensor, "batch position"]
    """The prompt and everything generated so far, this step's tokens included."""
    unfinished: Bool[Tensor, "batch"]
    """Rows that go on after this step."""
    is_last: bool
    past_key_values: Any
    config: GenerationConfig
    """The settings in force."""

    @property
    def result(self) -> Int[Tensor, "answer longest"]:
        """What `generate` returns if it ends here."""
        return self.sequences

    @property
    def result_scores(self) -> Float[Tensor, "answer"] | None:
        """The scores of the result where there are some: beam search's."""
        return None

    def choice(self, row: int = 0, alternatives: int = 10) -> TokenChoice:
        """How the chosen token stood in the model's own distribution, before penalty, temperature and filters."""
        return describe_choice(self.logits[row], int(self.token_ids[row]), alternatives)


class GenerateOutput(ModelOutput):
    """What `generate` returns with `return_dict_in_generate=True`; `scores` and `logits` have one tensor per step,
    with a row for each row that was decoded: with beams, each running beam."""

    sequences: Int[Tensor, "batch position"]
    sequences_scores: Float[Tensor, "batch"] | None = None
    """Of beam search: the sum of the new tokens' log-probabilities / number of them ** length_penalty."""
    scores: tuple[Float[Tensor, "row vocab"], ...] | None = None
    logits: tuple[Float[Tensor, "row vocab"], ...] | None = None
    past_key_values: Any = None
