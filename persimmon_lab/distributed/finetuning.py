"""The loop of `finetuning.loop` over several processes: the same examples, rows, rates and verdicts."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persimmon_lab.atomic import write_atomically
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.checkpoints.tensor_streams import bytes_of
from persimmon_lab.distributed.learner import Rows, ShardedLearner
from persimmon_lab.distributed.states import load_checkpoint, save_checkpoint, told_by, whole_weights
from persimmon_lab.distributed.training import Log, own_checkpoint
from persimmon_lab.distributed.world import World
from persimmon_lab.finetuning.encoding import encode_all
from persimmon_lab.finetuning.examples import Example, check_overlap
from persimmon_lab.finetuning.loop import Outcome
from persimmon_lab.finetuning.packing import Packed
from persimmon_lab.finetuning.settings import Settings
from persimmon_lab.finetuning.steps import rate_scale, steps_of_epoch
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
    check_overlap(training, held_out)
    length = settings.row_length(model.config.context_limit)
    taught, private = encode_all(training, tokenizer, length), encode_all(held_out, tokenizer, length)
    identity = _identity(model, repr((asdict(settings), taught, private)))
    rate = settings.highest_rate
    learner = ShardedLearner(
        model.float(), world, dtype=settings.compute_dtype, rate=rate, weight_decay=settings.weight_decay,
        matrix_rate=rate if settings.optimiser == "muon" else None, clip=settings.clip,
    )  # fmt: skip
    epochs = [steps_of_epoch(taught, settings, length, epoch) for epoch in range(settings.epochs)]
    plan = [[_rows(batch) for batch in step] for epoch in epochs for step in epoch]
    exams = (
        [_rows(batch) for step in steps_of_epoch(private, settings, length, None) for batch in step] if private else []
    )
    every = settings.evaluate_every or max(1, len(epochs[0]) // 2)
    with world.holding(folder):
        lesson = _Lesson(folder, learner, exams, settings, identity)
        if not lesson.step and exams:
            lesson.look()
        while lesson.step < len(plan) and not lesson.is_over:
            scale = rate_scale(lesson.step, len(plan), settings)
            lesson.learn(plan[lesson.step], scale)
            is_last = lesson.step == len(plan)
            evaluated = bool(exams) and (lesson.step % every == 0 or is_last)
            if evaluated:
                lesson.look()
            if evaluated or lesson.step % settings.checkpoint_every == 0 or is_last:
                lesson.save()
    history: tuple[dict[str, Any], ...] = ()
    if exams:
        learner.load({f"weights.{name}": weight for name, weight in lesson.best.items()})
    weights = whole_weights(model, world)
    if world.is_first:
        history = tuple(read_metrics(folder / "metrics.jsonl"))
        tokens = sum(rows.input_ids.numel() for step in plan for rows in step) // len(plan)
        write_atomically(folder / "loss.svg", loss_svg(history, tokens, "fine-tuning").encode())
    cut = [document.cut for document in (*taught, *private) if document.cut]
    told = lesson.told
    first, best = (math.nan if told[name] is None else told[name] for name in ("first", "best_loss"))
    best_step = told["best_step"] if exams else lesson.step
    return Outcome(history, weights, lesson.step, best_step, first, best, length, len(cut), sum(cut))


class _Lesson:
    """A run: where it stands, what it has seen, and the best weights by held-out loss, a part on each rank."""

    def __init__(
        self, folder: Path, learner: ShardedLearner, exams: Sequence[Rows], settings: Settings, identity: str
    ) -> None:
        self.folder, self.learner, self.exams, self.settings, self.identity = folder, learner, exams, settings, identity
        self.told: dict[str, Any] = {"step": 0, "best_step": 0, "first": None, "best_loss": None, "waited": 0}
        self.best = self._weights()
        if (checkpoint := own_checkpoint(folder, identity)) is not None:
            self.best = load_checkpoint(checkpoint, learner)
            self.told = told_by(checkpoint)["lesson"]
        self.log = Log(folder / "metrics.jsonl", self.step, learner.world)

    @property
    def step(self) -> int:
        """How many steps were made."""
        step: int = self.told["step"]
        return step

    @property
    def is_over(self) -> bool:
        """Whether it got no better for as long as it is given."""
        return self.settings.patience is not None and self.told["waited"] >= self.settings.patience

    def learn(self, batches: Sequence[Rows], scale: float) -> None:
        """One step. Raises FloatingPointError for a loss that is not finite."""
        world, model = self.learner.world, self.learner.model
        model.train()
        with torch.random.fork_rng(devices=[world.device] if world.device.type == "cuda" else []):
            torch.manual_seed((self.settings.seed * 1_000_003 + self.step) * world.size + world.rank)
            loss = self.learner.add_gradients(batches)
        norm = self.learner.step(scale)
        model.eval()
        self.told["step"] += 1
        self.log.add({"step": self.step, "loss": loss, "norm": norm})
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss of step {self.step} is {loss}; lower the rate, or compute in float32")

    def look(self) -> None:
        """Take the held-out loss, and remember the weights if it is the best so far."""
        self.learner.model.eval()
        now, told = self.learner.loss_of(self.exams), self.told
        self.log.add({"step": self.step, "held_out": {"held out": now}})
        if told["first"] is None:
            told |= {"first": now, "best_loss": now}
        elif now < told["best_loss"]:
            told |= {"best_step": self.step, "best_loss": now, "waited": 0}
            self.best = self._weights()
        else:
            told["waited"] += 1

    def save(self) -> None:
        """A checkpoint to go on from."""
        told = {"step": self.step, "identity": self.identity, "lesson": self.told}
        save_checkpoint(self.folder, self.learner, told, self.best)

    def _weights(self) -> dict[str, Float[Tensor, "..."]]:
        return {name: weight.detach().clone() for name, weight in self.learner.weights.items()}


def _rows(batch: Packed) -> Rows:
    return Rows(batch.input_ids, batch.following, batch.position_ids)


def _identity(model: PersimmonForCausalLM, lesson: str) -> str:
    """What a checkpoint must have in common with the run that goes on from it: settings, examples, every weight."""
    digest = hashlib.sha256((lesson + repr(model.config.to_dict())).encode())
    for name, weight in model.named_parameters():
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)} {weight.requires_grad}".encode())
        digest.update(bytes_of(weight))
    return digest.hexdigest()
