"""The training loop: a recipe in, checkpoints and a log out. Killed at any moment, it goes on as if it had not been."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from persimmon_lab.config import PersimmonConfig
from persimmon_lab.heads import PersimmonForCausalLM
from persimmon_lab.training.batches import DRILLS, Stream, batch_at
from persimmon_lab.training.initialisation import start_copying
from persimmon_lab.training.optimiser import MasterWeights


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights, besides the text. Lengths are in tokens, the schedule in steps."""

    steps: int = 6000
    warmup_steps: int = 100
    decay_share: float = 0.3  # of the steps; until then the rate is constant, so `steps` can be chosen late
    tokens: int = 4096  # of a step
    # The length of the rows from a share of the steps on: short ones first, on which attention costs less.
    lengths: tuple[tuple[float, int], ...] = ((0.0, 128), (0.75, 256), (0.95, 512))
    matrix_rate: float = 2e-3
    rate: float = 3e-3
    weight_decay: float = 0.05
    embedding_std: float = 0.5
    head_std: float = 0.08
    copying: float = 0.25  # of what it attends to, an attention layer writes at the start
    seed: int = 20
    first_piece: int = 261  # after the special pieces and the 256 bytes
    # Shares of the rows. Chats come whole, in short windows that end with an answer, and once more for how they open.
    weights: Mapping[str, float] = field(
        default_factory=lambda: {
            "chat": 0.18,
            "exchanges": 0.24,
            "openings": 0.05,
            "questions": 0.01,
            "verse": 0.13,
            "scripture": 0.06,
            "code": 0.13,
            DRILLS: 0.2,
        }
    )
    # A phrase said again to the end of its row is also a lesson in looping: once the model can copy, few are enough.
    late: float = 0.8  # of the steps
    late_drills: float = 0.03

    def rate_scale(self, step: int) -> float:
        """The rate at `step` (from 0) over the full rate: warm-up, constant, linear decay to zero at `steps`."""
        return min(1.0, (step + 1) / self.warmup_steps, (self.steps - step) / (self.decay_share * self.steps))

    def weights_at(self, step: int) -> dict[str, float]:
        """The share of each domain in the rows of `step`."""
        drills = self.late_drills if step >= self.late * self.steps else self.weights.get(DRILLS, 0.0)
        return {name: drills if name == DRILLS else share for name, share in self.weights.items()}

    def shape(self, step: int) -> tuple[int, int]:
        """(rows, length) of the batch at `step`."""
        length = next(length for start, length in reversed(self.lengths) if step >= start * self.steps)
        return max(1, self.tokens // length), length


def next_token_loss(model: nn.Module, tokens: Int[Tensor, "batch position"]) -> Float[Tensor, "target"]:
    """-log p, in nats and float32, of each token after the first of its row."""
    logits = model(tokens[:, :-1], use_cache=False).logits
    return F.cross_entropy(
        rearrange(logits, "batch position vocab -> (batch position) vocab").float(),
        rearrange(tokens[:, 1:], "batch position -> (batch position)"),
        reduction="none",
    )


@torch.no_grad()
def held_out_loss(model: nn.Module, stream: Stream, length: int, rows: int = 16, most: int | None = None) -> float:
    """Nats per token over a held-out stream (or its first `most` batches), cut into rows of `length`."""
    tokens = torch.from_numpy(stream.astype("int64"))
    count = (len(tokens) - 1) // length
    inputs = [tokens[row * length : (row + 1) * length + 1] for row in range(count)]
    if not inputs:
        inputs = [tokens]
    total = counted = 0.0
    for start in range(0, len(inputs), rows)[:most]:
        losses = next_token_loss(model, torch.stack(inputs[start : start + rows]))
        total, counted = total + losses.sum().item(), counted + losses.numel()
    return total / counted


def build(config: PersimmonConfig, recipe: Recipe) -> tuple[PersimmonForCausalLM, MasterWeights]:
    """A fresh bfloat16 model and its float32 masters, drawn from the recipe's seed."""
    generator = torch.Generator().manual_seed(recipe.seed)
    model = PersimmonForCausalLM(config, generator)
    start_copying(model, generator, recipe.embedding_std, recipe.head_std, recipe.copying)
    masters = MasterWeights(
        model, matrix_rate=recipe.matrix_rate, rate=recipe.rate, weight_decay=recipe.weight_decay
    )  # before the rounding to bfloat16
    model.to(torch.bfloat16)
    return model.train(), masters


def restore(checkpoint: Path, config: PersimmonConfig, recipe: Recipe) -> PersimmonForCausalLM:
    """The bfloat16 model of a checkpoint, ready for inference."""
    model, masters = build(config, recipe)
    masters.load_state_dict(torch.load(checkpoint, weights_only=True)["masters"])
    return model.eval()


def save(path: Path, content: dict) -> None:
    """torch.save to a temporary name, flushed to the disk, then renamed: `path` is never half written."""
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def train(
    config: PersimmonConfig,
    recipe: Recipe,
    streams: Mapping[str, Stream],
    held_out: Mapping[str, Stream],
    folder: Path,
    *,
    compile_model: bool = False,
    checkpoint_every: int = 100,
    evaluate_every: int = 250,
    log_every: int = 25,
    progress: bool | None = None,
    on_evaluation: Callable[[PersimmonForCausalLM, int], None] | None = None,
) -> PersimmonForCausalLM:
    """Train from the last checkpoint in `folder`, or from nothing, to `recipe.steps`; returns the bfloat16 model.

    Writes `folder`/checkpoint.pt and metrics.jsonl. A run that was killed and started again gives the same bits as one
    that was not, given as many threads: the batches depend on the step alone and the checkpoint holds all the rest.
    A checkpoint of another recipe is refused, but for `steps`: while the rate is constant the total can be chosen.

    Raises ValueError for a checkpoint of another recipe or configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    model, masters = build(config, recipe)
    identity = {"config": config.to_dict(), "recipe": {k: v for k, v in asdict(recipe).items() if k != "steps"}}
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        if saved["identity"] != identity:
            raise ValueError(f"{checkpoint} was made by another recipe or config; use another folder or delete it")
        masters.load_state_dict(saved["masters"])
        first = saved["step"]

    forward = torch.compile(model) if compile_model else model
    data = dict(
        seed=recipe.seed,
        streams=streams,
        vocabulary=config.vocab_size,
        first_piece=recipe.first_piece,
    )
    metrics = folder / "metrics.jsonl"
    _forget_after(metrics, first)
    bar = tqdm(range(first, recipe.steps), initial=first, total=recipe.steps, desc="train", disable=_disable(progress))
    since, seen = time.monotonic(), 0
    for step in bar:
        rows, length = recipe.shape(step)
        # On a CPU the fused kernel's backward is slow: it wins only where the scores grow large.
        model.set_attn_implementation("eager" if length <= 256 else "sdpa")
        weights = {name: share for name, share in recipe.weights_at(step).items() if name == DRILLS or name in streams}
        tokens = batch_at(step, rows=rows, length=length, weights=weights, **data)
        loss = next_token_loss(forward, tokens).mean()
        loss.backward()
        norm = masters.step(recipe.rate_scale(step))
        seen += rows * length
        done = step + 1
        if done % log_every == 0 or done == recipe.steps:
            speed = seen / (time.monotonic() - since)
            entry = {"step": done, "loss": loss.item(), "norm": norm.item(), "tokens_per_second": round(speed)}
            _log(metrics, entry)
            bar.set_postfix(loss=f"{entry['loss']:.3f}", tokens=f"{speed:,.0f}/s")
            if bar.disable:
                print(json.dumps(entry), flush=True)
            since, seen = time.monotonic(), 0
        if done % evaluate_every == 0 or done == recipe.steps:
            model.eval()
            losses = {name: held_out_loss(model, stream, 256, most=4) for name, stream in held_out.items()}
            _log(metrics, {"step": done, "held_out": losses})
            if on_evaluation is not None:
                on_evaluation(model, done)
            model.train()
            since, seen = time.monotonic(), 0
        if done % checkpoint_every == 0 or done == recipe.steps:
            save(checkpoint, {"step": done, "identity": identity, "masters": masters.state_dict()})
    return model.eval()


def read_metrics(path: Path) -> Iterator[dict]:
    """The entries of a metrics.jsonl; a last line cut short by a kill is left out."""
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def _forget_after(path: Path, step: int) -> None:
    """Drop the entries of steps that will be made again."""
    kept = [entry for entry in read_metrics(path) if entry["step"] <= step]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in kept))


def _log(path: Path, entry: dict) -> None:
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")


def _disable(progress: bool | None) -> bool | None:
    """tqdm's `disable`: None hides the bar where the output is not a terminal."""
    return None if progress is None else not progress
