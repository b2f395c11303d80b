"""The tensors of a checkpoint as those of a model: read one by one, or mapped to their files."""

import warnings
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from persimmon_lab.checkpoints.skeletons import module_of
from persimmon_lab.checkpoints.tensor_streams import checksum_of
from persimmon_lab.checkpoints.weight_files import WeightFile
from persimmon_lab.dtypes import dtype_name

Device = torch.device | str | int
CPU = torch.device("cpu")


def read_tensors(
    stored: Mapping[str, str],
    files: Mapping[str, WeightFile],
    dtype: torch.dtype,
    devices: Mapping[str, Device],
    mmap: bool,
    verify: bool | None,
) -> dict[str, Float[Tensor, "..."]]:
    """A model's tensors by its own names, each read straight to the device of the module that it is in, or mapped.

    `stored` says what each is called in the files.
    """

    def can_be_mapped(name: str) -> bool:
        device = torch.device(devices[module_of(name, devices)])
        return device == CPU and files[stored[name]].dtype_of(stored[name]) == dtype

    def mapped(name: str) -> Float[Tensor, "..."]:
        file = files[stored[name]]
        tensor = file.mapped(stored[name])
        if verify:
            file.compare(stored[name], checksum_of(tensor))
        return tensor

    def read(name: str) -> Float[Tensor, "..."]:
        device = torch.device(devices[module_of(name, devices)])
        return files[stored[name]].read(stored[name], dtype=dtype, device=device, verify=verify is not False)

    tensors = {name: mapped(name) for name in stored if mmap and can_be_mapped(name)}
    copied = [name for name in stored if name not in tensors]
    if mmap and copied:
        _warn_of_copies([files[stored[name]].dtype_of(stored[name]) for name in copied], len(stored), dtype)
    tensors |= {name: read(name) for name in copied}
    return {name: tensors[name] for name in stored}


def _warn_of_copies(dtypes: Sequence[torch.dtype], of: int, dtype: torch.dtype) -> None:
    """Say which of a model's weights mmap=True could not map, with what would."""
    other = sorted({dtype_name(stored) for stored in dtypes if stored != dtype})
    wanted = dtype_name(dtype)
    why = (
        f'they are stored as {" and ".join(other)} and were asked for as {wanted}; torch_dtype="auto" takes them as '
        "they are" if other else "what is for another device than the CPU is"
    )  # fmt: skip
    warnings.warn(f"mmap=True, but {len(dtypes)} of {of} weights are copied: {why}", stacklevel=4)
