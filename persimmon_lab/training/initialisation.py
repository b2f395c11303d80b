"""Where training starts: tables and attention that already agree on how a piece is copied.

Drawn apart, embedding and head have to learn to agree piece by piece before any attention head can copy one; the
shipped model's card says how far that came. So the head starts as a rotated copy of the embedding, and each layer's
value and output matrices start as that rotation: whatever is attended to is written as a prediction of itself. Where
to look is left to training. After Trockman & Kolter 2023, "Mimetic initialization of self-attention layers".
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.trace.layers import decoder_layers


def orthogonal(width: int, generator: torch.Generator) -> Float[Tensor, "width width"]:
    """A random orthogonal matrix."""
    basis: Tensor = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    return basis


@torch.no_grad()
def start_copying(
    model: PersimmonForCausalLM, generator: torch.Generator, embedding_std: float, head_std: float, copying: float
) -> None:
    """Set the spread of the tables, turn one into the other, and give each layer's attention `copying` of that turn."""
    config = model.config
    embedding = model.get_parameter("model.embed_tokens.weight")
    rotation = orthogonal(config.hidden_size, generator)
    unit = embedding / config.initializer_range
    embedding.copy_(unit * embedding_std)
    model.get_parameter("lm_head.weight").copy_(unit @ rotation * head_std)
    for layer in decoder_layers(model):
        attention = layer.self_attn
        basis = orthogonal(config.hidden_size, generator)
        fused = rearrange(  # a view: writing to `value` writes to the weight
            attention.query_key_value.weight,
            "(head three channel) hidden -> three head channel hidden",
            three=3,
            head=config.num_attention_heads,
        )
        value = fused[2]
        value.copy_(rearrange(basis, "(head channel) hidden -> head channel hidden", head=len(value)) * copying**0.5)
        attention.dense.weight.copy_((basis @ rotation).T * copying**0.5)
