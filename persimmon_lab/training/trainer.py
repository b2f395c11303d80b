"""The training loop: a recipe in, checkpoints and a log out. Killed at any moment, it goes on as if it had not been."""

import json
import pickle
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from persimmon_lab.atomic import alone, replacing, write_atomically
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.field_checks import parsed
from persimmon_lab.losses import linear_cross_entropy, next_token_loss
from persimmon_lab.modes import evaluating
from persimmon_lab.training.bars import bar_is_off
from persimmon_lab.training.batches import RowSource, batch_at, plain
from persimmon_lab.training.drills import Stream
from persimmon_lab.training.initialisation import start_copying
from persimmon_lab.training.optimiser import MasterWeights, fast_dtype
from persimmon_lab.training.recipe import Recipe, check_fit

# Given the model and the step, may return more entries for the log.
OnEvaluation = Callable[[PersimmonForCausalLM, int], Mapping[str, Any] | None]
HELD_OUT_LENGTH, HELD_OUT_BATCHES = 256, 4  # the rows of held-out text that are looked at meanwhile


def training_loss(
    model: PersimmonForCausalLM, tokens: Int[Tensor, "batch position"], targets: Int[Tensor, "batch position"]
) -> Float[Tensor, ""]:
    """Mean -log p of the token that follows each, where it is taught (not -100); never makes all logits."""
    hidden = model.model(tokens, use_cache=False).last_hidden_state
    return linear_cross_entropy(hidden, model.get_parameter("lm_head.weight"), targets)


@torch.no_grad()
def held_out_loss(model: nn.Module, stream: Stream, length: int, rows: int = 16, most: int | None = None) -> float:
    """Nats per token over a held-out stream (or its first `most` batches), cut into rows of `length`; without dropout.

    Raises TypeError for what is no numpy array of ids and ValueError where there is nothing to predict.
    """
    if not isinstance(stream, np.ndarray):
        raise TypeError(
            f"the stream is a {type(stream).__name__}; give a numpy array of ids: ids[0].numpy() of a tensor"
        )
    if stream.ndim != 1 or len(stream) < 2 or length < 1 or rows < 1:
        raise ValueError(
            f"a stream of shape {stream.shape} in {rows} rows of {length}: nothing to predict; give two or more ids in "
            "one dimension, and sizes of 1 or more"
        )
    tokens = torch.from_numpy(plain(stream).astype("int64")).to(next(model.parameters()).device)
    count = (len(tokens) - 1) // length
    inputs = [tokens[row * length : (row + 1) * length + 1] for row in range(count)]
    if not inputs:
        inputs = [tokens]
    total = counted = 0.0
    with evaluating(model):
        for start in range(0, len(inputs), rows)[:most]:
            losses = next_token_loss(model, torch.stack(inputs[start : start + rows]))
            total += losses.sum().item()
            counted += losses.numel()
    return total / counted


def build(
    config: PersimmonConfig,
    recipe: Recipe,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
) -> tuple[PersimmonForCausalLM, MasterWeights]:
    """A fresh model that computes in `dtype` and its float32 masters, drawn from the recipe's seed on any device."""
    generator = torch.Generator().manual_seed(recipe.seed)
    model = PersimmonForCausalLM(config, generator)
    start_copying(model, generator, recipe.embedding_std, recipe.head_std, recipe.copying)
    model.to(device)
    masters = MasterWeights(
        model, matrix_rate=recipe.matrix_rate, rate=recipe.rate, weight_decay=recipe.weight_decay
    )  # before the rounding
    model.to(dtype)
    return model.train(), masters


def restore(checkpoint: Path, config: PersimmonConfig, recipe: Recipe) -> PersimmonForCausalLM:
    """The bfloat16 model of a checkpoint, ready for inference."""
    model, masters = build(config, recipe)
    masters.load_state_dict(torch.load(checkpoint, weights_only=True, map_location="cpu")["masters"])
    return model.eval()


def save(path: Path, content: Mapping[str, Any]) -> None:
    """torch.save, whole or not at all."""
    with replacing(path) as temporary:
        torch.save(content, temporary)


def train(
    config: PersimmonConfig,
    recipe: Recipe,
    sources: Mapping[str, RowSource],
    held_out: Mapping[str, Stream],
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    start: Mapping[str, Tensor] | None = None,
    first_step: int = 0,
    checkpoint_every: int = 100,
    evaluate_every: int = 250,
    log_every: int = 25,
    progress: bool | None = None,
    on_evaluation: OnEvaluation | None = None,
) -> PersimmonForCausalLM:
    """Train from the last checkpoint in `folder`, or from nothing, to `recipe.steps`; returns the bfloat16 model.

    `sources` gives rows of each domain that `recipe.weights` names. The model computes in `dtype`, by default the one
    that `device` multiplies fast, while float32 masters take the updates. Where `folder` was lost, `start` (weights by
    name) and `first_step` go on from what is left, with momentum that begins anew and a rate that rises again.
    `on_evaluation(model, step)` may return more entries for the log.

    Writes `folder`/checkpoint.pt and the log, metrics.jsonl; `progress` shows a bar or none, by default one on a
    terminal. A run that was killed and started again gives the same bits as one that was not, given as many threads
    and the same dtype and device: the batches depend on the step alone and the checkpoint holds all the rest. It goes
    on on another device too, in other roundings. A checkpoint of another recipe is refused, but for `steps`: while the
    rate is constant the total can be chosen.

    Raises ValueError for a checkpoint of another recipe or configuration, and for a recipe that asks for rows longer
    than the model's context or for domains without a source; OSError where another process trains in `folder`.
    """
    check_fit(recipe, config, sources)
    device = torch.device(device)
    dtype = dtype or fast_dtype(device)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        checkpoint, metrics = folder / "checkpoint.pt", folder / "metrics.jsonl"
        model, masters = build(config, recipe, dtype, device)
        identity = {"config": config.to_dict(), "recipe": {k: v for k, v in asdict(recipe).items() if k != "steps"}}
        first = 0
        warmup_start = 0 if start is None else first_step
        if checkpoint.exists():
            first = _resume(checkpoint, identity, masters, device)
            if first > recipe.steps:
                raise ValueError(f"{checkpoint} has {first} steps, more than the {recipe.steps} that were asked for")
        elif start is not None:
            masters.load_weights(start)
            first = first_step

        _forget_after(metrics, first)
        bar = tqdm(
            range(first, recipe.steps), initial=first, total=recipe.steps, desc="train", disable=bar_is_off(progress)
        )
        since, seen = time.monotonic(), 0
        for step in bar:
            rows, length = recipe.shape(step)
            model.set_attn_implementation(faster_attention(dtype, device, length))
            tokens, targets = batch_at(
                step, seed=recipe.seed, sources=sources, weights=recipe.weights_at(step), rows=rows, length=length
            )
            loss = training_loss(model, tokens.to(device), targets.to(device))
            loss.backward()
            norm = masters.step(recipe.rate_scale(step, warmup_start))
            seen += rows * length
            done = step + 1
            is_last = done == recipe.steps
            if done % log_every == 0 or is_last:
                speed = seen / (time.monotonic() - since)
                _log(
                    metrics, {"step": done, "loss": loss.item(), "norm": norm.item(), "tokens_per_second": round(speed)}
                )
                bar.set_postfix(loss=f"{loss.item():.3f}", tokens=f"{speed:,.0f}/s")
                since, seen = time.monotonic(), 0
            if done % evaluate_every == 0 or is_last:
                _evaluate(model, held_out, done, metrics, on_evaluation)
                since, seen = time.monotonic(), 0
            if done % checkpoint_every == 0 or is_last:
                save(checkpoint, {"step": done, "identity": identity, "masters": masters.state_dict()})
        return model.to(torch.bfloat16).eval()


def _resume(checkpoint: Path, identity: Mapping[str, Any], masters: MasterWeights, device: torch.device) -> int:
    """Give the masters what the checkpoint has; returns its step. Raises ValueError for one of another recipe."""
    saved = load_state(checkpoint, device)
    if saved["identity"] != identity:
        raise ValueError(f"{checkpoint} was made by another recipe or config; use another folder or delete it")
    masters.load_state_dict(saved["masters"])
    step: int = saved["step"]
    return step


def load_state(checkpoint: Path, device: torch.device) -> dict[str, Any]:
    """What `save` wrote. ValueError for a file that is damaged, or no checkpoint."""
    try:
        state = torch.load(checkpoint, weights_only=True, map_location=device)
        if not isinstance(state, dict) or not {"step", "identity", "masters"} <= state.keys():
            raise ValueError("it holds no step of a run")
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{checkpoint} is no whole checkpoint ({reason}); delete it to begin again") from error
    return state


def _evaluate(
    model: PersimmonForCausalLM,
    held_out: Mapping[str, Stream],
    step: int,
    metrics: Path,
    on_evaluation: OnEvaluation | None,
) -> None:
    """Write down the loss of each held-out domain, and what `on_evaluation` adds."""
    length, most = evaluated_rows(model.config)
    model.eval()
    losses = {name: held_out_loss(model, stream, length, most=most) for name, stream in held_out.items()}
    _log(metrics, {"step": step, "held_out": losses})
    if on_evaluation is not None and (more := on_evaluation(model, step)):
        _log(metrics, {"step": step, **more})
    model.train()


def evaluated_rows(config: PersimmonConfig) -> tuple[int, int]:
    """How long the rows of held-out text are that a run looks at, and how many batches of them."""
    return min(HELD_OUT_LENGTH, config.max_position_embeddings), HELD_OUT_BATCHES


def faster_attention(dtype: torch.dtype, device: torch.device, length: int) -> str:
    """The implementation that trains faster: the fused kernel, but for short rows of bfloat16 on a CPU, where its
    backward pass is slow and the scores are small."""
    return "eager" if device.type == "cpu" and dtype == torch.bfloat16 and length <= 128 else "sdpa"


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a metrics.jsonl; a last line cut short by a kill is left out. ValueError, with the line's number,
    where one cannot be read at all."""
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else (), start=1):
        try:
            entry = parsed(line)
        except json.JSONDecodeError:
            continue
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
            raise ValueError(f"{path}, line {number}: {line!r:.60} is no entry of a step; delete it")
        yield entry


def _forget_after(path: Path, step: int) -> None:
    """Drop the entries of steps that will be made again."""
    entries = [entry for entry in read_metrics(path) if entry["step"] <= step]
    write_atomically(path, "".join(json.dumps(entry) + "\n" for entry in entries).encode())


def _log(path: Path, entry: Mapping[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")
