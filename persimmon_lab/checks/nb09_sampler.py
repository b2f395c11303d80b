"""Marks for notebook 09, Choosing words: a sampler of the reader's own."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from statistics import fmean

import torch
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.cache import DynamicCache
from persimmon_lab.checks.marking import Verdict, Wrong, attempt, numbers, verdict
from persimmon_lab.generation.sampling import sample
from persimmon_lab.mini import load_mini

# Open: my_sampler

Processor = Callable[[Int[Tensor, "batch position"], Float[Tensor, "batch vocab"]], Float[Tensor, "batch vocab"]]

PROMPTS = ("human: Do you have a dog?\n\nadept:", "human: What is your name?\n\nadept:")
PHRASE = "the king gave seven golden rings to Hannah"
COPIED = 4  # pieces, after "seven golden" the second time
ROWS, LENGTH, SEED = 6, 120, 9
LONG = 600.0  # seconds that marking may take
COSTS = 0.8  # at most, of what a token costs in a draw from all tokens
VARIED = 0.5  # of the 4-grams in the rows of a prompt are distinct; greedy decoding says the same in each
COPIES = 0.9  # of the probability of a copied piece has to stay, geometric mean


def my_sampler(answer: Processor) -> Verdict:
    """Marks a function from ids (batch, position) and scores (batch, vocab) to scores. Any will do that treats rows one
    by one and leaves something in each, still lets the model copy, and writes text that is likelier than draws from all
    tokens and goes on saying something else."""

    def praise(measured: tuple[float, float]) -> str:
        likely, varied = measured
        return f"{likely:.1f} nats a token, and {varied:.0%} of its 4-grams are new"

    return verdict(_check_sampler, answer, praise, seconds=LONG)


def new_share(rows: Sequence[Sequence[int]], width: int = 4) -> float:
    """The distinct n-grams of several texts, as a part of all."""
    grams = [tuple(row[start : start + width]) for row in rows for start in range(len(row) - width + 1)]
    return len(set(grams)) / len(grams)


def _processed(answer: Processor, ids: Tensor, scores: Tensor) -> Tensor:
    result = attempt(answer, {"ids": ids, "scores": scores}, scores.shape, finite=False).to(scores.dtype)
    if (result.isnan() | (result == torch.inf)).any():
        raise Wrong("it returned numbers that are nan or inf; -inf alone may be, for what is removed")
    if (result == -torch.inf).all(dim=-1).any():
        raise Wrong("it removed every token of a row; something has to be left to draw from")
    return result


def _check_sampler(answer: Processor) -> tuple[float, float]:
    scores = 3 * numbers(11)(2, 40)
    ids = torch.tensor([[1, 2, 3, 1, 2], [7, 7, 7, 7, 7]])
    together = _processed(answer, ids, scores)
    alone = torch.cat([_processed(answer, ids[row : row + 1], scores[row : row + 1]) for row in range(2)])
    if not torch.allclose(together, alone, atol=1e-5):
        raise Wrong("a row of a batch comes out otherwise than alone; count and compare along the last axis only")
    texts = list(_texts(answer))
    likely = fmean(float(log_probabilities.mean()) for _, log_probabilities in texts)
    varied = fmean(new_share(written.tolist()) for written, _ in texts)
    if varied < VARIED:
        raise Wrong(
            f"its answers go round in circles: {varied:.0%} of their 4-grams are new, and {VARIED:.0%} are asked for; "
            "leave more to chance"
        )
    _check_copying(answer)
    asked = COSTS * uncut()
    if likely < asked:
        raise Wrong(
            f"its text is too unlikely: {likely:.2f} nats a token, and {asked:.2f} are asked for, {COSTS:.0%} of what "
            "a draw from all tokens costs; cut more of the tail"
        )
    return likely, varied


@cache
def uncut() -> float:
    """Mean log-probability of a token where all of them may come."""
    return fmean(float(log_probabilities.mean()) for _, log_probabilities in _texts(lambda ids, scores: scores))


def _check_copying(answer: Processor) -> None:
    model, tokenizer = load_mini()
    whole = tokenizer(f"{PHRASE}, {PHRASE}", return_tensors="pt").input_ids
    before = tokenizer(f"{PHRASE}, the king gave seven golden", return_tensors="pt").input_ids.shape[1]
    with torch.no_grad():
        logits = model(whole).logits[0].float()
    change = []
    for place in range(before, before + COPIED):
        scores = logits[place - 1 : place]
        after = _processed(answer, whole[:, :place], scores).log_softmax(dim=-1)
        token = int(whole[0, place])
        change.append(float(after[0, token] - scores.log_softmax(dim=-1)[0, token]))
    left = float(torch.tensor(change).mean().exp())
    if left < COPIES:
        raise Wrong(
            f"it forbids what has to be said twice: “{PHRASE}, the king gave seven golden…” keeps {left:.0%} of the "
            "probability of its next pieces; a penalty on all tokens of the text hits names and quotations"
        )


def _texts(answer: Processor) -> Iterator[tuple[Tensor, Tensor]]:
    """What it writes after each prompt: new ids (row, position), and their log-probabilities under the model itself."""
    model, tokenizer = load_mini()
    for prompt in PROMPTS:
        yield _write(answer, model, tokenizer(prompt, return_tensors="pt").input_ids.expand(ROWS, -1))


def _write(answer: Processor, model: torch.nn.Module, ids: Tensor) -> tuple[Tensor, Tensor]:
    """New ids (batch, position), and their log-probabilities under the model itself."""
    generator, cache, start = torch.Generator().manual_seed(SEED), DynamicCache(), ids.shape[1]
    log_probabilities, unseen = [], ids
    for _ in range(LENGTH):
        with torch.no_grad():
            logits = model(unseen, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1].float()
        unseen = sample(_processed(answer, ids, logits), generator)[:, None]
        ids = torch.cat((ids, unseen), dim=1)
        log_probabilities.append(logits.log_softmax(dim=-1).gather(-1, unseen))
    return ids[:, start:], torch.cat(log_probabilities, dim=1)
