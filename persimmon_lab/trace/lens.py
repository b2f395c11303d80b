"""What the residual stream would say if it were asked now, and which part of the model said it.

The logit lens reads the stream early: every layer adds to one running sum, and the model reads only the last state of
it. Direct logit attribution takes that last reading apart: a sum went in, so a sum comes out, once the final
LayerNorm's scale is held at the value it had.

Source: nostalgebraist 2020, "interpreting GPT: the logit lens"; Elhage et al. 2021, "A Mathematical Framework for
Transformer Circuits" (the stream as a sum, direct effects).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.quantisation import RoundedWeight
from persimmon_lab.trace.capture import capture
from persimmon_lab.trace.layers import decoder_layers

AFTER = ("mlp", "attention")
Scalar = Float[Tensor, ""]


def residual_streams(
    model: PersimmonForCausalLM,
    ids: Int[Tensor, "batch position"],
    after: str = "mlp",
    positions: Sequence[int] | None = None,
) -> Float[Tensor, "stream batch chosen hidden"]:
    """The residual stream on its way: the embeddings, then its state in every layer, in the layers' order.

    `after` says where in a layer it is read: after the MLP, which is the layer's output, or already after attention.
    `positions` chooses some, in their order in the text. Raises ValueError for another place.
    """
    if after not in AFTER:
        raise ValueError(f"after is {after!r}; a stream is read after {' or '.join(map(repr, AFTER))}")
    later = "layers.*[0-9]" if after == "mlp" else "post_attention_layernorm:input"
    trace = capture(model, ids, only=["layers.0:input", later], positions=positions)
    return torch.stack(list(trace.values()))


def decode(model: PersimmonForCausalLM, stream: Float[Tensor, "*leading hidden"]) -> Float[Tensor, "*leading vocab"]:
    """The logits that the model would give for a stream: its final LayerNorm, then `lm_head`.

    The trap: without the LayerNorm early streams, which are short, seem to say less than they do, and a direction that
    the norm's weights silence seems to speak.
    """
    with torch.no_grad():
        logits: Tensor = model.lm_head(model.model.final_layernorm(stream))
    return logits


def logit_lens(
    model: PersimmonForCausalLM,
    ids: Int[Tensor, "batch position"],
    after: str = "mlp",
    positions: Sequence[int] | None = None,
) -> Float[Tensor, "stream batch chosen vocab"]:
    """What every state of the stream would predict next; the last one after the MLP is what the model predicts.

    Takes layers x positions x vocabulary numbers: for a large vocabulary ask for some `positions`.
    """
    return decode(model, residual_streams(model, ids, after, positions))


@dataclass(frozen=True)
class Attribution:
    """A logit, or the difference of two, as a sum over what wrote to the residual stream. All numbers are logits.

    `neurons` and `mlp_bias` are what each MLP consists of. `logit` is what the model itself says.
    """

    embedding: Scalar
    heads: Float[Tensor, "layer head"]
    attention_bias: Float[Tensor, "layer"]
    neurons: Float[Tensor, "layer mlp"]
    mlp_bias: Float[Tensor, "layer"]
    norm_bias: Scalar
    logit: Scalar

    def __repr__(self) -> str:
        layers, heads = self.heads.shape
        return f"<Attribution of {float(self.logit):.4g} over {layers} layers of {heads} heads and an MLP; .parts()>"

    @property
    def attention(self) -> Float[Tensor, "layer"]:
        """Every layer's attention: its heads and the bias of `dense`."""
        return self.heads.sum(dim=-1) + self.attention_bias

    @property
    def mlp(self) -> Float[Tensor, "layer"]:
        """Every layer's MLP: its neurons and the bias of `dense_4h_to_h`."""
        return self.neurons.sum(dim=-1) + self.mlp_bias

    @property
    def total(self) -> Scalar:
        """The sum of all parts: `logit`, but for rounding."""
        return self.embedding + self.attention.sum() + self.mlp.sum() + self.norm_bias

    def parts(self) -> dict[str, float]:
        """The sum by component, in the order in which they write to the stream."""
        parts = {"embedding": self.embedding}
        for layer, (attention, mlp) in enumerate(zip(self.attention, self.mlp)):
            parts |= {f"layer {layer} attention": attention, f"layer {layer} MLP": mlp}
        return {name: float(value) for name, value in (parts | {"final bias": self.norm_bias}).items()}


def attribute(
    model: PersimmonForCausalLM,
    ids: Int[Tensor, "1 position"],
    target: int,
    against: int | None = None,
    position: int = -1,
) -> Attribution:
    """Take the logit of `target` at a position apart; with `against`, its lead over that token's logit.

    With y = w (x - mean x) / s + b for the final LayerNorm and u for the row of `lm_head` (or the difference of two),
    the logit is u.b + d.x with d = (wu - mean wu) / s, and d.x is a sum because x is one. The scale s is held at what
    it was, and that is the trap: a part that changes s changes every other part's share, which no direct effect tells.

    Parts are added in float64 of the activations that the model made, so that the sum differs from the model's logit by
    the model's rounding alone. Raises IndexError for an id outside the vocabulary or a position outside the text.
    """
    length, vocabulary = ids.shape[1], model.config.vocab_size
    for name, token in (("target", target), ("against", against)):
        if token is not None and not 0 <= token < vocabulary:
            raise IndexError(f"{name} is {token}; token ids are 0 … {vocabulary - 1}")
    if not -length <= position < length:
        raise IndexError(f"position is {position}; the text has {length} tokens")
    only = ["layers.0:input", "self_attn.head_output", "mlp.activations", "final_layernorm:input", "lm_head"]
    trace = capture(model, ids, only=only, positions=[position % length])

    norm = model.model.final_layernorm
    head: Any = model.lm_head.weight  # a parameter, or rounded
    direction = _row(head, target)
    if against is not None:
        direction = direction - _row(head, against)
    last = rearrange(trace["final_layernorm:input"].double(), "1 1 hidden -> hidden")
    scale = (last.var(correction=0) + norm.eps).sqrt()
    weighed = _wide(norm.weight) * direction
    seen = (weighed - weighed.mean()) / scale

    mixes = rearrange(trace.stacked("head_output").double(), "layer 1 head 1 channel -> layer head channel")
    awake = rearrange(trace.stacked("mlp.activations").double(), "layer 1 1 mlp -> layer mlp")
    heads, neurons, attention_bias, mlp_bias = [], [], [], []
    for layer, mix, activations in zip(decoder_layers(model), mixes, awake):
        dense, down = layer.self_attn.dense, layer.mlp.dense_4h_to_h
        columns = rearrange(_wide(dense.weight), "hidden (head channel) -> head channel hidden", head=len(mix))
        heads.append(einsum(mix, columns, seen, "head channel, head channel hidden, hidden -> head"))
        neurons.append(activations * (seen @ _wide(down.weight)))
        attention_bias.append(seen @ _wide(dense.bias))
        mlp_bias.append(seen @ _wide(down.bias))
    logits = rearrange(trace["lm_head"].double(), "1 1 vocab -> vocab")
    return Attribution(
        embedding=seen @ rearrange(trace["layers.0:input"].double(), "1 1 hidden -> hidden"),
        heads=torch.stack(heads),
        attention_bias=torch.stack(attention_bias),
        neurons=torch.stack(neurons),
        mlp_bias=torch.stack(mlp_bias),
        norm_bias=direction @ _wide(norm.bias),
        logit=logits[target] - (0 if against is None else logits[against]),
    )


def _wide(weight: Float[Tensor, "*shape"] | RoundedWeight) -> Float[Tensor, "*shape"]:
    numbers = weight.dequantized() if isinstance(weight, RoundedWeight) else weight.detach()
    return numbers.double()


def _row(head: Float[Tensor, "vocab hidden"] | RoundedWeight, token: int) -> Float[Tensor, "hidden"]:
    if isinstance(head, RoundedWeight):
        return _wide(head.rows(torch.tensor([token], device=head.device))[0])
    return _wide(head[token])
