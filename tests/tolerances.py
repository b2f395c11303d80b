"""How far two computations of the same tensor may lie apart: the one table of tolerances, keyed by dtype.

Absolute differences, for tensors whose largest numbers lie between 4 and 8, as they do in tests/parity.
"""

import torch

TOLERANCE = {
    torch.float64: 1e-11,
    torch.float32: 5e-5,
    torch.float16: 2.0**-7,  # two steps of the format between 4 and 8
    torch.bfloat16: 2.0**-4,  # the same
}
