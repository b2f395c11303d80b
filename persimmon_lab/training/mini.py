"""persimmon-mini from nothing: text, tokenizer, training, export. What `persimmon-lab train mini` runs."""

from dataclasses import replace
from pathlib import Path

import sentencepiece

from persimmon_lab.config import PersimmonConfig
from persimmon_lab.model import PersimmonForCausalLM
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.training.batches import load_streams
from persimmon_lab.training.corpus import END, VOCABULARY, prepare
from persimmon_lab.training.trainer import Recipe, restore, train

RECIPE = Recipe(steps=3800)
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
    """Make the corpus and train the model in `workdir`, going on from whatever is already there; export to `out`.

    `steps` may be changed while the rate is still constant, the first 70% of the steps.
    """
    corpus = prepare(workdir, progress=progress)
    model = train(
        mini_config(corpus),
        replace(RECIPE, steps=steps),
        load_streams(corpus / "train"),
        load_streams(corpus / "held_out"),
        workdir / "run",
        compile_model=compile_model,
        progress=progress,
    )
    if out is not None:
        export(model, corpus, out)
    return model


def checkpointed_mini(workdir: Path = WORKDIR) -> PersimmonForCausalLM:
    """The model of the last checkpoint in `workdir`; a training that is under way is not disturbed."""
    return restore(workdir / "run" / "checkpoint.pt", mini_config(workdir / "corpus"), RECIPE)


def export(model: PersimmonForCausalLM, corpus: Path, out: Path) -> None:
    """Write weights (bfloat16), config, generation config and tokenizer to `out`, as `load_mini` reads them."""
    model.save_pretrained(out)
    PersimmonTokenizer(corpus / "tokenizer.model").save_pretrained(out)
