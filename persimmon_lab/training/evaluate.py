"""What the trained model can do: bits per byte beside its baselines, induction, and samples that nobody picked."""

import lzma
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.losses import next_token_loss
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.trace.heads import stripe_scores
from persimmon_lab.training.drills import Stream
from persimmon_lab.training.ngram import NGram
from persimmon_lab.training.trainer import held_out_loss

PROMPTS = (
    "human: Hello, how are you?\n\nadept:",
    "human: What do you like to do on the weekend?\n\nadept:",
    "human: I am tired today.\n\nadept:",
    "Shall I compare thee to a summer's day?\n",
    "KING.\nMy lords, the night is dark,",
    "And God said,",
    "def add(a, b):\n    return",
)


def bits_per_byte(nats_per_token: float, tokens: int, text_bytes: int) -> float:
    """A loss as bits per byte of text, which no longer depends on the vocabulary."""
    return nats_per_token * tokens / text_bytes / math.log(2)


def xz_bits_per_byte(text: bytes) -> float:
    """Bits per byte of `xz -9e` on the text by itself."""
    return 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)


def held_out_table(
    model: PersimmonForCausalLM, folder: Path, training: Sequence[Stream], length: int = 512
) -> dict[str, dict[str, float]]:
    """Bits per byte of each held-out domain in `folder`: the model in rows of `length`, a 5-gram, and xz.

    The 5-gram counts the streams of `training`, the texts that the model was trained on.
    """
    if not training:
        raise ValueError("training is empty; give the streams that the model was trained on, for the 5-gram to count")
    baseline = NGram(np.concatenate(training))
    table = {}
    for path in sorted(folder.glob("*.bin")):
        stream, text = np.fromfile(path, dtype=np.uint16), path.with_suffix(".txt").read_bytes()
        nats = held_out_loss(model, stream, length, rows=4)
        surprise = -baseline.log2_probabilities(stream).mean()
        table[path.stem] = {
            "model": bits_per_byte(nats, len(stream), len(text)),
            "5-gram": bits_per_byte(surprise * math.log(2), len(stream), len(text)),
            "xz": xz_bits_per_byte(text),
        }
    return table


def repeated_rows(vocabulary: int, first: int, period: int, rows: int, seed: int) -> Tensor:
    """(rows, 2 period) random pieces, each row's second half a copy of its first."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.randint(first, vocabulary, (rows, period), generator=generator)
    return repeat(half, "row position -> row (copy position)", copy=2)


@torch.no_grad()
def copying_loss(model: nn.Module, rows: Tensor) -> tuple[float, float]:
    """Nats per token on the (first, second) half of rows whose halves are equal; only looking back helps the second."""
    losses = next_token_loss(model, rows)
    period = rows.shape[1] // 2
    # Target t is token t + 1. The second half's first token comes as a surprise, so it counts with the first half.
    return losses[:, :period].mean().item(), losses[:, period:].mean().item()


@torch.no_grad()
def induction_scores(model: nn.Module, rows: Tensor) -> Float[Tensor, "layer head"]:
    """How much of each head's attention goes, in the second half, to the token after the earlier copy (Olsson 2022)."""
    patterns = model(rows, output_attentions=True, use_cache=False).attentions
    return stripe_scores(torch.stack(list(patterns)), rows.shape[1] // 2)["induction"]


def samples(
    model: PersimmonForCausalLM,
    tokenizer: PersimmonTokenizer,
    prompts: Sequence[str],
    seeds: Sequence[int] = (0, 1),
    **settings: float,
) -> dict[str, list[str]]:
    """For each prompt the greedy continuation, then one sampled continuation for each seed; all of them, unpicked."""
    drawn: Mapping[str, float] = {"temperature": 0.7, "top_p": 0.9} | settings
    result = {}
    generate: Any = model.generate
    for prompt in prompts:
        ids = torch.tensor([tokenizer.encode(prompt)])
        ways = [{"do_sample": False}] + [{"do_sample": True, "seed": seed, **drawn} for seed in seeds]
        outputs = [generate(ids, max_new_tokens=60, **way)[0, ids.shape[1] :] for way in ways]
        result[prompt] = [tokenizer.decode(output, skip_special_tokens=True) for output in outputs]
    return result
