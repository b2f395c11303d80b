"""Marks for notebook 18, Pictures are tokens too."""

from collections.abc import Iterator

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from persimmon_lab.checks.marking import Case, Exercise

# Easy: put_together


def from_patches(
    patches: Float[Tensor, "patch feature"], rows: int, side: int
) -> Float[Tensor, "channel height width"]:
    """The picture that was cut into these patches."""
    return _laid(patches, rows, side, "(row column) (down right channel)")


def _laid(patches: Tensor, rows: int, side: int, pattern: str) -> Tensor:
    return rearrange(
        patches, f"{pattern} -> channel (row down) (column right)", row=rows, down=side, right=side
    ).contiguous()


def picture_cases() -> Iterator[Case]:
    """Two by two, two by three and three by two patches, in colour; and in grey a row of them."""
    generator = torch.Generator().manual_seed(0)
    for rows, columns, side, channels in ((2, 2, 3, 3), (2, 3, 2, 3), (3, 2, 4, 3), (1, 4, 2, 1)):
        patches = 2 * torch.randn(rows * columns, side * side * channels, generator=generator)
        yield {"patches": patches, "rows": rows, "side": side}


put_together = Exercise(
    reference=from_patches,
    cases=picture_cases,
    axes=("channel", "height", "width"),
    praise="every pixel is where it was before it was cut",
    mistakes={
        "the patches are laid column by column; they come in reading order, row by row: (row column)": (
            lambda patches, rows, side: _laid(patches, rows, side, "(column row) (down right channel)")
        ),
        "each patch has its channels one after the other; they run fastest, pixel by pixel: (down right channel)": (
            lambda patches, rows, side: _laid(patches, rows, side, "(row column) (channel down right)")
        ),
        "each patch is mirrored along its diagonal: its numbers go across first, and then down": (
            lambda patches, rows, side: _laid(patches, rows, side, "(row column) (right down channel)")
        ),
        "the picture stands on its head: the first patch is the one at the top": (
            lambda patches, rows, side: from_patches(patches, rows, side).flip(1)
        ),
    },
)


# Medium: fill_places


def filled(
    embeds: Float[Tensor, "batch position hidden"],
    is_place: Bool[Tensor, "batch position"],
    projected: Float[Tensor, "patch hidden"],
) -> Float[Tensor, "batch position hidden"]:
    """The embeddings, and in each place the patch whose turn it is, row after row of the batch."""
    return embeds.masked_scatter(is_place[..., None], projected)


def batch_cases() -> Iterator[Case]:
    """Batches whose rows have unlike numbers of places, one of them none."""
    generator = torch.Generator().manual_seed(1)
    for places in (((1, 2, 4), (0, 3)), ((5,), (), (0, 1, 2, 4, 5, 6), (2, 6)), ((0, 6), (3, 4))):
        is_place = torch.zeros(len(places), 7, dtype=torch.bool)
        for row, columns in enumerate(places):
            is_place[row, list(columns)] = True
        embeds = 2 * torch.randn(*is_place.shape, 6, generator=generator)
        projected = 2 * torch.randn(int(is_place.sum()), 6, generator=generator)
        yield {"embeds": embeds, "is_place": is_place, "projected": projected}


def _each_from_the_first(embeds: Tensor, is_place: Tensor, projected: Tensor) -> Tensor:
    result = embeds.clone()
    for row, places in enumerate(is_place):
        result[row, places] = projected[: int(places.sum())]
    return result


fill_places = Exercise(
    reference=filled,
    cases=batch_cases,
    axes=("batch", "position", "hidden"),
    praise="each patch stands in its place, and the words are what they were",
    mistakes={
        "every row of the batch begins with the first patch; the second row goes on where the first one ended": (
            _each_from_the_first
        ),
        "the patches were added to the embedding of the place's id; they stand in its stead": (
            lambda embeds, is_place, projected: (
                embeds + torch.zeros_like(embeds).masked_scatter(is_place[..., None], projected)
            )
        ),
        "the patches are in their places, and the words are gone": (
            lambda embeds, is_place, projected: torch.zeros_like(embeds).masked_scatter(is_place[..., None], projected)
        ),
        "the last patch stands in the first place; their order is that of the places": (
            lambda embeds, is_place, projected: filled(embeds, is_place, projected.flip(0))
        ),
        "nothing was put into the places": lambda embeds, is_place, projected: embeds.clone(),
    },
)
