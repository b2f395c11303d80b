"""persimmon-mini from nothing: text, tokenizer, training, export. What `persimmon-lab train mini` runs."""

import json
from dataclasses import replace
from pathlib import Path

import sentencepiece

from persimmon_lab.config import PersimmonConfig
from persimmon_lab.heads import PersimmonForCausalLM
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.training.batches import load_streams
from persimmon_lab.training.card import measure, render
from persimmon_lab.training.corpus import END, VOCABULARY, prepare, write_atomically
from persimmon_lab.training.curves import loss_svg
from persimmon_lab.training.trainer import Recipe, read_metrics, restore, train

RECIPE = Recipe(steps=2800)
WORKDIR = Path.home() / ".cache" / "persimmon-lab" / "training"


def mini_config(corpus: Path) -> PersimmonConfig:
    """The shipped model's shape: Persimmon-8B's proportions at a thousandth of its size."""
    end = sentencepiece.SentencePieceProcessor(model_file=str(corpus / "tokenizer.model")).piece_to_id(END)
    return PersimmonConfig(
        vocab_size=VOCABULARY,
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
    compile_model: bool = False,
    progress: bool | None = None,
) -> PersimmonForCausalLM:
    """Make the corpus and train the model in `workdir`, going on from whatever is already there.

    With `out`, publish it there: weights, tokenizer and card. `steps` may be changed while the rate is still constant.
    """
    corpus = prepare(workdir, progress=progress)
    recipe = replace(RECIPE, steps=steps)
    model = train(
        mini_config(corpus),
        recipe,
        load_streams(corpus / "train"),
        load_streams(corpus / "held_out"),
        workdir / "run",
        compile_model=compile_model,
        progress=progress,
    )
    if out is not None:
        publish(model, recipe, workdir, out)
    return model


def checkpointed_mini(workdir: Path = WORKDIR) -> PersimmonForCausalLM:
    """The model of the last checkpoint in `workdir`; a training that is under way is not disturbed."""
    return restore(workdir / "run" / "checkpoint.pt", mini_config(workdir / "corpus"), RECIPE)


def export(model: PersimmonForCausalLM, corpus: Path, out: Path) -> None:
    """Write weights (bfloat16), config, generation config and tokenizer to `out`, as `load_mini` reads them."""
    model.save_pretrained(out)
    PersimmonTokenizer(corpus / "tokenizer.model").save_pretrained(out)


def publish(model: PersimmonForCausalLM, recipe: Recipe, workdir: Path, out: Path) -> None:
    """`export`, then measure the model and write MODEL_CARD.md, loss.svg and, in `workdir`, report.json."""
    export(model, workdir / "corpus", out)
    entries = read_metrics(workdir / "run" / "metrics.jsonl")
    curve = loss_svg(entries, recipe.tokens, "persimmon-mini: training batches and held-out text")
    write_atomically(out / "loss.svg", curve.encode())
    report = measure(model, workdir / "corpus", recipe)
    write_atomically(workdir / "report.json", json.dumps(report, indent=2, ensure_ascii=False).encode())
    write_atomically(out / "MODEL_CARD.md", render(report, recipe).encode())
