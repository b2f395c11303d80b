"""A picture cut into squares, and put together again: all that a model without an image encoder does to one."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

Picture = Float[Tensor, "channel height width"]
Patches = Float[Tensor, "patch feature"]


def grid_of(picture: Picture, patch_size: int) -> tuple[int, int]:
    """How many rows and columns of patches a picture has.

    Raises ValueError for a picture without pixels, and for sides that patches do not fill.
    """
    _, height, width = picture.shape
    if 0 in picture.shape:
        raise ValueError(
            f"the picture is empty, {tuple(picture.shape)} (channel, height, width); leave it out of the prompt"
        )
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"the picture is {height} high and {width} wide, which patches of {patch_size} x {patch_size} do not fill; "
            "pad it to multiples of that (vision.preparation.prepare does), or choose another patch size"
        )
    return height // patch_size, width // patch_size


def cut(picture: Picture, patch_size: int) -> Patches:
    """The patches of a picture in reading order, each as a row of `patch_size * patch_size * channel` numbers.

    Within a patch the channel runs fastest: pixel by pixel, red, green and blue of each. Source: transformers 5.23,
    `FuyuImageProcessorPil.patchify_image`. The trap: torch's `unfold` and every convolution put the channel first, and
    a projection that was trained on the one order reads nothing but noise in the other, of the same shape.

    Errors as `grid_of`.
    """
    grid_of(picture, patch_size)
    return rearrange(
        picture,
        "channel (row down) (column right) -> (row column) (down right channel)",
        down=patch_size,
        right=patch_size,
    )


def joined(patches: Patches, rows: int, patch_size: int) -> Picture:
    """The picture that `cut` made these patches of; `rows` says how many of them stand one above the other.

    Raises ValueError for patches that do not make full rows, or whose numbers do not make squares.
    """
    if rows < 1 or len(patches) % rows or patches.shape[1] % patch_size**2:
        raise ValueError(
            f"{len(patches)} patches of {patches.shape[1]} numbers make no {rows} rows of squares of {patch_size} x "
            f"{patch_size}; give the patches of one picture, and the rows and the size that it was cut with"
        )
    return rearrange(
        patches,
        "(row column) (down right channel) -> channel (row down) (column right)",
        row=rows,
        down=patch_size,
        right=patch_size,
    )


def check_picture(picture: Tensor, channels: int) -> None:
    """Raises TypeError for anything but floats, and ValueError for other axes, other channels, nan or infinity."""
    if not isinstance(picture, Tensor) or not picture.is_floating_point():
        kind = f"is {picture.dtype}" if isinstance(picture, Tensor) else f"is a {type(picture).__name__}"
        raise TypeError(
            f"a picture {kind}; give a tensor of floats (channel, height, width), of bytes "
            "vision.preparation.prepare(picture) of them"
        )
    if picture.ndim != 3 or picture.shape[0] != channels:
        raise ValueError(
            f"a picture has shape {tuple(picture.shape)}, and the projection reads (channel, height, width) with "
            f"{channels} channels; a grey one becomes that by picture[None].repeat({channels}, 1, 1)"
        )
    if not bool(torch.isfinite(picture).all()):
        raise ValueError("a picture holds nan or infinity; every position after it would be nan as well")
