"""The dtypes that a model computes in, and what they are called in files and on command lines."""

import torch

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def dtype_name(dtype: torch.dtype | str) -> str:
    """ "bfloat16" of torch.bfloat16; a name stays what it is."""
    return str(dtype).removeprefix("torch.")


DTYPES = {dtype_name(dtype): dtype for dtype in FLOATS}
