"""The loop of fine-tuning: it learns, watches the held-out loss, keeps the best, and goes on after any interruption."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from persimmon_lab.atomic import alone, replacing, write_atomically
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.finetuning.examples import Example
from persimmon_lab.finetuning.learner import Learner, Weights, loss_of
from persimmon_lab.finetuning.memory import check_memory
from persimmon_lab.finetuning.settings import Settings
from persimmon_lab.finetuning.steps import Plan, make_plan, rate_scale, run_identity
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.training.bars import bar_is_off
from persimmon_lab.training.curves import loss_svg
from persimmon_lab.training.trainer import load_state

CHECKPOINT = "checkpoint.pt"
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
    plan = make_plan(training, held_out, tokenizer, settings, model.config.context_limit)
    identity = run_identity(model, model.config, settings, plan)
    check_memory(model, settings)
    learner = Learner(model, settings)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        state = _begin(folder / CHECKPOINT, learner, plan, identity)
        history = state["history"]
        count = len(plan.steps)
        bar = tqdm(total=count, initial=state["step"], desc="finetune", disable=bar_is_off(progress))
        while state["step"] < count and not (settings.patience is not None and state["waited"] >= settings.patience):
            history.append(_learn(learner, plan, state["step"]))
            done = state["step"] = state["step"] + 1
            loss = history[-1]["loss"]
            if not math.isfinite(loss):
                if settings.float16_without_masters:
                    break
                raise FloatingPointError(f"the loss of step {done} is {loss}; lower the rate, or compute in float32")
            evaluated = bool(plan.held_out_batches) and (done % plan.evaluate_every == 0 or done == count)
            if evaluated:
                _evaluate(learner, plan, state)
            if evaluated or done % settings.checkpoint_every == 0 or done == count:
                _save(folder / CHECKPOINT, learner, state | {"identity": identity})
                _write_metrics(folder, history)
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}")
            if evaluated and on_evaluation is not None:
                on_evaluation(done)
        bar.close()
        if plan.held_out_batches:
            learner.load(state["best"])
        _write_metrics(folder, history)
        finite = [entry for entry in history if math.isfinite(_loss_in(entry))]
        write_atomically(folder / "loss.svg", loss_svg(finite, plan.tokens_per_step, "fine-tuning").encode())
        return Outcome(
            tuple(history),
            learner.snapshot(),
            state["step"],
            best_step=state["best_step"] if plan.held_out_batches else state["step"],
            first_loss=state.get("first", math.nan),
            best_loss=state.get("best_loss", math.nan),
            length=plan.length,
            cut=len(plan.cut),
            left_out=sum(plan.cut),
        )


def _begin(checkpoint: Path, learner: Learner, plan: Plan, identity: str) -> dict[str, Any]:
    """Where a run stands: at its checkpoint, or before its first step. ValueError for a checkpoint of another run.

    "waited" counts the evaluations since the best one, whose weights are "best".
    """
    state: dict[str, Any] = {"step": 0, "history": [], "best": learner.snapshot(), "best_step": 0, "waited": 0}
    if checkpoint.exists():
        state = load_state(checkpoint, learner.model.device)
        if state["identity"] != identity:
            raise ValueError(f"{checkpoint} is of other examples, settings or weights; use another folder or delete it")
        learner.load(state["masters"])
        for optimiser, saved in zip(learner.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
    elif plan.held_out_batches:
        state["first"] = state["best_loss"] = loss_of(learner.model.eval(), plan.held_out_batches)
        state["history"].append({"step": 0, "held_out": {"held out": state["first"]}})
    return state


def _learn(learner: Learner, plan: Plan, step: int) -> dict[str, Any]:
    """One step, from 0; its entry for the metrics."""
    settings, batches = learner.settings, plan.steps[step]
    model = learner.model
    target_count = sum(batch.target_count for batch in batches)
    model.train()
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(settings.seed * 1_000_003 + step)
        loss = sum(learner.add_gradients(batch, target_count) for batch in batches) / target_count
    norm = learner.step(settings.highest_rate * rate_scale(step, len(plan.steps), settings))
    model.eval()
    return {"step": step + 1, "loss": loss, "norm": norm}


def _evaluate(learner: Learner, plan: Plan, state: dict[str, Any]) -> None:
    """Take the held-out loss, and remember the weights if it is the lowest so far."""
    loss = loss_of(learner.model, plan.held_out_batches)
    state["history"].append({"step": state["step"], "held_out": {"held out": loss}})
    if loss < state["best_loss"]:
        state |= {"best": learner.snapshot(), "best_step": state["step"], "best_loss": loss, "waited": 0}
    else:
        state["waited"] += 1


def _save(checkpoint: Path, learner: Learner, state: Mapping[str, Any]) -> None:
    masters = {name: master.detach() for name, master in learner.masters.items()}
    optimisers = [optimiser.state_dict() for optimiser in learner.optimisers]
    with replacing(checkpoint) as temporary:
        torch.save({**state, "masters": masters, "optimisers": optimisers}, temporary)


def _loss_in(entry: Mapping[str, Any]) -> float:
    """The loss of an entry of metrics.jsonl, of a step or of the held-out examples."""
    loss: float = entry["loss"] if "loss" in entry else entry["held_out"]["held out"]
    return loss


def _write_metrics(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    write_atomically(folder / "metrics.jsonl", "".join(json.dumps(entry) + "\n" for entry in history).encode())
