"""A classifier of texts on a model's body, frozen or trained along, and how good it is on texts it was not taught.

    training, held_out = split_labelled(read_labelled(Path("mail.jsonl")), share=0.2)
    classifier = new_classifier(language_model, label_names(training))
    model = fit(classifier, tokenizer, training, ClassifierSettings(frozen=True))
    print(mark(model, tokenizer, held_out))         # 57 of 60 right, 95% (86% to 98%)

A text is read from its left, and its last token, which alone has read all of it, is projected onto the labels.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.classification import PersimmonForSequenceClassification
from persimmon_lab.dtypes import dtype_name
from persimmon_lab.field_checks import check_seed
from persimmon_lab.finetuning.labelled import Labelled
from persimmon_lab.numerics.intervals import wilson
from persimmon_lab.quantisation import check_plain
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.training.bars import bar_is_off

MOST_STEPS = 200  # of L-BFGS, whose convex problem is solved long before
READ = 32  # texts read at once


@dataclass(frozen=True)
class ClassifierSettings:
    """How to train. ValueError for what makes no sense.

    `frozen` trains `score` alone, a convex problem with one solution: `penalty` times the mean square of its weights
    is added to the loss, since texts that can be told apart would otherwise drive them to infinity; the other fields
    are of no account. Else everything learns: `epochs` over the texts, `batch` at a time, in an order drawn from
    `seed`, by AdamW at `rate`, which rises over a tenth of the steps and falls to 0.
    """

    frozen: bool = False
    penalty: float = 0.1
    epochs: int = 4
    batch: int = 16
    rate: float = 2e-4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; give a whole number of at least 1")
        check_seed(self.seed)
        for name in ("penalty", "rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number above 0")


@dataclass(frozen=True)
class Marks:
    """What a classifier made of texts: `confusion[true, said]` counts them, by the order of `labels`."""

    labels: tuple[str, ...]
    confusion: Int[Tensor, "true said"]
    wrong: tuple[tuple[Labelled, str], ...]  # the texts it got wrong, and what it said

    @property
    def count(self) -> int:
        return int(self.confusion.sum())

    @property
    def right(self) -> int:
        return int(self.confusion.diagonal().sum())

    @property
    def accuracy(self) -> float:
        return self.right / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, at 95%: the accuracies that this many texts do not rule out."""
        return wilson(self.right, self.count)

    def __repr__(self) -> str:
        low, high = self.interval
        return f"<Marks: {self.right} of {self.count} right, {self.accuracy:.0%} ({low:.0%} to {high:.0%})>"


def new_classifier(
    language_model: PersimmonForCausalLM, labels: Sequence[str], seed: int = 0
) -> PersimmonForSequenceClassification:
    """A classifier around the body of a language model, which both then share, with a `score` drawn from `seed`."""
    config = copy.deepcopy(language_model.config)
    config.update(
        {
            "id2label": dict(enumerate(labels)),
            "problem_type": "single_label_classification",
            "torch_dtype": dtype_name(language_model.dtype),
        }
    )
    with torch.device("meta"):
        classifier = PersimmonForSequenceClassification(config)
    score = nn.Linear(config.hidden_size, len(labels), bias=False)
    classifier.initialize_weights(torch.Generator().manual_seed(seed), only=score)
    classifier.model = language_model.model
    classifier.model.config = config
    classifier.score = score.to(language_model.device, language_model.dtype)
    return classifier.eval()


def read_rows(
    tokenizer: PersimmonTokenizer, texts: Sequence[str], context: int, device: torch.device
) -> dict[str, Tensor]:
    """(batch, position) ids and mask, filled up on the right: what a text is read as does not depend on the others.

    A text longer than the context keeps its beginning.
    """
    rows = [torch.tensor(tokenizer(text).input_ids[:context]) for text in texts]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id or 0)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def count_cut(
    model: PersimmonForSequenceClassification, tokenizer: PersimmonTokenizer, texts: Sequence[Labelled]
) -> int:
    """How many texts are longer than the model's context, of which it reads the beginning."""
    return sum(len(tokenizer(text.text).input_ids) > model.config.max_position_embeddings for text in texts)


@torch.no_grad()
def features(
    model: PersimmonForSequenceClassification,
    tokenizer: PersimmonTokenizer,
    texts: Sequence[Labelled],
    progress: bool | None = None,
) -> Float[Tensor, "text hidden"]:
    """What the body makes of each text's last token, in float32: all that a head of a frozen body ever sees."""
    found: list[Tensor] = [torch.empty(0)] * len(texts)
    for indices in tqdm([*_of_like_length(texts)], desc="read", disable=bar_is_off(progress)):
        rows = read_rows(tokenizer, [texts[index].text for index in indices], _context(model), model.device)
        hidden = model.model(**rows, use_cache=False).last_hidden_state
        last = rows["attention_mask"].sum(dim=1) - 1
        for row, index in enumerate(indices):
            found[index] = hidden[row, last[row]].float()
    return torch.stack(found)


def fit(
    model: PersimmonForSequenceClassification,
    tokenizer: PersimmonTokenizer,
    training: Sequence[Labelled],
    settings: ClassifierSettings,
    progress: bool | None = None,
) -> PersimmonForSequenceClassification:
    """Train the classifier in place, on texts whose labels are those of its configuration; returns it.

    Nothing is chosen by looking at held-out texts, so their marks are what they seem. The same call gives the same
    bits. Raises ValueError for labels that the model has not, and where a body of 16 bits is to learn: AdamW's updates
    are too small for bfloat16 and too large for float16 (notebook 11).
    """
    numbers = model.config.label2id
    if unknown := sorted({text.label for text in training} - numbers.keys()):
        raise ValueError(
            f"the model has no label {', '.join(map(repr, unknown))}; it has {', '.join(map(repr, numbers))}"
        )
    labels = torch.tensor([numbers[text.label] for text in training], device=model.device)
    if settings.frozen:
        _fit_head(model, features(model.eval(), tokenizer, training, progress), labels, settings.penalty)
    elif model.dtype in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"the model is {model.dtype}, in which small updates are lost; load it in float32, or freeze it"
        )
    else:
        _fit_all(model, tokenizer, training, labels, settings, progress)
    return model.eval()


def _fit_head(
    model: PersimmonForSequenceClassification,
    read: Float[Tensor, "text hidden"],
    labels: Int[Tensor, "text"],
    penalty: float,
) -> None:
    """The one minimum of cross entropy plus penalty, from 0."""
    weight = torch.zeros_like(model.score.weight, dtype=torch.float32, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight], max_iter=MOST_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        total = nn.functional.cross_entropy(read @ weight.T, labels) + penalty * weight.square().mean()
        total.backward()
        return total

    optimiser.step(loss)
    with torch.no_grad():
        model.score.weight.copy_(weight)


def _fit_all(
    model: PersimmonForSequenceClassification,
    tokenizer: PersimmonTokenizer,
    training: Sequence[Labelled],
    labels: Int[Tensor, "text"],
    settings: ClassifierSettings,
    progress: bool | None,
) -> None:
    """AdamW on every parameter; the matrices alone decay."""
    check_plain(model, "training a whole classifier (frozen=True trains its score alone)")
    model.train().requires_grad_(True)
    grouped: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for weight in model.parameters():
        grouped[weight.ndim == 2].append(weight)
    optimiser = torch.optim.AdamW(
        [{"params": grouped[True], "weight_decay": 0.01}, {"params": grouped[False], "weight_decay": 0.0}],
        lr=settings.rate,
    )
    batches = math.ceil(len(training) / settings.batch)
    steps = settings.epochs * batches
    order = torch.Generator().manual_seed(settings.seed)
    bar = tqdm(total=steps, desc="train", disable=bar_is_off(progress))
    devices = [model.device] if model.device.type == "cuda" else []
    with bar, torch.random.fork_rng(devices=devices):  # dropout draws from what everybody shares
        torch.manual_seed(settings.seed)
        for epoch in range(settings.epochs):
            for number, indices in enumerate(torch.randperm(len(training), generator=order).split(settings.batch)):
                step = epoch * batches + number
                for group in optimiser.param_groups:
                    group["lr"] = settings.rate * min(1.0, (step + 1) / (0.1 * steps), (steps - step) / (0.9 * steps))
                chosen = [training[index].text for index in indices.tolist()]
                rows = read_rows(tokenizer, chosen, _context(model), model.device)
                loss = model(**rows, labels=labels[indices.to(labels.device)], use_cache=False).loss
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                optimiser.zero_grad()
                bar.update()
                bar.set_postfix(loss=f"{loss.item():.3f}")


@torch.no_grad()
def classify(
    model: PersimmonForSequenceClassification, tokenizer: PersimmonTokenizer, texts: Sequence[str]
) -> list[str]:
    """The label that the model gives to each text."""
    said: list[str] = [""] * len(texts)
    for indices in _of_like_length([Labelled(text, "unknown") for text in texts]):
        rows = read_rows(tokenizer, [texts[index] for index in indices], _context(model), model.device)
        for index, label in zip(indices, model(**rows, use_cache=False).logits.argmax(dim=-1).tolist()):
            said[index] = model.config.id2label[label]
    return said


def mark(model: PersimmonForSequenceClassification, tokenizer: PersimmonTokenizer, texts: Sequence[Labelled]) -> Marks:
    """Classify texts whose labels are known, and count. ValueError for no texts, and labels that the model has not."""
    numbers: dict[str, int] = model.config.label2id
    if not texts or (unknown := sorted({text.label for text in texts} - numbers.keys())):
        told = f"the labels {', '.join(map(repr, unknown))}, which the model has not" if texts else "none"
        raise ValueError(f"texts to mark: {told}; give some of {', '.join(map(repr, numbers))}")
    said = classify(model, tokenizer, [text.text for text in texts])
    confusion = torch.zeros(len(numbers), len(numbers), dtype=torch.int64)
    for text, label in zip(texts, said):
        confusion[numbers[text.label], numbers[label]] += 1
    wrong = tuple((text, label) for text, label in zip(texts, said) if label != text.label)
    return Marks(tuple(model.config.id2label.values()), confusion, wrong)


def _context(model: PersimmonForSequenceClassification) -> int:
    context: int = model.config.max_position_embeddings
    return context


def _of_like_length(texts: Sequence[Any]) -> Iterator[list[int]]:
    """Places of texts that are read together: of like length, to save padding."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index].text))
    yield from (order[start : start + READ] for start in range(0, len(order), READ))
