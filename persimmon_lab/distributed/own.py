"""`training.own.train_on` over several processes: the same tokenizer, rows and model from the same texts."""

from collections.abc import Sequence
from pathlib import Path

import torch

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.distributed.states import save_pretrained
from persimmon_lab.distributed.training import train
from persimmon_lab.distributed.world import World
from persimmon_lab.training.own import check_same_run, finish, set_up, split_paragraphs, tokenizer_file


def train_on(
    texts: Sequence[Path],
    out: Path,
    world: World,
    *,
    layers: int = 2,
    hidden: int = 128,
    context: int = 128,
    vocabulary: int = 2048,
    steps: int = 200,
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> str:
    """`training.own.train_on`, whose arguments and errors it shares; all ranks call it alike. The first one makes the
    tokenizer, the others wait for it; it also writes `out` and returns the sample, for which the others have ""."""
    training, held_out = split_paragraphs(texts, seed)
    if world.is_first:
        check_same_run(out, training, held_out, vocabulary)
        tokenizer_file(training, out, vocabulary)
    world.wait()
    path = tokenizer_file(training, out, vocabulary)  # which is there by now
    own = set_up(training, held_out, path, layers=layers, hidden=hidden, context=context, steps=steps, seed=seed)
    model = train(
        own.config, own.recipe, own.sources, own.held_out, out / "run", world, dtype=dtype,
        evaluate_every=own.evaluate_every, checkpoint_every=min(100, own.evaluate_every),
    )  # fmt: skip
    save_pretrained(model, out, world, torch.bfloat16)
    if not world.is_first:
        return ""
    return finish(PersimmonForCausalLM.from_pretrained(out, torch_dtype="auto"), path, out, own)
