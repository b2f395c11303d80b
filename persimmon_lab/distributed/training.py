"""The loop of `training.trainer` over several processes: the same recipe, rows and rates, a part of the model each."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from persimmon_lab.atomic import write_atomically
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.distributed.learner import Rows, ShardedLearner
from persimmon_lab.distributed.states import last_checkpoint, load_checkpoint, save_checkpoint, told_by
from persimmon_lab.distributed.world import World
from persimmon_lab.training.batches import RowSource, batch_at, plain
from persimmon_lab.training.drills import Stream
from persimmon_lab.training.optimiser import fast_dtype
from persimmon_lab.training.recipe import Recipe, check_fit
from persimmon_lab.training.trainer import build, evaluated_rows, faster_attention, read_metrics

ROWS = 16  # of a batch of held-out text, as in `trainer.held_out_loss`


def train(
    config: PersimmonConfig,
    recipe: Recipe,
    sources: Mapping[str, RowSource],
    held_out: Mapping[str, Stream],
    folder: Path,
    world: World,
    *,
    dtype: torch.dtype | None = None,
    checkpoint_every: int = 100,
    evaluate_every: int = 250,
    log_every: int = 25,
) -> PersimmonForCausalLM:
    """Train from the last checkpoint in `folder`, or from nothing, to `recipe.steps`; all ranks call it alike. Returns
    the sharded model, in float32: `states.save_pretrained` makes a folder of it.

    What is learned is what `trainer.train` learns, up to the order of sums. Each rank makes the whole batch of a step
    and reads its rows; the fresh model is drawn whole on each rank before it is sharded, so it has to fit there once.
    `folder` gets checkpoint-STEP/ and metrics.jsonl; other processes, and another number of them, may go on from there.

    Raises ValueError and, on the first rank, OSError where `trainer.train` does.
    """
    check_fit(recipe, config, sources)
    dtype = dtype or fast_dtype(world.device)
    model, _ = build(config, recipe, torch.float32, world.device)
    learner = ShardedLearner(
        model, world, dtype=dtype, matrix_rate=recipe.matrix_rate, rate=recipe.rate,
        weight_decay=recipe.weight_decay, fused=True,
    )  # fmt: skip
    identity = {"config": config.to_dict(), "recipe": {k: v for k, v in asdict(recipe).items() if k != "steps"}}
    identity = json.loads(json.dumps(identity))
    with world.holding(folder):
        first = resumed(folder, identity, learner)
        log = Log(folder / "metrics.jsonl", first, world)
        for step in range(first, recipe.steps):
            rows, length = recipe.shape(step)
            model.set_attn_implementation(faster_attention(dtype, world.device, length))
            tokens, targets = batch_at(
                step, seed=recipe.seed, sources=sources, weights=recipe.weights_at(step), rows=rows, length=length
            )
            loss = learner.add_gradients([Rows(tokens, targets)])
            norm = learner.step(recipe.rate_scale(step))
            done = step + 1
            is_last = done == recipe.steps
            if done % log_every == 0 or is_last:
                log.add({"step": done, "loss": loss, "norm": norm})
            if done % evaluate_every == 0 or is_last:
                model.eval()
                length, most = evaluated_rows(config)
                losses = {
                    name: learner.loss_of(held_out_rows(stream, length)[:most]) for name, stream in held_out.items()
                }
                log.add({"step": done, "held_out": losses})
                model.train()
            if done % checkpoint_every == 0 or is_last:
                save_checkpoint(folder, learner, {"step": done, "identity": identity})
    return model.eval()


def resumed(folder: Path, identity: Mapping[str, Any] | str, learner: ShardedLearner) -> int:
    """Give the learner what the last checkpoint has; its step, 0 where there is none."""
    checkpoint = own_checkpoint(folder, identity)
    if checkpoint is None:
        return 0
    load_checkpoint(checkpoint, learner)
    step: int = told_by(checkpoint)["step"]
    return step


def own_checkpoint(folder: Path, identity: Mapping[str, Any] | str) -> Path | None:
    """The last checkpoint of a run. Raises ValueError for one of another recipe, configuration or lesson."""
    checkpoint = last_checkpoint(folder)
    if checkpoint is not None and told_by(checkpoint)["identity"] != identity:
        raise ValueError(f"{checkpoint} was made by another run (recipe, config or lesson); use another folder")
    return checkpoint


class Log:
    """metrics.jsonl, written by the first rank; entries of steps that will be made again go."""

    def __init__(self, path: Path, step: int, world: World) -> None:
        self.path, self.is_writer = path, world.is_first
        if self.is_writer:
            path.parent.mkdir(parents=True, exist_ok=True)
            entries = [entry for entry in read_metrics(path) if entry["step"] <= step]
            write_atomically(path, "".join(json.dumps(entry) + "\n" for entry in entries).encode())

    def add(self, entry: Mapping[str, Any]) -> None:
        if self.is_writer:
            with self.path.open("a") as file:
                file.write(json.dumps(entry) + "\n")


def held_out_rows(stream: Stream, length: int) -> list[Rows]:
    """A held-out stream in batches of rows, as `trainer.held_out_loss` cuts it."""
    tokens = torch.from_numpy(plain(stream).astype("int64"))
    return list(_batches(tokens, length))


def _batches(tokens: Int[Tensor, "position"], length: int) -> Iterator[Rows]:
    count = (len(tokens) - 1) // length
    rows = [tokens[row * length : (row + 1) * length + 1] for row in range(count)] or [tokens]
    for start in range(0, len(rows), ROWS):
        batch = torch.stack(rows[start : start + ROWS])
        yield Rows(batch[:, :-1], batch[:, 1:])
