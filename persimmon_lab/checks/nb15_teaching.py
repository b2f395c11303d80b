"""Marks for notebook 15, Teaching it something."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from persimmon_lab.checks.marking import Case, Exercise, Verdict, Wrong, call, verdict
from persimmon_lab.classification import PersimmonForSequenceClassification
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.losses import IGNORED

Speaker = Int[Tensor, "position"]

# Easy: chat_labels


def ends_of_answers(speaker: Speaker) -> Int[Tensor, "answer"]:
    """The places right after an answer, as far as the row has them."""
    return ((speaker[:-1] == 1) & (speaker[1:] == 0)).nonzero()[:, 0] + 1


def labels_of(ids: Int[Tensor, "position"], speaker: Speaker, end: int) -> Int[Tensor, "position"]:
    """The model's own words, and the end token in the place after each of its answers."""
    labels = ids.masked_fill(speaker != 1, IGNORED)
    labels[ends_of_answers(speaker)] = end
    return labels


def chat_cases() -> Iterator[Case]:
    """Two turns, three, and one that was cut within its second answer."""
    generator = torch.Generator().manual_seed(0)
    for lengths, end in (((5, 3, 1), 2051), ((4, 6, 5, 2, 3, 4, 1), 4095), ((7, 1, 3, 4), 3001)):
        speaker = torch.cat([torch.full((length,), turn % 2) for turn, length in enumerate(lengths)])
        ids = 2049 + 2 * torch.randint(1000, (len(speaker),), generator=generator)
        if len(lengths) % 2:
            ids[-1] = end
        yield {"ids": ids, "speaker": speaker, "end": end}


def _with_ends(ids: Tensor, speaker: Tensor, end: int, places: Tensor) -> Tensor:
    labels = ids.masked_fill(speaker != 1, IGNORED)
    labels[places] = end
    return labels


def _last_answer_alone(ids: Tensor, speaker: Tensor, end: int) -> Tensor:
    labels = labels_of(ids, speaker, end)
    begins = int(((speaker[:-1] == 0) & (speaker[1:] == 1)).nonzero()[-1]) + 1
    labels[:begins] = IGNORED
    return labels


chat_labels = Exercise(
    reference=labels_of,
    cases=chat_cases,
    axes=("position",),
    praise="the answers and their ends are taught, and the questions only read",
    mistakes={
        "everything is taught, the human's questions too; only the model's own words, speaker 1, are": (
            lambda ids, speaker, end: ids
        ),
        "no end is taught: after its answer the model would go on with the human's part. The place after an answer has "
        "the label `end`, whatever token stands there": (
            lambda ids, speaker, end: ids.masked_fill(speaker != 1, IGNORED)
        ),
        "the end stands in the place of the answer's last word, which then is not taught; put it in the place after": (
            lambda ids, speaker, end: _with_ends(ids, speaker, end, ends_of_answers(speaker) - 1)
        ),
        "the labels are moved by one already; they stand at their own positions, and the loss does the moving": (
            lambda ids, speaker, end: torch.cat((labels_of(ids, speaker, end)[1:], torch.tensor([IGNORED])))
        ),
        "what is not taught has the label 0 here, which is a token; its label is -100": (
            lambda ids, speaker, end: labels_of(ids, speaker, end).clamp(min=0)
        ),
        "the last answer alone is taught; every one of them can be": _last_answer_alone,
        "this teaches the questions and masks the answers": (
            lambda ids, speaker, end: ids.masked_fill(speaker == 1, IGNORED)
        ),
        "in the place after an answer the token that stands there is taught, the line break before the next question; "
        "the label there is `end`": (
            lambda ids, speaker, end: labels_of(ids, speaker, -1).where(labels_of(ids, speaker, -1) != -1, ids)
        ),
    },
)


# Medium: parts_of_the_loss


def by_tokens(losses: Float[Tensor, "batch position"], labels: Int[Tensor, "batch position"]) -> Float[Tensor, "batch"]:
    """What each batch adds to the mean over all learned tokens of the step."""
    learned = labels != IGNORED
    return losses.where(learned, 0).sum(dim=1) / learned.sum()


def step_cases() -> Iterator[Case]:
    """Steps of several batches with short and long answers; one of them has a batch with nothing to learn."""
    generator = torch.Generator().manual_seed(1)
    for counts in ((12, 2, 5), (1, 9), (3, 0, 10, 4)):
        losses = 12 * torch.rand(len(counts), 14, generator=generator) + 0.5
        labels = torch.randint(3, 4096, losses.shape, generator=generator)
        for row, count in enumerate(counts):
            labels[row, torch.randperm(14, generator=generator)[count:]] = IGNORED
        yield {"losses": losses, "labels": labels}


def _means(losses: Tensor, labels: Tensor) -> Tensor:
    learned = labels != IGNORED
    return losses.where(learned, 0).sum(dim=1) / learned.sum(dim=1).clamp(min=1)


parts_of_the_loss = Exercise(
    reference=by_tokens,
    cases=step_cases,
    axes=("batch",),
    praise="added up, they are the mean over all learned tokens, however these are spread",
    mistakes={
        "this is the mean of means: each batch's mean over the number of batches, so that a token of a short answer "
        "weighs more than one of a long answer": lambda losses, labels: _means(losses, labels) / len(losses),
        "these are the means of the batches; their sum grows with the number of batches": _means,
        "these are sums, of which nobody has taken the mean: the step would grow with the length of the answers": (
            lambda losses, labels: losses.where(labels != IGNORED, 0).sum(dim=1)
        ),
        "the sums are right, and divided by all positions; divide by those that have a label": (
            lambda losses, labels: losses.where(labels != IGNORED, 0).sum(dim=1) / labels.numel()
        ),
        "losses without a label are in the sum; leave out those whose label is -100": (
            lambda losses, labels: losses.sum(dim=1) / (labels != IGNORED).sum()
        ),
        "this is the mean over all positions, with and without a label": (
            lambda losses, labels: losses.sum(dim=1) / labels.numel()
        ),
    },
)


# Open: fit_head

LABELS = 3
TEXTS, LENGTH = 24, 10
READINGS = 3  # of the frozen body, which says the same each time; one is enough
BELOW = 0.1  # nats; the head can come as near to 0 as it likes


def head_cases() -> Iterator[tuple[PersimmonForSequenceClassification, Tensor, Tensor]]:
    """A classifier whose head has learned nothing, texts of equal length, and what they are."""
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        config = PersimmonConfig.tiny(num_labels=LABELS, problem_type="single_label_classification", pad_token_id=0)
        model = PersimmonForSequenceClassification(config, generator).eval()
        ids = torch.randint(3, config.vocab_size, (TEXTS, LENGTH), generator=generator)
        yield model, ids, torch.randint(LABELS, (TEXTS,), generator=generator)


def fit_head(answer: Callable[..., nn.Module]) -> Verdict:
    """Marks a function (model, ids, labels) to the model, of which the head alone has learned to tell the texts. Any
    way will do that leaves the body as it was, to the bit, and does not read with it again and again."""

    def praise(worst: float) -> str:
        return f"the head tells all texts, a loss of {worst:.3f} at most, and the body is what it was"

    return verdict(_check_head, answer, praise)


def _check_head(answer: Callable[..., nn.Module]) -> float:
    return max(_loss_of(answer, *case) for case in head_cases())


def _loss_of(
    answer: Callable[..., nn.Module], model: PersimmonForSequenceClassification, ids: Tensor, labels: Tensor
) -> float:
    body = {name: weight.clone() for name, weight in model.model.state_dict().items()}
    readings: list[Sequence[int]] = []

    def count(_module: nn.Module, _given: object, _named: object) -> None:
        readings.append(())

    model.model.register_forward_pre_hook(count, with_kwargs=True)
    fitted = call(answer, model, ids, labels)
    if not isinstance(fitted, PersimmonForSequenceClassification):
        raise Wrong(f"it returned {fitted!r:.60}; return the model")
    if not readings:
        raise Wrong("the body never read the texts; the head learns from what it makes of their last tokens")
    taken = len(readings)
    moved = [name for name, weight in fitted.model.state_dict().items() if not torch.equal(weight, body[name])]
    if moved:
        raise Wrong(
            f"the body moved, {len(moved)} of its {len(body)} tensors, {moved[0]} the first; freeze it "
            "(requires_grad_(False)), and give the optimiser the head alone"
        )
    if any(weight.grad is not None for weight in fitted.model.parameters()):
        raise Wrong(
            "the body has gradients, which nobody needs and which take as much memory as the weights; freeze it"
        )
    with torch.no_grad():
        logits = fitted.eval()(ids).logits.float()
    right = int((logits.argmax(dim=1) == labels).sum())
    loss = float(nn.functional.cross_entropy(logits, labels))
    if not right == TEXTS or not loss < BELOW:
        raise Wrong(
            f"the head tells {right} of {TEXTS} texts, with a loss of {loss:.3f}; the body's last tokens tell all of "
            f"them, and a loss below {BELOW} is asked for: go on for longer, or at a higher rate"
        )
    if taken > READINGS:
        raise Wrong(
            f"it works, but the body read the texts {taken} times and said the same each time; read once, keep the "
            "last tokens, and train the head on those"
        )
    return loss
