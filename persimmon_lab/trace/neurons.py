"""The neurons of the MLP: which stay silent, how much the loudest carry, what wakes one, what a batch needs of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from persimmon_lab.pretrained import PersimmonPreTrainedModel
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.trace.capture import capture

Activations = Float[Tensor, "*leading token mlp"]


@dataclass(frozen=True)
class Recording:
    """What every neuron said while a model read some texts, one text after the other along the token axis.

    `before` are the pre-activations, `activations` what the activation function made of them, both float32 on the CPU;
    `pieces` names each token as the vocabulary does, `sources` the text that it stands in.
    """

    before: Float[Tensor, "layer token mlp"]
    activations: Float[Tensor, "layer token mlp"]
    pieces: tuple[str, ...]
    sources: tuple[str, ...]

    def __repr__(self) -> str:
        layers, tokens, neurons = self.activations.shape
        texts = len(dict.fromkeys(self.sources))
        return f"<Recording of {layers} layers of {neurons:,} neurons at {tokens:,} tokens of {texts} texts>"

    @property
    def awake(self) -> Bool[Tensor, "layer token mlp"]:
        """Where the activation is not zero."""
        return self.activations != 0

    def tokens_of(self, source: str) -> slice:
        """Where one text stands on the token axis. Raises KeyError for a text that was not read."""
        if source not in self.sources:
            raise KeyError(f"no text is called {source!r}; there are {', '.join(dict.fromkeys(self.sources))}")
        start = self.sources.index(source)
        return slice(start, start + self.sources.count(source))


def record(model: PersimmonPreTrainedModel, tokenizer: PersimmonTokenizer, texts: Mapping[str, str]) -> Recording:
    """Let the model read each text by itself and keep every neuron at every token.

    Takes 8 bytes a layer, neuron and token: 0.6 MB a token for the 8B. Raises ValueError where there is no text and
    TypeError for texts without names.
    """
    if not isinstance(texts, Mapping):
        raise TypeError(f"texts is a {type(texts).__name__}; give them by name, as {{name: text}}")
    if not texts:
        raise ValueError("texts is empty; give at least one, as {name: text}")
    before: list[Tensor] = []
    activations: list[Tensor] = []
    pieces: list[str] = []
    sources: list[str] = []
    for source, text in texts.items():
        ids = tokenizer(text, return_tensors="pt").input_ids
        trace = capture(model, ids, only=["mlp.dense_h_to_4h", "mlp.activations"])
        for tensors, name in ((before, "mlp.dense_h_to_4h"), (activations, "mlp.activations")):
            tensors.append(rearrange(trace.stacked(name), "layer 1 token mlp -> layer token mlp").float().cpu())
        pieces += tokenizer.convert_ids_to_tokens(ids[0].tolist())
        sources += [source] * ids.shape[1]
    return Recording(torch.cat(before, dim=1), torch.cat(activations, dim=1), tuple(pieces), tuple(sources))


def silent_by_text(recording: Recording) -> dict[str, Float[Tensor, "layer"]]:
    """The share of neurons, averaged over the tokens of each text, that are exactly zero."""
    return {
        source: 1 - recording.awake[:, recording.tokens_of(source)].float().mean(dim=(1, 2))
        for source in dict.fromkeys(recording.sources)
    }


def mass_of_strongest(activations: Activations, shares: Sequence[float]) -> Float[Tensor, "*leading share"]:
    """The part of a token's activation that its strongest neurons carry, for each share of them; a mean over tokens.

    A share stands for round(share * neurons) of them, chosen for every token anew. Tokens at which every neuron is
    silent do not count. Raises ValueError for a share that is not within 0 … 1.
    """
    if outside := [share for share in shares if not 0 <= share <= 1]:
        raise ValueError(f"{outside[0]} is no share of the neurons; give numbers from 0 to 1")
    carried = activations.double().sort(dim=-1, descending=True).values.cumsum(dim=-1)
    total = carried[..., -1]
    heard = (total > 0).sum(dim=-1)
    means = []
    for share in shares:
        count = round(share * activations.shape[-1])
        part = carried[..., count - 1] / total if count else torch.zeros_like(total)
        means.append(torch.where(total > 0, part, 0).sum(dim=-1) / heard)
    return torch.stack(means, dim=-1).float()


def rows_needed(awake: Bool[Tensor, "*leading token mlp"], batches: Sequence[int]) -> Float[Tensor, "*leading batch"]:
    """The share of neurons that one token or more of a batch needs, expected over all batches of these tokens.

    A neuron awake at k of N tokens is needed by b of them, drawn without putting back, unless all come from the N - k
    others: 1 - C(N - k, b) / C(N, b). No sampling. Raises ValueError for a batch that these tokens cannot fill.

    The trap: putting the mean share p of awake neurons into 1 - (1 - p)^b gives more than is needed. The formula is
    concave in p, and neurons differ: those that are often awake are needed by many tokens at once.
    """
    tokens = awake.shape[-2]
    if outside := [batch for batch in batches if not 0 <= batch <= tokens]:
        raise ValueError(f"a batch of {outside[0]} cannot be drawn from {tokens} tokens; give 0 … {tokens}")
    total = torch.tensor(float(tokens), dtype=torch.float64)
    asleep = total - awake.double().sum(dim=-2)
    shares = [1 - (log_choose(asleep, batch) - log_choose(total, batch)).exp().mean(dim=-1) for batch in batches]
    return torch.stack(shares, dim=-1).float()


def log_choose(total: Float[Tensor, "*shape"], drawn: int) -> Float[Tensor, "*shape"]:
    """log C(total, drawn), less the log(drawn!) that a ratio of two of them has no need of; -inf for too few."""
    ways = torch.lgamma(total + 1) - torch.lgamma((total - drawn).clamp(min=0) + 1)
    return torch.where(total >= drawn, ways, -torch.inf)


class Context(NamedTuple):
    """A place at which a neuron is awake: how strongly, in which text, and the text around and at the token."""

    activation: float
    source: str
    before: str
    token: str
    after: str


def strongest_contexts(
    recording: Recording, layer: int, neuron: int, count: int = 8, window: int = 6, once: bool = False
) -> list[Context]:
    """The places where a neuron is most awake, the strongest first, with up to `window` tokens on each side.

    Fewer than `count` where it is awake less often. `once` keeps the strongest place of each piece only, which shows
    whether a neuron answers to one token or to many.
    """
    heard = recording.activations[layer, :, neuron]
    contexts: list[Context] = []
    seen: set[str] = set()
    for token in heard.argsort(descending=True, stable=True).tolist():
        if heard[token] <= 0 or len(contexts) == count:
            break
        if once and recording.pieces[token] in seen:
            continue
        seen.add(recording.pieces[token])
        text = recording.tokens_of(recording.sources[token])
        contexts.append(
            Context(
                float(heard[token]),
                recording.sources[token],
                readable(recording.pieces[max(text.start, token - window) : token]),
                readable(recording.pieces[token : token + 1]),
                readable(recording.pieces[token + 1 : min(text.stop, token + 1 + window)]),
            )
        )
    return contexts


def readable(pieces: Sequence[str]) -> str:
    """Pieces of a vocabulary as text, with sentencepiece's sign for a space as a space."""
    return "".join(pieces).replace("▁", " ")
