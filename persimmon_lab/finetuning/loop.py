"""The loop of fine-tuning: it learns, watches the held-out loss, keeps the best, and goes on after any interruption."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from persimmon_lab.atomic import alone, replacing, write_atomically
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.checkpoints.tensor_streams import bytes_of
from persimmon_lab.finetuning.encoding import Encoded, encode_all
from persimmon_lab.finetuning.examples import Example, check_overlap
from persimmon_lab.finetuning.learner import Learner, Weights, loss_of
from persimmon_lab.finetuning.lora import PAIR
from persimmon_lab.finetuning.memory import check_memory
from persimmon_lab.finetuning.settings import Settings
from persimmon_lab.finetuning.steps import rate_scale, steps_of_epoch
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.training.curves import loss_svg

OnEvaluation = Callable[[int], None]  # given the step


@dataclass(frozen=True)
class Outcome:
    """What came of it. `history` has the entries of metrics.jsonl; `weights` are the best ones as they were trained, in
    float32 where there were masters, by the names of the model's parameters; losses are nats per learned token. `cut`
    counts the examples, taught or held out, that were longer than a row of `length` tokens, `left_out` their tokens
    that nobody read."""

    history: tuple[Mapping[str, Any], ...]
    weights: Weights
    steps: int
    best_step: int
    first_loss: float
    best_loss: float
    length: int
    cut: int
    left_out: int

    @property
    def failed_at(self) -> int | None:
        """The step whose loss was not finite, at which a run in float16 without masters ends."""
        return next(
            (entry["step"] for entry in self.history if "loss" in entry and not math.isfinite(_loss_in(entry))), None
        )


def finetune(
    model: PersimmonForCausalLM,
    tokenizer: PersimmonTokenizer,
    training: Sequence[Example],
    held_out: Sequence[Example],
    settings: Settings,
    folder: Path,
    progress: bool | None = None,
    on_evaluation: OnEvaluation | None = None,
) -> Outcome:
    """Teach `model` what asks for gradients in it; it is left in `settings.dtype` with the best weights, in eval mode.

    `folder` gets checkpoint.pt, metrics.jsonl and loss.svg. Started again there with the same arguments it goes on from
    the checkpoint to the same bits: order and dropout are drawn from seed and step. The caller's random state stays.

    Raises ValueError for a checkpoint of another run, OSError where another process trains in `folder`, MemoryError
    where what learns has no room, and FloatingPointError for a loss that is not finite.
    """
    check_overlap(training, held_out)
    length = settings.row_length(model.config.context_limit)
    taught, private = encode_all(training, tokenizer, length), encode_all(held_out, tokenizer, length)
    identity = _identity(model, taught, private, settings)
    check_memory(model, settings)
    learner = Learner(model, settings)
    epochs = [steps_of_epoch(taught, settings, length, epoch) for epoch in range(settings.epochs)]
    plan = [step for epoch in epochs for step in epoch]
    exams = [batch for step in steps_of_epoch(private, settings, length, None) for batch in step] if private else []
    every = settings.evaluate_every or max(1, len(epochs[0]) // 2)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        checkpoint = folder / "checkpoint.pt"
        state: dict[str, Any] = {"step": 0, "history": [], "best": learner.snapshot(), "best_step": 0, "waited": 0}
        if checkpoint.exists():
            state = torch.load(checkpoint, weights_only=True, map_location=model.device)
            if state["identity"] != identity:
                raise ValueError(
                    f"{checkpoint} is of other examples, settings or weights; use another folder or delete it"
                )
            learner.load(state["masters"])
            for optimiser, saved in zip(learner.optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(saved)
        elif exams:
            state["first"] = state["best_loss"] = loss_of(model.eval(), exams)
            state["history"].append({"step": 0, "held_out": {"held out": state["first"]}})
        history = state["history"]
        stopped = settings.patience is not None and state["waited"] >= settings.patience
        bar = tqdm(
            total=len(plan), initial=state["step"], desc="finetune", disable=None if progress is None else not progress
        )
        for step in range(state["step"], 0 if stopped else len(plan)):
            learned = sum(batch.learned for batch in plan[step])
            model.train()
            with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
                torch.manual_seed(settings.seed * 1_000_003 + step)
                loss = sum(learner.add_gradients(batch, learned) for batch in plan[step]) / learned
            norm = learner.step(settings.highest_rate * rate_scale(step, len(plan), settings))
            model.eval()
            done = state["step"] = step + 1
            history.append({"step": done, "loss": loss, "norm": norm})
            if not math.isfinite(loss):
                if settings.float16_without_masters:
                    break
                raise FloatingPointError(f"the loss of step {done} is {loss}; lower the rate, or compute in float32")
            evaluated = bool(exams) and (done % every == 0 or done == len(plan))
            if evaluated:
                now = loss_of(model, exams)
                history.append({"step": done, "held_out": {"held out": now}})
                if now < state["best_loss"]:
                    state |= {"best": learner.snapshot(), "best_step": done, "best_loss": now, "waited": 0}
                else:
                    state["waited"] += 1
            if evaluated or done % settings.checkpoint_every == 0 or done == len(plan):
                masters = {name: master.detach() for name, master in learner.masters.items()}
                optimisers = [optimiser.state_dict() for optimiser in learner.optimisers]
                content = state | {"identity": identity, "masters": masters, "optimisers": optimisers}
                with replacing(checkpoint) as temporary:
                    torch.save(content, temporary)
                _write_metrics(folder, history)
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}")
            if evaluated and on_evaluation is not None:
                on_evaluation(done)
            if settings.patience is not None and state["waited"] >= settings.patience:
                break
        bar.close()
        if exams:
            learner.load(state["best"])
        tokens = sum(batch.input_ids.numel() for step in plan for batch in step) // len(plan)
        _write_metrics(folder, history)
        drawn = [entry for entry in history if math.isfinite(_loss_in(entry))]
        write_atomically(folder / "loss.svg", loss_svg(drawn, tokens, "fine-tuning").encode())
        first, best = state.get("first", math.nan), state.get("best_loss", math.nan)
        best_step = state["best_step"] if exams else state["step"]
        lengths = [document.cut for document in (*taught, *private) if document.cut]
        return Outcome(
            tuple(history),
            learner.snapshot(),
            state["step"],
            best_step,
            first,
            best,
            length,
            len(lengths),
            sum(lengths),
        )


def _loss_in(entry: Mapping[str, Any]) -> float:
    """The loss of an entry of metrics.jsonl, of a step or of the held-out examples."""
    loss: float = entry["loss"] if "loss" in entry else entry["held_out"]["held out"]
    return loss


def _write_metrics(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    write_atomically(folder / "metrics.jsonl", "".join(json.dumps(entry) + "\n" for entry in history).encode())


def _identity(
    model: PersimmonForCausalLM, taught: Sequence[Encoded], private: Sequence[Encoded], settings: Settings
) -> str:
    """What a checkpoint must have in common with the run that goes on from it: every bit of the weights that it began
    with, frozen ones and the adapters' too."""
    digest = hashlib.sha256(repr((asdict(settings), taught, private, model.config.to_dict())).encode())
    for name, weight in model.named_parameters():
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)} {weight.requires_grad}".encode())
        digest.update(bytes_of(weight))
    for name, module in model.named_modules():  # what decides the adapters, besides their first values
        for part in ("scaling", "lora_dropout"):
            if PAIR not in name and hasattr(module, part):
                digest.update(f"{name} {part} {getattr(module, part)}".encode())
    return digest.hexdigest()
