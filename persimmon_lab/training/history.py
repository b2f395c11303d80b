"""What a run leaves to the one that goes on from its weights: how it was made, its curves and its kept moments."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from persimmon_lab.atomic import write_atomically
from persimmon_lab.tokenizer.files import read_json

LOSSES = 150  # of single training batches that are kept of a run, at most


@dataclass(frozen=True)
class Run:
    """Steps after `first` up to `last`, by one commit and with one set of shares."""

    first: int
    last: int
    commit: str
    weights: Mapping[str, float]


@dataclass(frozen=True)
class History:
    """All runs that led to a model, oldest first, the entries of their logs and the moments of `growth`."""

    runs: Sequence[Run] = ()
    entries: Sequence[Mapping[str, Any]] = ()
    growth: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a file of `write`; empty where there is none. ValueError where it is no JSON object."""
        if not path.exists():
            return cls()
        content = read_json(path)
        return cls([Run(**run) for run in content["runs"]], content["entries"], content["growth"])

    def followed_by(
        self, run: Run, entries: Sequence[Mapping[str, Any]], growth: Sequence[Mapping[str, Any]]
    ) -> "History":
        """With a run that went on from here: what this history has of the steps before it, and all of the run's own."""
        kept = [entry for entry in self.entries if entry["step"] <= run.first]
        moments = [moment for moment in self.growth if moment["step"] <= run.first]
        losses = [entry["step"] for entry in entries if "loss" in entry]
        apart = -(-len(losses) // LOSSES) or 1
        drawn = {*losses[::-1][::apart]}  # the last one always
        own = [_short(entry) for entry in entries if "loss" not in entry or entry["step"] in drawn]
        return History([*self.runs, run], [*kept, *own], [*moments, *growth])

    def write(self, path: Path) -> None:
        write_atomically(path, (json.dumps(asdict(self), separators=(",", ":")) + "\n").encode())


def _short(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What the curves need of an entry of the log."""
    if "skills" in entry:
        scores = {name: {"right": score["right"], "count": score["count"]} for name, score in entry["skills"].items()}
        return {"step": entry["step"], "skills": scores}
    if "held_out" in entry:
        return {"step": entry["step"], "held_out": {name: round(loss, 4) for name, loss in entry["held_out"].items()}}
    return {"step": entry["step"], "loss": round(entry["loss"], 4)}
