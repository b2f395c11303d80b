"""How a model answers a hundred everyday openings, by writers who had not seen what it was trained on."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.tokenizer.chat import render_chat
from persimmon_lab.tokenizer.files import read_json

OPENINGS = tuple(files(__package__).joinpath("openings.txt").read_text(encoding="utf-8").split("\n")[:-1])
NEW_TOKENS = 120
WAYS: Mapping[str, Mapping[str, Any]] = {
    "greedy": {"do_sample": False},
    "temperature 0.7": {"do_sample": True, "temperature": 0.7, "seed": 0},
}


@dataclass(frozen=True)
class Answer:
    """What was said to an opening, whether four tokens in a row came three times in it, and whether it ended."""

    opening: str
    said: str
    loops: bool
    ends: bool


def loops(ids: Sequence[int], size: int = 4, times: int = 3) -> bool:
    """Whether any `size` tokens in a row come at least `times` times."""
    runs = Counter(tuple(ids[start : start + size]) for start in range(len(ids) - size + 1))
    return max(runs.values(), default=0) >= times


def answers(
    model: nn.Module, tokenizer: PersimmonTokenizer, way: str = "greedy", openings: Sequence[str] = OPENINGS
) -> list[Answer]:
    """The answer to each opening as the first turn of a chat, of up to 120 tokens; `way` is one of WAYS."""
    generate: Any = model.generate
    end = tokenizer.eos_token_id
    given = []
    for opening in openings:
        ids = torch.tensor([tokenizer.encode(render_chat(opening))])
        said = generate(ids, max_new_tokens=NEW_TOKENS, **WAYS[way])[0, ids.shape[1] :].tolist()
        text = tokenizer.decode(said, skip_special_tokens=True).strip()
        given.append(Answer(opening, text, loops(said), end in said))
    return given


def summary(given: Sequence[Answer]) -> dict[str, Any]:
    """The share that loops, the share that ends, and all that was said: fit for JSON."""
    return {
        "loops": sum(answer.loops for answer in given) / len(given),
        "ends": sum(answer.ends for answer in given) / len(given),
        "said": [[answer.opening, answer.said] for answer in given],
    }


def said_hash(said: Sequence[Sequence[str]]) -> str:
    """What a judgement knows the answers by that it judged."""
    return hashlib.sha256(json.dumps(said, ensure_ascii=False).encode()).hexdigest()[:16]


def read_judgement(path: Path, said: Sequence[Sequence[str]]) -> list[int] | None:
    """How many answers each reader found sensible, from a JSON object with `answers` (their `said_hash`) and
    `sensible`; None where there is no such file, or where it judged other answers. ValueError where it is no such
    object."""
    if not path.exists():
        return None
    judged = read_json(path)
    return [int(count) for count in judged["sensible"]] if judged["answers"] == said_hash(said) else None
