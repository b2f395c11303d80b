"""The loop of `finetuning.loop` over several processes: the same examples, rows, rates and verdicts."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persimmon_lab.atomic import write_atomically
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.distributed.learner import Rows, ShardedLearner
from persimmon_lab.distributed.states import load_checkpoint, save_checkpoint, told_by, whole_weights
from persimmon_lab.distributed.training import Log, own_checkpoint
from persimmon_lab.distributed.world import World
from persimmon_lab.finetuning.examples import Example
from persimmon_lab.finetuning.loop import Outcome
from persimmon_lab.finetuning.packing import Packed
from persimmon_lab.finetuning.settings import Settings
from persimmon_lab.finetuning.steps import make_plan, rate_scale, run_identity
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.training.curves import loss_svg
from persimmon_lab.training.trainer import read_metrics


def finetune(
    model: PersimmonForCausalLM,
    tokenizer: PersimmonTokenizer,
    training: Sequence[Example],
    held_out: Sequence[Example],
    settings: Settings,
    folder: Path,
    world: World,
) -> Outcome:
    """Teach `model`, which every rank has whole and alike; all ranks call it. It is sharded, in float32, and
    left with the best weights in eval mode; `Outcome.weights` has them whole and `history` its entries on the first
    rank alone.

    What is learned is what `finetuning.finetune` learns, up to the order of sums; with dropout the ranks draw their
    own. `folder` gets checkpoint-STEP/, metrics.jsonl and loss.svg, and any number of processes goes on from
    there.

    Raises ValueError for adapters (they are small: one process trains them) and for what `finetune` refuses, OSError on
    the first rank where another run has `folder`, and FloatingPointError for a loss that is not finite.
    """
    if settings.rank is not None or settings.float16_without_masters:
        raise ValueError(
            "several processes train whole weights with float32 masters; adapters (--lora) and float16 without masters "
            "are for one process"
        )
    plan = make_plan(training, held_out, tokenizer, settings, model.config.context_limit)
    identity = run_identity(model, model.config, settings, plan)
    rate = settings.highest_rate
    learner = ShardedLearner(
        model.float(), world, dtype=settings.compute_dtype, rate=rate, weight_decay=settings.weight_decay,
        matrix_rate=rate if settings.optimiser == "muon" else None, clip=settings.clip,
    )  # fmt: skip
    steps = [[_rows(batch) for batch in step] for step in plan.steps]
    held_out_rows = [_rows(batch) for batch in plan.held_out_batches]
    with world.holding(folder):
        run = _Run(folder, learner, held_out_rows, settings, identity)
        if not run.step and held_out_rows:
            run.evaluate()
        while run.step < len(steps) and not run.is_over:
            scale = rate_scale(run.step, len(steps), settings)
            run.learn(steps[run.step], scale)
            is_last = run.step == len(steps)
            evaluated = bool(held_out_rows) and (run.step % plan.evaluate_every == 0 or is_last)
            if evaluated:
                run.evaluate()
            if evaluated or run.step % settings.checkpoint_every == 0 or is_last:
                run.save()
    history: tuple[dict[str, Any], ...] = ()
    if held_out_rows:
        learner.load({f"weights.{name}": weight for name, weight in run.best.items()})
    weights = whole_weights(model, world)
    if world.is_first:
        history = tuple(read_metrics(folder / "metrics.jsonl"))
        write_atomically(folder / "loss.svg", loss_svg(history, plan.tokens_per_step, "fine-tuning").encode())
    first, best = (math.nan if run.state[name] is None else run.state[name] for name in ("first", "best_loss"))
    best_step = run.state["best_step"] if held_out_rows else run.step
    return Outcome(history, weights, run.step, best_step, first, best, plan.length, len(plan.cut), sum(plan.cut))


class _Run:
    """A run: where it stands, what it has seen, and the best weights by held-out loss, a part on each rank."""

    def __init__(
        self, folder: Path, learner: ShardedLearner, held_out: Sequence[Rows], settings: Settings, identity: str
    ) -> None:
        self.folder = folder
        self.learner = learner
        self.held_out = held_out
        self.settings = settings
        self.identity = identity
        self.state: dict[str, Any] = {"step": 0, "best_step": 0, "first": None, "best_loss": None, "waited": 0}
        self.best = self._weights()
        if (checkpoint := own_checkpoint(folder, identity)) is not None:
            self.best = load_checkpoint(checkpoint, learner)
            self.state = told_by(checkpoint)["lesson"]
        self.log = Log(folder / "metrics.jsonl", self.step, learner.world)

    @property
    def step(self) -> int:
        """How many steps were made."""
        step: int = self.state["step"]
        return step

    @property
    def is_over(self) -> bool:
        """Whether it got no better for as long as it is given."""
        return self.settings.patience is not None and self.state["waited"] >= self.settings.patience

    def learn(self, batches: Sequence[Rows], scale: float) -> None:
        """One step. Raises FloatingPointError for a loss that is not finite."""
        world, model = self.learner.world, self.learner.model
        model.train()
        with torch.random.fork_rng(devices=[world.device] if world.device.type == "cuda" else []):
            torch.manual_seed((self.settings.seed * 1_000_003 + self.step) * world.size + world.rank)
            loss = self.learner.add_gradients(batches)
        norm = self.learner.step(scale)
        model.eval()
        self.state["step"] += 1
        self.log.add({"step": self.step, "loss": loss, "norm": norm})
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss of step {self.step} is {loss}; lower the rate, or compute in float32")

    def evaluate(self) -> None:
        """Take the held-out loss, and remember the weights if it is the best so far."""
        self.learner.model.eval()
        loss = self.learner.loss_of(self.held_out)
        self.log.add({"step": self.step, "held_out": {"held out": loss}})
        if self.state["first"] is None:
            self.state |= {"first": loss, "best_loss": loss}
        elif loss < self.state["best_loss"]:
            self.state |= {"best_step": self.step, "best_loss": loss, "waited": 0}
            self.best = self._weights()
        else:
            self.state["waited"] += 1

    def save(self) -> None:
        """A checkpoint to go on from."""
        about = {"step": self.step, "identity": self.identity, "lesson": self.state}
        save_checkpoint(self.folder, self.learner, about, self.best)

    def _weights(self) -> dict[str, Float[Tensor, "..."]]:
        return {name: weight.detach().clone() for name, weight in self.learner.weights.items()}


def _rows(batch: Packed) -> Rows:
    return Rows(batch.input_ids, batch.targets, batch.position_ids)
