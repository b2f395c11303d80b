"""What a model made of an item, and what of it is kept: enough to judge and compare again without the model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from persimmon_lab.evaluation.items import Item
from persimmon_lab.evaluation.likelihood import NORMALISATIONS, PLAIN, Likelihood, pick

GENERATED = "generated"
WAYS = (GENERATED, *NORMALISATIONS)  # in which an item can be right
KEPT = ("number", "group", "prompt", "answer", "choices", "correct", "context", "shots")  # of an item


@dataclass(frozen=True)
class Verdicts:
    """A text and whether it is right, the likelihoods of the choices and which of them is picked."""

    text: str
    is_right: bool
    likelihoods: tuple[Likelihood, ...] = ()

    def right(self, way: str, correct: int | None) -> bool | None:
        """Whether the item was answered right, by one of WAYS; None where it has no choices to pick from."""
        if way == GENERATED:
            return self.is_right
        return pick(self.likelihoods, way) == correct if self.likelihoods else None


@dataclass(frozen=True)
class Answered:
    """An item, the model's verdicts, the 5-gram's, and, where the item was asked again alone, those of that."""

    item: Item
    model: Verdicts
    floor: Verdicts
    alone: Verdicts | None = None

    def right(self, way: str) -> bool | None:
        return self.model.right(way, self.item.correct)

    def changed(self) -> tuple[str, ...]:
        """The ways in which the item, asked alone, was judged otherwise than in its batch."""
        if self.alone is None:
            return ()
        return tuple(way for way in WAYS if self.alone.right(way, self.item.correct) != self.right(way))

    def contradicts(self) -> bool:
        """Whether what the model wrote is right and its most probable choice wrong, or the other way round."""
        return self.right(PLAIN) not in (None, self.right(GENERATED))

    def disagrees(self) -> bool:
        """Whether the normalisations pick different choices."""
        return len({pick(self.model.likelihoods, by) for by in NORMALISATIONS}) > 1

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON; floats survive it to the bit."""
        item = {name: getattr(self.item, name) for name in KEPT}
        item["choices"] = list(self.item.choices)
        return {
            **item,
            "model": _verdicts_to_dict(self.model),
            "floor": _verdicts_to_dict(self.floor),
            "alone": None if self.alone is None else _verdicts_to_dict(self.alone),
        }

    @classmethod
    def from_dict(cls, task: str, entry: Mapping[str, Any]) -> "Answered":
        item = Item(task, **{name: entry[name] for name in KEPT if name != "choices"}, choices=tuple(entry["choices"]))
        alone = entry["alone"]
        return cls(
            item,
            _verdicts_from_dict(entry["model"]),
            _verdicts_from_dict(entry["floor"]),
            None if alone is None else _verdicts_from_dict(alone),
        )


def _verdicts_to_dict(verdicts: Verdicts) -> dict[str, Any]:
    return {
        "text": verdicts.text,
        "is_right": verdicts.is_right,
        "likelihoods": [asdict(likelihood) for likelihood in verdicts.likelihoods],
    }


def _verdicts_from_dict(entry: Mapping[str, Any]) -> Verdicts:
    return Verdicts(
        entry["text"], entry["is_right"], tuple(Likelihood(**likelihood) for likelihood in entry["likelihoods"])
    )
