"""Pictures and texts in one row of ids: what stands where, before anything is embedded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.field_checks import is_whole, shown
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.vision.patches import Patches, check_picture, cut, grid_of

Part = str | Sequence[int] | Tensor
"""A text, ids, or a picture (channel, height, width)."""


@dataclass(frozen=True)
class Layout:
    """How a picture becomes positions: a place for each patch in reading order, and a token after each row of them.

    `row_end_id` is what tells the model how wide a picture is, since nothing else does: a row of ids has no second
    dimension. None leaves it out. `place_id` marks a patch's place and is never read: the patch stands there instead.
    """

    patch_size: int
    channels: int
    place_id: int
    row_end_id: int | None

    def __post_init__(self) -> None:
        if self.patch_size < 1 or self.channels < 1:
            raise ValueError(f"patch_size {self.patch_size} and channels {self.channels} have to be 1 or more")
        if self.place_id == self.row_end_id:
            raise ValueError(
                f"place_id and row_end_id are both {self.place_id}: the ends of rows would be taken for patches"
            )

    @property
    def features(self) -> int:
        """Numbers in a patch."""
        return self.patch_size**2 * self.channels

    def ids_of(self, rows: int, columns: int) -> list[int]:
        """The ids of a picture of so many patches."""
        end = [] if self.row_end_id is None else [self.row_end_id]
        return rows * (columns * [self.place_id] + end)


@dataclass(frozen=True, eq=False)
class Prompts:
    """A batch, padded on its left: ids with places for patches, and the patches of all its pictures in that order."""

    input_ids: Int[Tensor, "batch position"]
    attention_mask: Int[Tensor, "batch position"]
    patches: Float[Tensor, "patch feature"]
    """Row after row of the batch; those of one row in the order of their places."""

    @property
    def position_ids(self) -> Int[Tensor, "batch position"]:
        """Where each token stands in its own text: padding counts for nothing."""
        return (self.attention_mask.cumsum(dim=1) - 1).clamp(min=0)


def lay_out(
    rows: Sequence[Any],  # of lists of parts; what else is given is refused by name
    layout: Layout,
    tokenizer: PersimmonTokenizer | None = None,
    pad_id: int | None = None,
) -> Prompts:
    """Pictures and texts in any order, a row for each prompt of a batch: `lay_out([[picture, "What is it?"]], …)`.

    Texts become ids by the tokenizer, without special tokens: where a bos is wanted, it is a part, `[bos_id]`.
    Rows of unequal length are padded on the left by `pad_id`, the tokenizer's where none is given, else by some id that
    is no place: nobody sees it.

    Raises ValueError for no rows and for empty ones, for a text without a tokenizer, for a place's id among given ids,
    where no patch would stand; TypeError for a part of another kind; errors of pictures as `check_picture`, `grid_of`.
    """
    if pad_id == layout.place_id:
        raise ValueError(f"pad_id is {pad_id}, which is place_id: padding would be taken for places of patches")
    if not rows:
        raise ValueError("there are no prompts; give at least one, a list of pictures and texts")
    ids: list[list[int]] = []
    patches: list[Patches] = []
    for index, row in enumerate(rows):
        if isinstance(row, str | Tensor):
            raise TypeError(
                f"prompt {index} is a {type(row).__name__}; a prompt is a list of parts: [picture, 'text'] or ['text']"
            )
        laid: list[int] = []
        for part in row:
            if isinstance(part, Tensor) and not _are_ids(part):
                check_picture(part, layout.channels)
                laid += layout.ids_of(*grid_of(part, layout.patch_size))
                patches.append(cut(part, layout.patch_size))
            else:
                laid += _ids_of(part, layout, tokenizer)
        if not laid:
            raise ValueError(f"prompt {index} is empty; give it a picture, a text or ids")
        ids.append(laid)
    longest = max(map(len, ids))
    own = tokenizer.pad_token_id if tokenizer is not None else None
    filler = next(token for token in (pad_id, own, 0, 1) if token is not None and token != layout.place_id)
    device = patches[0].device if patches else torch.device("cpu")
    return Prompts(
        input_ids=torch.tensor([(longest - len(row)) * [filler] + row for row in ids], device=device),
        attention_mask=torch.tensor([(longest - len(row)) * [0] + len(row) * [1] for row in ids], device=device),
        patches=torch.cat(patches) if patches else torch.empty(0, layout.features, dtype=torch.float32, device=device),
    )


def _are_ids(part: Tensor) -> bool:
    return part.ndim == 1 and not part.is_floating_point() and part.dtype != torch.bool


def _ids_of(part: Any, layout: Layout, tokenizer: PersimmonTokenizer | None) -> list[int]:
    if isinstance(part, str):
        if tokenizer is None:
            raise ValueError(
                f"{shown(part)} is a text, and there is no tokenizer to read it; pass one, or give its ids"
            )
        ids: list[int] = tokenizer(part, add_special_tokens=False).input_ids
    else:
        listed: list[Any] = part.tolist() if isinstance(part, Tensor) else list(part)
        if not listed or not all(is_whole(token) for token in listed):
            raise TypeError(
                f"a part of the prompt is {shown(part)}; give a text, a list of ids, or a picture as a tensor "
                "(channel, height, width)"
            )
        ids = [int(token) for token in listed]
    if layout.place_id in ids:
        raise ValueError(
            f"id {layout.place_id} stands among the ids of {shown(part)}; it marks the place of a patch, and no "
            "picture belongs there: give the picture itself as a part"
        )
    return ids
