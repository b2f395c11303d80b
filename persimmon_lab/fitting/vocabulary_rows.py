"""Rows of the vocabulary tables that nothing uses: which they are, and a model without them.

A token has a row in the embedding and one in `lm_head`. Persimmon-8B's tables have 262,144 rows of 4,096 numbers; Adept
says that about 70,000 are unused, kept for multimodal extensions: 1.1 of 18.8 GB in bfloat16. Which ones is written
nowhere that we know of. A tokenizer and a trained table tell, in two different ways:

- `never_produced`: ids that no text can become. It follows from the vocabulary alone, and dropping them loses nothing.
- `alignment`: rows that training pushed one way only. The gradient of row v of `lm_head` is the sum over positions of
  (p_v - [v is the target]) h, with h the final hidden state; of a token that never is the target, p_v h alone is left,
  so all such rows end up pointing the same way, against the mean of h. This is evidence and no proof, and a token that
  training never saw can still be typed.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import einsum, reduce
from jaxtyping import Float, Int
from torch import Tensor, nn

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.quantisation import check_plain
from persimmon_lab.tokenizer import PersimmonTokenizer

ASCII = range(0x80)
OUTSIDE_UTF8 = (0xC0, 0xC1, *range(0xF5, 0x100))  # bytes that occur in no text (RFC 3629)
PIECE = 2**26  # numbers turned into float32 at a time


def never_produced(tokenizer: PersimmonTokenizer, rows: int) -> Int[Tensor, "token"]:
    """The ids below `rows` that no text becomes, in order.

    These are rows beyond the vocabulary, pieces marked as unused, the unknown piece where bytes stand for what is
    unknown, and byte pieces that never have to: of ASCII characters with a piece of their own, and outside UTF-8.
    Control pieces such as `<s>` are not among them: no text becomes them, but a request can.
    """
    model, known = tokenizer.sp_model, range(min(rows, len(tokenizer)))

    def has_piece(byte: int) -> bool:
        token = model.piece_to_id(chr(byte).replace(" ", "\u2581"))
        return not (model.is_unknown(token) or model.is_unused(token))

    silent_bytes = {byte for byte in ASCII if has_piece(byte)}.union(OUTSIDE_UTF8)
    byte_of = {token: int(model.id_to_piece(token)[3:5], 16) for token in known if model.is_byte(token)}
    silent = [
        token
        for token in known
        if model.is_unused(token) or (model.is_unknown(token) and byte_of) or byte_of.get(token) in silent_bytes
    ]
    return torch.tensor([*silent, *range(len(tokenizer), rows)], dtype=torch.int64)


def alignment(head: Float[Tensor, "vocab hidden"], never: Int[Tensor, "token"]) -> Float[Tensor, "vocab"]:
    """Cosine between each row of `lm_head` and the mean direction of rows that cannot have been a target.

    Near 1 for every row that never was one. In float32, a few thousand rows of a large table at a time.
    """
    rows = max(1, PIECE // head.shape[-1])

    def directions(table: Float[Tensor, "vocab hidden"]) -> Iterator[Float[Tensor, "_ hidden"]]:
        return (F.normalize(piece.float(), dim=-1) for piece in table.detach().split(rows))

    total = torch.stack([reduce(piece, "token hidden -> hidden", "sum") for piece in directions(head[never])]).sum(0)
    mean = F.normalize(total / len(never), dim=-1)
    return torch.cat([einsum(piece, mean, "vocab hidden, hidden -> vocab") for piece in directions(head)])


class KeptEmbedding(nn.Module):
    """An embedding of some of the tokens; `row_of` is each id's row, and -1 for one that was dropped."""

    row_of: Tensor

    def __init__(self, weight: nn.Parameter, kept: Int[Tensor, "kept"], vocab_size: int) -> None:
        super().__init__()
        self.weight = weight
        row_of = torch.full((vocab_size,), -1, dtype=torch.int64, device=weight.device)
        row_of[kept.to(weight.device)] = torch.arange(len(kept), device=weight.device)
        self.register_buffer("row_of", row_of, persistent=False)

    def forward(self, ids: Int[Tensor, "*position"]) -> Float[Tensor, "*position hidden"]:
        rows = self.row_of[ids]
        if (rows < 0).any():
            raise IndexError(f"token id {int(ids[rows < 0][0])} was dropped from this model's vocabulary")
        return F.embedding(rows, self.weight)


class KeptProjection(nn.Module):
    """A projection onto some of the tokens; what was dropped gets the lowest number of the dtype."""

    kept: Tensor

    def __init__(self, weight: nn.Parameter, kept: Int[Tensor, "kept"], vocab_size: int) -> None:
        super().__init__()
        self.weight = weight
        self.vocab_size = vocab_size
        self.register_buffer("kept", kept, persistent=False)

    def forward(self, hidden: Float[Tensor, "*position hidden"]) -> Float[Tensor, "*position vocab"]:
        own = F.linear(hidden, self.weight)
        logits = own.new_full((*own.shape[:-1], self.vocab_size), torch.finfo(own.dtype).min)
        logits[..., self.kept] = own
        return logits


@torch.no_grad()
def drop_rows(model: PersimmonForCausalLM, dropped: Int[Tensor, "token"]) -> PersimmonForCausalLM:
    """Take rows out of both tables; changes the model and returns it.

    Ids keep their meaning and `config.vocab_size` its value. Logits keep their width and, for kept tokens, their
    values; a dropped one has the dtype's lowest number, so that its probability (0) is shared out among the others. An
    input that holds a dropped id raises IndexError. For inference: what is left cannot be saved as a checkpoint.
    """
    check_plain(model, "dropping rows")
    vocab_size = model.config.vocab_size
    if len(model.get_input_embeddings().get_parameter("weight")) != vocab_size:
        raise ValueError("rows of this model have been dropped before; load it again to drop others")
    if len(dropped) and not 0 <= int(dropped.min()) <= int(dropped.max()) < vocab_size:
        raise IndexError(f"ids to drop are {int(dropped.min())} to {int(dropped.max())}; there are {vocab_size} rows")
    keep = torch.ones(vocab_size, dtype=torch.bool)
    keep[dropped] = False
    kept = keep.nonzero()[:, 0]

    def shrunk(table: nn.Module) -> nn.Parameter:
        weight = table.get_parameter("weight")
        return nn.Parameter(weight[kept.to(weight.device)], requires_grad=weight.requires_grad)

    # One table at a time: the memory of the first is free before the second is copied.
    model.set_input_embeddings(KeptEmbedding(shrunk(model.get_input_embeddings()), kept, vocab_size))
    if model.config.tie_word_embeddings:
        head = model.get_input_embeddings().get_parameter("weight")
    else:
        head = shrunk(model.lm_head)
    model.set_output_embeddings(KeptProjection(head, kept.to(head.device), vocab_size))
    return model
