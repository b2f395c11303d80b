"""What an evaluation was made with: the weights, the tokenizer, the versions, the machine; told by their checksums."""

import hashlib
import platform
from typing import Any

import numpy as np
import torch
from torch import nn

from persimmon_lab import __version__
from persimmon_lab.checkpoints.tensor_streams import bytes_of
from persimmon_lab.dtypes import dtype_name
from persimmon_lab.quantisation import RoundedWeight, rounded_weights
from persimmon_lab.tokenizer import PersimmonTokenizer

DISTRIBUTION = "persimmon-lab"


def made_with(model: nn.Module, tokenizer: PersimmonTokenizer) -> dict[str, Any]:
    """Fit for JSON, and the same for whoever evaluates the same model in the same place: no time, no path."""
    rounded = {id(weight): weight for weight in rounded_weights(model).values()}.values()
    weights: list[nn.Parameter | RoundedWeight] = [*model.parameters(), *rounded]
    formats = {dtype_name(weight.dtype) for weight in weights} | {weight.format for weight in rounded}
    return {
        DISTRIBUTION: __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": " ".join(sorted({weight.device.type for weight in weights})),
        "dtype": " ".join(sorted(formats)),
        "parameters": sum(weight.numel() for weight in weights),
        "weights_sha256": weights_checksum(model),
        "tokenizer_sha256": hashlib.sha256(tokenizer.sp_model.serialized_model_proto()).hexdigest(),
    }


def weights_checksum(model: nn.Module) -> str:
    """SHA-256 of the names, dtypes, shapes and bytes of all weights, by name. Weights that are shared count twice."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(bytes_of(tensor))
    return digest.hexdigest()
