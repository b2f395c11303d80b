"""The loop of fine-tuning: it learns, watches the held-out loss, keeps the best, and goes on after any interruption."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from persimmon_lab.anatomy import layer_of
from persimmon_lab.atomic import replacing, write_atomically
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.finetuning.encoding import Encoded, encode_all
from persimmon_lab.finetuning.examples import Example, check_overlap
from persimmon_lab.finetuning.lora import PAIR
from persimmon_lab.finetuning.packing import Packed, fill_rows, lay_out
from persimmon_lab.finetuning.settings import Settings
from persimmon_lab.losses import linear_cross_entropy
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.training.curves import loss_svg
from persimmon_lab.training.muon import Muon
from persimmon_lab.training.optimiser import fast_dtype
from persimmon_lab.training.trainer import read_metrics

Weights = dict[str, Tensor]
OnEvaluation = Callable[[int], None]  # given the step


@dataclass(frozen=True)
class Outcome:
    """What came of it. `history` has the entries of metrics.jsonl; `weights` are the best ones as they were trained, in
    float32 where there were masters, by the names of the model's parameters; losses are nats per learned token."""

    history: tuple[Mapping[str, Any], ...]
    weights: Weights
    steps: int
    best_step: int
    first_loss: float
    best_loss: float


class Learner:
    """The trainable weights of a model in `dtype`, float32 masters of them, and what moves them."""

    def __init__(self, model: PersimmonForCausalLM, settings: Settings) -> None:
        self.model, self.settings = model, settings
        dtype = settings.compute_dtype
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        if not self.weights:
            raise ValueError("no weight of the model asks for gradients; call requires_grad_() on what is to learn")
        has_masters = settings.masters and dtype != torch.float32
        copies = {name: nn.Parameter(weight.detach().float().clone()) for name, weight in self.weights.items()}
        for name, parameter in model.named_parameters():
            if PAIR not in name:  # adapters stay float32, as peft has them
                parameter.data = parameter.data.to(dtype)
        self.masters = copies if has_masters else dict(self.weights)
        matrices: dict[str, nn.Parameter] = {}
        others: dict[str, nn.Parameter] = {}
        for name, master in self.masters.items():
            is_matrix = settings.optimiser == "muon" and master.ndim == 2 and layer_of(name) is not None
            (matrices if is_matrix else others)[name] = master
        self.optimisers: list[torch.optim.Optimizer] = []
        rate, decay = settings.highest_rate, settings.weight_decay
        if matrices:
            self.optimisers.append(Muon(matrices.values(), rate, decay, dtype=fast_dtype(model.device)))
        if others:
            groups = [
                {"params": [w for w in others.values() if w.ndim == 2], "weight_decay": decay},
                {"params": [w for w in others.values() if w.ndim != 2], "weight_decay": 0.0},
            ]
            self.optimisers.append(torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95)))
        self.gradients: Weights = {}

    def add_gradients(self, batch: Packed, learned: int) -> float:
        """Read a batch; `learned` counts the labels of the whole step. Returns the sum of its losses."""
        share = batch.learned / learned
        loss = batch_loss(self.model, batch)
        (loss * share).backward()
        for name, weight in self.weights.items():
            if weight.grad is not None:
                gradient = weight.grad.to(self.masters[name].dtype)
                self.gradients[name] = self.gradients[name] + gradient if name in self.gradients else gradient
                weight.grad = None
        return loss.item() * batch.learned

    @torch.no_grad()
    def step(self, rate: float) -> float:
        """One update; returns the gradient's norm before clipping."""
        for name, master in self.masters.items():
            master.grad = self.gradients.get(name, torch.zeros_like(master))
        norm = nn.utils.clip_grad_norm_(list(self.masters.values()), self.settings.clip)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
        for master in self.masters.values():
            master.grad = None
        self.gradients = {}
        self.load(self.masters)
        return norm.item()

    @torch.no_grad()
    def load(self, masters: Mapping[str, Tensor]) -> None:
        """Take these masters; the model gets them rounded."""
        for name, weight in self.weights.items():
            self.masters[name].copy_(masters[name])
            if weight is not self.masters[name]:
                weight.copy_(masters[name])

    def snapshot(self) -> Weights:
        return {name: master.detach().clone() for name, master in self.masters.items()}


def batch_loss(model: PersimmonForCausalLM, batch: Packed) -> Float[Tensor, ""]:
    """Mean -log p, in nats, of what is learned of a batch; never makes all logits."""
    batch = batch.to(model.device)
    hidden = model.model(batch.input_ids, position_ids=batch.position_ids, use_cache=False).last_hidden_state
    return linear_cross_entropy(hidden, model.get_parameter("lm_head.weight"), batch.following)


@torch.no_grad()
def loss_of(model: PersimmonForCausalLM, batches: Sequence[Packed]) -> float:
    """Nats per learned token of all batches together."""
    sums = [(batch_loss(model, batch).item() * batch.learned, batch.learned) for batch in batches]
    return sum(total for total, _ in sums) / sum(count for _, count in sums)


def steps_of_epoch(
    encoded: Sequence[Encoded], settings: Settings, length: int, epoch: int | None
) -> list[list[Packed]]:
    """The batches of each step, in an order that depends on seed and epoch alone; None: as they are given."""
    order = list(range(len(encoded)))
    if epoch is not None:
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
        order = torch.randperm(len(encoded), generator=generator).tolist()
    documents = [encoded[index] for index in order]
    rows = [[index] for index in range(len(documents))]
    if settings.packed:
        rows = fill_rows([len(document.input_ids) for document in documents], length)
    laid = [[documents[index] for index in row] for row in rows]
    batches = [lay_out(laid[start : start + settings.rows]) for start in range(0, len(laid), settings.rows)]
    return [batches[start : start + settings.accumulate] for start in range(0, len(batches), settings.accumulate)]


def rate_scale(step: int, steps: int, settings: Settings) -> float:
    """The rate at `step` (from 0) over the highest one."""
    warmup = round(settings.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[settings.schedule]


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

    Raises ValueError for a checkpoint of another run, and FloatingPointError for a loss that is not finite.
    """
    check_overlap(training, held_out)
    length = settings.row_length(model.config.context_limit)
    taught, private = encode_all(training, tokenizer, length), encode_all(held_out, tokenizer, length)
    identity = _identity(model, taught, private, settings)
    learner = Learner(model, settings)
    epochs = [steps_of_epoch(taught, settings, length, epoch) for epoch in range(settings.epochs)]
    plan = [step for epoch in epochs for step in epoch]
    exams = [batch for step in steps_of_epoch(private, settings, length, None) for batch in step] if private else []
    every = settings.evaluate_every or max(1, len(epochs[0]) // 2)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, metrics = folder / "checkpoint.pt", folder / "metrics.jsonl"
    state: dict[str, Any] = {"step": 0, "history": [], "best": learner.snapshot(), "best_step": 0, "waited": 0}
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=model.device)
        if state["identity"] != identity:
            raise ValueError(f"{checkpoint} is of other examples, settings or weights; use another folder or delete it")
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
            optimisers = [optimiser.state_dict() for optimiser in learner.optimisers]
            content = state | {"identity": identity, "masters": learner.masters, "optimisers": optimisers}
            content["masters"] = {name: master.detach() for name, master in learner.masters.items()}
            with replacing(checkpoint) as temporary:
                torch.save(content, temporary)
            write_atomically(metrics, "".join(json.dumps(entry) + "\n" for entry in history).encode())
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
    write_atomically(metrics, "".join(json.dumps(entry) + "\n" for entry in history).encode())
    write_atomically(folder / "loss.svg", loss_svg(read_metrics(metrics), tokens, "fine-tuning").encode())
    first, best = state.get("first", math.nan), state.get("best_loss", math.nan)
    best_step = state["best_step"] if exams else state["step"]
    return Outcome(tuple(history), learner.snapshot(), state["step"], best_step, first, best)


def _identity(
    model: PersimmonForCausalLM, taught: Sequence[Encoded], private: Sequence[Encoded], settings: Settings
) -> str:
    """What a checkpoint must have in common with the run that goes on from it, frozen weights included."""
    digest = hashlib.sha256(repr((asdict(settings), taught, private, model.config.to_dict())).encode())
    for name, weight in model.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)} {weight.requires_grad}".encode())
        if PAIR not in name:
            digest.update(f"{weight.detach().double().abs().sum().item():.17g}".encode())
    return digest.hexdigest()
