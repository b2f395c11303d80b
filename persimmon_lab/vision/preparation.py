"""From the bytes of a picture to what Fuyu was trained on: small enough, filled up to whole patches, around zero."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Integer
from torch import Tensor

MOST = (1080, 1920)  # pixels, height and width
PATCH_SIZE = 30  # pixels of Fuyu's patches, across and down
FILLER = 1  # of 255, as bytes: see `prepare`


def fitting_size(height: int, width: int, most: tuple[int, int] = MOST) -> tuple[int, int]:
    """The size that a picture is made smaller to, its sides in proportion; its own where it fits.

    Raises ValueError for one so thin that nothing would be left of a side.
    """
    if height <= most[0] and width <= most[1]:
        return height, width
    scale = min(most[0] / height, most[1] / width)
    size = int(height * scale), int(width * scale)
    if 0 in size:
        raise ValueError(
            f"a picture {height} high and {width} wide would be {size[0]} x {size[1]} within {most[0]} x {most[1]}; "
            "cut it into pieces"
        )
    return size


def prepare(
    picture: Integer[Tensor, "channel height width"], patch_size: int = PATCH_SIZE, most: tuple[int, int] = MOST
) -> Float[Tensor, "channel padded_height padded_width"]:
    """Bytes 0 … 255 as floats from -1 to 1: made smaller if it has to be, filled up at the bottom and on the right.

    Equal to the bit to what transformers 5.23's `FuyuImageProcessorPil` gives where the size is kept; a picture that
    is made smaller is up to one step of 255 away, since Pillow and torch each round their bilinear sum.

    The trap: what is filled in is nearly black, -0.992. The setting that says so is `padding_value: 1.0`, white in
    numbers from 0 to 1; but it is filled in before bytes become such numbers, so that it is one step of 255. What
    Adept trained with is written nowhere that we know of.

    Raises TypeError for anything but bytes; ValueError for an empty picture, for a patch size below 1 and for `most`
    that whole patches do not fill.
    """
    if picture.dtype != torch.uint8:
        raise TypeError(
            f"the picture is {picture.dtype}; give bytes from 0 to 255 (torch.uint8), or cut floats as they are"
        )
    if 0 in picture.shape:
        raise ValueError(f"the picture is empty, {tuple(picture.shape)} (channel, height, width); leave it out")
    if patch_size < 1 or most[0] % patch_size or most[1] % patch_size or min(most) < 1:
        raise ValueError(
            f"patches of {patch_size} do not fill {most[0]} x {most[1]}; `most` has to be whole patches, at least one"
        )
    _, height, width = picture.shape
    size = fitting_size(height, width, most)
    if size != (height, width):
        batch = rearrange(picture, "channel height width -> 1 channel height width")
        batch = F.interpolate(batch, size=size, mode="bilinear", antialias=True, align_corners=False)
        picture = rearrange(batch, "1 channel height width -> channel height width")
    below, right = (math.ceil(side / patch_size) * patch_size - side for side in size)
    picture = F.pad(picture, (0, right, 0, below), value=FILLER)
    share: Tensor = (picture.to(torch.float64) * (1 / 255)).to(torch.float32)
    return (share - 0.5) / 0.5
