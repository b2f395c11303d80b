"""persimmon-mini from nothing: text, tokenizer, training, export. What `persimmon-lab train mini` runs."""

import json
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors.torch import load_file

from persimmon_lab.atomic import write_atomically
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.mini.stages import YOUNGER, write_stage
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.training.batches import DRILLS, RowSource, drills, excerpts, load_streams, stretches, whole_documents
from persimmon_lab.training.card import measure, render
from persimmon_lab.training.conversation import read_judgement
from persimmon_lab.training.corpus import END, a_lesson, encode_one, prepare
from persimmon_lab.training.curves import loss_svg, skills_svg
from persimmon_lab.training.drills import Stream
from persimmon_lab.training.evaluate import copying_loss, induction_scores, repeated_rows
from persimmon_lab.training.grammar import an_everyday_chat
from persimmon_lab.training.history import History, Run
from persimmon_lab.training.recipe import Recipe
from persimmon_lab.training.skills.scoring import score_all
from persimmon_lab.training.templates import a_conversation, a_story
from persimmon_lab.training.trainer import read_metrics, restore, train

RECIPE = Recipe(steps=22_000)  # 90 million tokens
WORKDIR = Path.home() / ".cache" / "persimmon-lab" / "training"
# Domains that are written as they are read.
GENERATED = {"everyday": an_everyday_chat, "talk": a_conversation, "stories": a_story, "skills": a_lesson}
WRITINGS = ("verse", "scripture", "code")  # domains whose documents are longer than a row
SNAPSHOT_STEPS = (250, 500, 750, 1000, 1250, 1500, 1750, 2000, 2500, 3000, 4000, 6000)  # steps whose weights are kept
HISTORY = "history.json"
SHIPPED_STAGES = {"early": 500, "middle": 1500}  # of which these are published


def row_sources(corpus: Path, recipe: Recipe) -> dict[str, RowSource]:
    """Rows of every domain: of the corpus's streams, of what is made on the fly, and drills on the streams' text."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(corpus / "tokenizer.model"))

    def encode(text: str) -> Stream:
        return encode_one(text, processor, marked=True)

    streams = load_streams(corpus / "train")
    texts = [stretches(stream) for stream in streams.values()]
    end, newline = processor.piece_to_id(END), processor.piece_to_id("\n")
    sources = {
        name: excerpts(stream, end, newline) if name in WRITINGS else stretches(stream)
        for name, stream in streams.items()
    }
    sources |= {name: whole_documents(draw, encode, end) for name, draw in GENERATED.items()}
    sources[DRILLS] = drills(texts, recipe.first_piece, processor.get_piece_size())
    return sources


def mini_config(corpus: Path) -> PersimmonConfig:
    """The shipped model's shape: Persimmon-8B's proportions at a thousandth of its size."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(corpus / "tokenizer.model"))
    end = processor.piece_to_id(END)
    return PersimmonConfig(
        vocab_size=processor.get_piece_size(),
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=8,
        max_position_embeddings=512,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )


def train_mini(
    workdir: Path = WORKDIR,
    out: Path | None = None,
    *,
    steps: int = RECIPE.steps,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    start: Path | None = None,
    first_step: int = 0,
    progress: bool | None = None,
) -> PersimmonForCausalLM:
    """Make the corpus and train the model in `workdir`, going on from whatever is already there.

    With `out`, publish it there: weights, tokenizer and card. `steps` may be changed while the rate is still constant.
    `start` is a folder of weights that were exported at `first_step`, to go on from where `workdir` was lost.
    """
    corpus = prepare(workdir, tokenizer=None if start is None else start / "tokenizer.model", progress=progress)
    if not (commit := workdir / "commit").exists():  # the one that the run began with
        write_atomically(commit, present_commit().encode())
    recipe = replace(RECIPE, steps=steps)
    tokenizer = PersimmonTokenizer(corpus / "tokenizer.model")

    def on_evaluation(model: PersimmonForCausalLM, step: int) -> dict[str, Any] | None:
        if step in SNAPSHOT_STEPS:
            model.save_pretrained(stage_folder(workdir, step))
        return {"skills": score_all(model, tokenizer, count=40)} if step % 1000 == 0 else None

    model = train(
        mini_config(corpus),
        recipe,
        row_sources(corpus, recipe),
        load_streams(corpus / "held_out"),
        workdir / "run",
        dtype=dtype,
        device=device,
        start=None if start is None else load_file(start / "model.safetensors"),
        first_step=first_step,
        progress=progress,
        on_evaluation=on_evaluation,
    )
    if out is not None:
        publish(model, recipe, workdir, out, start, first_step)
    return model


def present_commit() -> str:
    """The commit of this package's checkout; "" where it is not in one."""
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def stage_folder(workdir: Path, step: int) -> Path:
    """Where the weights of an earlier step are kept."""
    return workdir / "run" / "stages" / f"step-{step:05d}"


def checkpointed_mini(workdir: Path = WORKDIR) -> PersimmonForCausalLM:
    """The model of the last checkpoint in `workdir`; a training that is under way is not disturbed."""
    return restore(workdir / "run" / "checkpoint.pt", mini_config(workdir / "corpus"), RECIPE)


def export(model: PersimmonForCausalLM, corpus: Path, out: Path) -> None:
    """Write weights (bfloat16), config, generation config and tokenizer to `out`, as `load_mini` reads them."""
    model.save_pretrained(out)
    PersimmonTokenizer(corpus / "tokenizer.model").save_pretrained(out)


def growth(workdir: Path, recipe: Recipe) -> list[dict[str, Any]]:
    """How well the model copied random pieces at each moment of its training that was kept."""
    moments = []
    for step in SNAPSHOT_STEPS:
        if (folder := stage_folder(workdir, step)).exists():
            model = PersimmonForCausalLM.from_pretrained(folder)
            rows = repeated_rows(model.config.vocab_size, recipe.first_piece, period=16, rows=16, seed=0)
            new, copied = copying_loss(model, rows)
            strongest = float(induction_scores(model, rows).max())
            tokens = recipe.tokens_until(step)
            moments.append({"step": step, "tokens": tokens, "new": new, "copied": copied, "strongest": strongest})
    return moments


def publish(
    model: PersimmonForCausalLM,
    recipe: Recipe,
    workdir: Path,
    out: Path,
    start: Path | None = None,
    first_step: int = 0,
) -> None:
    """`export`, also of the stages that the run came by, then measure the model and write MODEL_CARD.md, loss.svg,
    skills.svg, its history and, in `workdir`, report.json. What was before `first_step` is told by `start`."""
    export(model, workdir / "corpus", out)
    younger = out / YOUNGER
    younger.mkdir(exist_ok=True)
    for stage, step in SHIPPED_STAGES.items():
        name = f"{stage}.safetensors"
        if (weights := stage_folder(workdir, step) / "model.safetensors").exists():
            write_stage(younger / name, load_file(weights), step, recipe.tokens_until(step))
        elif start is not None and (earlier := start / YOUNGER / name).exists():
            write_atomically(younger / name, earlier.read_bytes())
    report = measure(model, workdir / "corpus", recipe)
    commit = workdir / "commit"
    report["commit"] = commit.read_text(encoding="utf-8") if commit.exists() else ""
    report["judged"] = read_judgement(workdir / "judged.json", report["conversation"]["greedy"]["said"])
    entries = list(read_metrics(workdir / "run" / "metrics.jsonl"))
    entries = [entry for entry in entries if entry["step"] < recipe.steps or "skills" not in entry]
    entries.append({"step": recipe.steps, "skills": report["skills"]})  # more instances than while it was trained
    history = (History() if start is None else History.read(start / YOUNGER / HISTORY)).followed_by(
        Run(first_step, recipe.steps, report["commit"], recipe.weights), entries, growth(workdir, recipe)
    )
    history.write(younger / HISTORY)
    report |= {"growth": history.growth, "runs": [asdict(run) for run in history.runs]}
    curve = loss_svg(history.entries, recipe.tokens, "persimmon-mini: training batches and held-out text")
    write_atomically(out / "loss.svg", curve.encode())
    curve = skills_svg(history.entries, recipe.tokens, "persimmon-mini: held-out instances of each skill")
    write_atomically(out / "skills.svg", curve.encode())
    write_atomically(workdir / "report.json", json.dumps(report, indent=2, ensure_ascii=False).encode())
    write_atomically(out / "MODEL_CARD.md", render(report, recipe).encode())
