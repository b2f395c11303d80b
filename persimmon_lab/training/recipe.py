"""All that decides the weights of a run besides its text: rates and their schedule, lengths, shares of the domains."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from persimmon_lab.config import PersimmonConfig
from persimmon_lab.training.batches import DRILLS, RowSource


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights, besides the text. Lengths are in tokens, the schedule in steps."""

    steps: int = 6000
    warmup_steps: int = 100
    decay_share: float = 0.3  # of the steps; until then the rate is constant, so `steps` can be chosen late
    tokens: int = 4096  # of a step
    # The length of the rows from a share of the steps on: short ones first, on which attention costs less.
    lengths: tuple[tuple[float, int], ...] = ((0.0, 128), (0.5, 256), (0.95, 512))
    matrix_rate: float = 2e-3
    rate: float = 3e-3
    weight_decay: float = 0.05
    embedding_std: float = 0.5
    head_std: float = 0.08
    copying: float = 0.25  # of what it attends to, an attention layer writes at the start
    seed: int = 20
    first_piece: int = 261  # after the special pieces and the 256 bytes
    # Shares of the rows. Chats come three times: whole, as short windows that end with an answer, and as openings.
    weights: Mapping[str, float] = field(
        default_factory=lambda: {
            "chat": 0.07,
            "exchanges": 0.03,
            "openings": 0.01,
            "questions": 0.01,
            "listening": 0.06,
            "everyday": 0.22,
            "talk": 0.06,
            "stories": 0.02,
            "skills": 0.27,
            "verse": 0.08,
            "scripture": 0.05,
            "code": 0.09,
            DRILLS: 0.03,
        }
    )
    # A phrase said again to the end of its row is also a lesson in looping: once the model can copy, few are enough.
    late: float = 0.8  # of the steps
    late_drills: float = 0.02

    def rate_scale(self, step: int, warmup_start: int = 0) -> float:
        """The rate at `step` (from 0) over the full rate: warm-up from the step that the run begins with, constant,
        linear decay to zero at `steps`."""
        risen = (step - warmup_start + 1) / self.warmup_steps
        return min(1.0, risen, (self.steps - step) / (self.decay_share * self.steps))

    def weights_at(self, step: int) -> dict[str, float]:
        """The share of each domain in the rows of `step`."""
        drills = self.late_drills if step >= self.late * self.steps else self.weights.get(DRILLS, 0.0)
        return {name: drills if name == DRILLS else share for name, share in self.weights.items()}

    def shape(self, step: int) -> tuple[int, int]:
        """(rows, length) of the batch at `step`."""
        length = next(length for start, length in reversed(self.lengths) if step >= start * self.steps)
        return max(1, self.tokens // length), length

    def tokens_until(self, step: int) -> int:
        """How many tokens the steps before `step` read."""
        return sum(rows * length for rows, length in map(self.shape, range(step)))


def check_fit(recipe: Recipe, config: PersimmonConfig, sources: Mapping[str, RowSource]) -> None:
    """Raises ValueError for rows longer than the context, and for domains that have a weight but no source; TypeError
    for a source that gives no rows."""
    for name, source in sources.items():
        if not callable(source):
            raise TypeError(
                f"the source {name!r} is a {type(source).__name__}; give what draws rows: batches.stretches(stream)"
            )
    longest = max(length for _, length in recipe.lengths)
    if longest > config.max_position_embeddings:
        raise ValueError(
            f"the recipe's longest rows have {longest} tokens, the model's context is "
            f"{config.max_position_embeddings}; shorten Recipe.lengths or enlarge max_position_embeddings"
        )
    missing = [name for name, weight in recipe.weights.items() if weight and name not in sources]
    if missing or not any(recipe.weights.values()):
        raise ValueError(
            f"Recipe.weights asks for {missing or 'nothing'}, but there are rows of {sorted(sources)}; name those: "
            f"Recipe(weights={dict.fromkeys(sorted(sources), 1.0)})"
        )
