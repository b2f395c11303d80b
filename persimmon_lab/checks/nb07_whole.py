"""Marks for notebook 07, A whole Persimmon: its parts."""

from collections.abc import Callable, Iterator, Sequence

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from persimmon_lab.checks.marking import Case, Exercise, numbers
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.fitting.memory import parameter_counts
from persimmon_lab.losses import IGNORED, causal_lm_loss, mean_cross_entropy
from persimmon_lab.mini import load_mini

Number = Float[Tensor, ""]
Logits = Float[Tensor, "batch position vocab"]
Ids = Int[Tensor, "batch position"]
Rows = Int[Tensor, "batch"]
Stream = Float[Tensor, "batch position hidden"]
Map = Callable[[Stream], Stream]

# Easy: answer_loss


def from_start(ids: Ids, start: Rows) -> Ids:
    """Labels: the ids from each row's start on, -100 before."""
    position = torch.arange(ids.shape[1])
    return ids.masked_fill(position < rearrange(start, "batch -> batch 1"), IGNORED)


def unshifted(logits: Logits, labels: Ids) -> Number:
    """Logits marked against the label at their own position."""
    flat = rearrange(logits, "batch position vocab -> (batch position) vocab")
    return mean_cross_entropy(flat, rearrange(labels, "batch position -> (batch position)"))


def answer_cases() -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)
    for batch, positions, vocab in ((2, 6, 5), (3, 9, 20), (1, 4, 7)):
        yield {
            "logits": 3 * torch.randn(batch, positions, vocab, generator=generator),
            "ids": torch.randint(vocab, (batch, positions), generator=generator),
            "start": torch.arange(1, batch + 1),
        }
    model, tokenizer = load_mini()
    prompt = "human: Hello, how are you?\n\nadept:"
    ids = tokenizer(f"{prompt} I am fine, thank you.", return_tensors="pt").input_ids
    with torch.no_grad():
        yield {"logits": model(ids).logits, "ids": ids, "start": torch.tensor([len(tokenizer(prompt).input_ids)])}


answer_loss = Exercise(
    reference=lambda logits, ids, start: causal_lm_loss(logits, from_start(ids, start)),
    cases=answer_cases,
    axes=(),
    praise="the prompt is read and not marked, and each token of the answer is predicted by the one before it",
    mistakes={
        "there is no shift: the logits at position p speak of the token at p + 1": (
            lambda logits, ids, start: unshifted(logits, from_start(ids, start))
        ),
        "the shift goes the wrong way: this marks each logit against the token before it": (
            lambda logits, ids, start: unshifted(logits[:, 1:], from_start(ids, start)[:, :-1])
        ),
        "the first token of each answer is missing: the position before it, still in the prompt, predicts it": (
            lambda logits, ids, start: causal_lm_loss(logits, from_start(ids, start + 1))
        ),
        "the prompt is marked too: only the tokens from start on count": (
            lambda logits, ids, start: causal_lm_loss(logits, ids)
        ),
        "the ignored positions count in the mean: divide by the number of tokens in the answers": (
            lambda logits, ids, start: (
                causal_lm_loss(logits, from_start(ids, start))
                * (from_start(ids, start)[:, 1:] != IGNORED).float().mean()
            )
        ),
        "this is the sum; asked for is the mean over the tokens of the answers": (
            lambda logits, ids, start: (
                causal_lm_loss(logits, from_start(ids, start)) * (from_start(ids, start)[:, 1:] != IGNORED).sum()
            )
        ),
        "this is a mean of the rows' means, in which a token of a short answer weighs more; take one mean": (
            lambda logits, ids, start: torch.stack(
                [causal_lm_loss(*row) for row in zip(logits[:, None], from_start(ids, start)[:, None])]
            ).mean()
        ),
    },
)


# Easy: parameter_count


def count(vocab: int, hidden: int, mlp: int, layers: int, head_dim: int) -> dict[str, int]:
    """By part, from the configuration that has these sizes."""
    config = PersimmonConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=hidden // head_dim,
    )
    return parameter_counts(config)


def counted(change: Callable[..., int] = lambda vocab, hidden, mlp, layers, head_dim: 0) -> Callable[..., Number]:
    """The right number and a change to it."""
    return lambda **sizes: torch.tensor(float(sum(count(**sizes).values()) + change(**sizes)))


def size_cases() -> Iterator[Case]:
    # Small ones, in which every vector counts, and the 8B.
    for vocab, hidden, mlp, layers, head_dim in (
        (5, 8, 12, 1, 4),
        (11, 16, 40, 3, 4),
        (33, 64, 256, 2, 16),
        (262144, 4096, 16384, 36, 64),
    ):
        yield {"vocab": vocab, "hidden": hidden, "mlp": mlp, "layers": layers, "head_dim": head_dim}


parameter_count = Exercise(
    reference=counted(),
    cases=size_cases,
    axes=(),
    praise="for the 8B it gives 9,397,175,296",
    mistakes={
        "the biases of the four projections are missing: every Linear has one but lm_head": counted(
            lambda vocab, hidden, mlp, layers, head_dim: -layers * (3 * hidden + hidden + mlp + hidden)
        ),
        "one table of the vocabulary is missing: embedding and lm_head are not tied": counted(
            lambda vocab, hidden, mlp, layers, head_dim: -vocab * hidden
        ),
        "the norms of query and key are missing: a weight and a bias each, over a head's channels": counted(
            lambda vocab, hidden, mlp, layers, head_dim: -4 * layers * head_dim
        ),
        "the norms of query and key are counted once for every head; the heads of a layer share them": counted(
            lambda vocab, hidden, mlp, layers, head_dim: 4 * layers * (hidden - head_dim)
        ),
        "the final LayerNorm is missing": counted(lambda vocab, hidden, mlp, layers, head_dim: -2 * hidden),
        "all LayerNorms have a bias as well as a weight": counted(
            lambda vocab, hidden, mlp, layers, head_dim: -layers * (2 * hidden + 2 * head_dim) - hidden
        ),
        "lm_head has no bias": counted(lambda vocab, hidden, mlp, layers, head_dim: vocab),
    },
)


# Medium: clipping_factor


def whole_norm(gradients: Sequence[Tensor]) -> Number:
    norm: Number = torch.stack([gradient.norm() for gradient in gradients]).norm()
    return norm


def gradient_cases() -> Iterator[Case]:
    draw = numbers(1)
    for size, most in ((1.0, 1.0), (0.05, 1.0), (40.0, 0.5), (0.01, 2.5)):
        shapes = ((4, 3), (7,), (2, 5))
        yield {"gradients": [size * draw(*shape) for shape in shapes], "most": most}


def capped(norm: Callable[[Sequence[Tensor]], Number]) -> Callable[..., Number]:
    return lambda gradients, most: (most / norm(gradients)).clamp(max=1.0)


clipping_factor = Exercise(
    reference=capped(whole_norm),
    cases=gradient_cases,
    axes=(),
    praise="one factor for all, so the direction of the step stays, and 1 for what is short enough",
    mistakes={
        "short gradients are made longer: the factor is at most 1": (
            lambda gradients, most: most / whole_norm(gradients)
        ),
        "this adds the lengths of the tensors; the length of all as one vector is the root of the sum of squares": (
            capped(lambda gradients: torch.stack([gradient.norm() for gradient in gradients]).sum())
        ),
        "this takes the longest tensor alone; clip by the length of all of them as one vector": (
            capped(lambda gradients: torch.stack([gradient.norm() for gradient in gradients]).max())
        ),
        "this takes the largest number; clip by the length of all of them as one vector": (
            capped(lambda gradients: torch.stack([gradient.abs().max() for gradient in gradients]).max())
        ),
        "the root is missing: this is the square of the length": (capped(lambda gradients: whole_norm(gradients) ** 2)),
        "what does not have to be clipped keeps factor 1; this always returns less": (
            lambda gradients, most: most / (most + whole_norm(gradients))
        ),
    },
)


# Medium: post_norm_block


def part(seed: int) -> Map:
    """A map from streams to streams that stands for attention or MLP: a matrix and a bend."""
    matrix = numbers(seed)(6, 6)
    return lambda x: torch.tanh(x @ matrix)


def norm(shift: float) -> nn.LayerNorm:
    """A LayerNorm with a weight of its own, so that two of them differ."""
    layer = nn.LayerNorm(6)
    with torch.no_grad():
        layer.weight.add_(shift)
    return layer.requires_grad_(False)


def block_cases() -> Iterator[Case]:
    draw = numbers(2)
    for batch, positions in ((1, 3), (2, 5)):
        yield {
            "x": 4 * draw(batch, positions, 6),
            "attention": part(batch),
            "mlp": part(batch + 10),
            "first_norm": norm(0.5),
            "second_norm": norm(-0.4),
        }


def post_norm(x: Stream, attention: Map, mlp: Map, first_norm: Map, second_norm: Map) -> Stream:
    x = first_norm(x + attention(x))
    return second_norm(x + mlp(x))


def pre_norm(x: Stream, attention: Map, mlp: Map, first_norm: Map, second_norm: Map) -> Stream:
    x = x + attention(first_norm(x))
    return x + mlp(second_norm(x))


def norm_of_the_branch(x: Stream, attention: Map, mlp: Map, first_norm: Map, second_norm: Map) -> Stream:
    x = x + first_norm(attention(x))
    return x + second_norm(mlp(x))


def norm_before_the_sum(x: Stream, attention: Map, mlp: Map, first_norm: Map, second_norm: Map) -> Stream:
    """The residual is what the norm made, not what came in."""
    x = first_norm(x)
    x = second_norm(x + attention(x))
    return x + mlp(x)


post_norm_block = Exercise(
    reference=post_norm,
    cases=block_cases,
    axes=("batch", "position", "hidden"),
    praise="now the norm stands on the stream itself, and every layer begins at the same length",
    mistakes={
        "this is Persimmon's own order, pre-norm: the norm feeds the branch, and the stream is never normalised": (
            pre_norm
        ),
        "the norm is on the branch alone; in post-norm the sum is normalised": norm_of_the_branch,
        "the stream that attention is added to was normalised already; normalise after the sum": norm_before_the_sum,
        "the residual is missing: add what came in before the norm": (
            lambda x, attention, mlp, first_norm, second_norm: second_norm(mlp(first_norm(attention(x))))
        ),
        "the two norms are swapped": (
            lambda x, attention, mlp, first_norm, second_norm: post_norm(x, attention, mlp, second_norm, first_norm)
        ),
        "attention and MLP both read the stream of before; the MLP reads what attention has written": (
            lambda x, attention, mlp, first_norm, second_norm: second_norm(first_norm(x + attention(x)) + mlp(x))
        ),
    },
)
