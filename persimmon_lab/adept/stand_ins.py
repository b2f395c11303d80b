"""What stands for the classes and functions that a pickle names, so that none of them is imported or called."""

import math
from collections.abc import Callable
from typing import Any, Self

import torch

from persimmon_lab.adept.stored import Sealed, Storage, StoredTensor

DTYPES = {f"torch.{name}": dtype for name, dtype in vars(torch).items() if isinstance(dtype, torch.dtype)}
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
    "_UntypedStorage": torch.uint8,
}


class Inert:
    """Stands for an object of a class that is not here: of which class, made from what, and what was put into it."""

    module = name = ""
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    state: object
    entries: list[Any]

    def __new__(cls, *arguments: Any, **keywords: Any) -> Self:
        self = super().__new__(cls)
        self.arguments = arguments
        self.keywords = keywords
        self.state = None
        self.entries = []
        return self

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:  # its class is a kind of dict
        self.entries.append((key, value))

    def append(self, value: Any) -> None:  # its class is a kind of list
        self.entries.append(value)

    def __repr__(self) -> str:
        return f"<{self.module}.{self.name}, not loaded>"


class Namespace(dict[str, Any]):
    """argparse's Namespace, read as the dictionary that it is."""

    __slots__ = ()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.update(state)


class Ordered(dict[str, Any]):
    """An OrderedDict, without the `_metadata` that `state_dict()` hangs on it."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


class StorageType(Sealed):
    """Stands for a class of storages, such as torch.BFloat16Storage, of which it keeps the dtype."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class Recipe(Sealed):
    """Stands for a function of torch's that puts a tensor together. The pickle may call it and do nothing else."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., object]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> object:
        return self._make(*arguments)


def _tensor(
    storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> StoredTensor:
    return _tensor_of_dtype(storage, offset, shape, strides, False, None, storage.dtype)


def _tensor_of_dtype(
    storage: Storage,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    requires_grad: object,
    hooks: object,
    dtype: torch.dtype,
    *_: object,
) -> StoredTensor:
    """A tensor that lies within its storage, whoever described it."""
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        raise ValueError(f"a tensor in {storage!r} of {dtype!r}")
    if not are_counts(offset, *shape, *strides) or len(shape) != len(strides):
        raise ValueError(f"a tensor of shape {shape}, strides {strides} and offset {offset}")
    elements = storage.nbytes // dtype.itemsize
    count = math.prod(shape)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
    # More elements than bytes to back them: `expand` makes such tensors, and a few bytes could claim any memory.
    if count > elements or (count and last >= elements):
        raise ValueError(
            f"a tensor of shape {shape}, strides {strides} and offset {offset} in a storage of {elements} elements"
        )
    return StoredTensor(storage, dtype, tuple(shape), tuple(strides), offset)


def _member(owner: object, name: object) -> Inert:
    """A member of an enumeration, as Python 3.11.0 to 3.11.3 pickle it: getattr(class, name). Nothing is looked up."""
    if not (isinstance(owner, type) and issubclass(owner, Inert) and isinstance(name, str)):
        raise ValueError(f"builtins.getattr of {owner!r}, which is no enumeration")
    return owner(name)


def are_counts(*numbers: object) -> bool:
    return all(type(number) is int and number >= 0 for number in numbers)


KNOWN = {
    **DTYPES,
    "argparse.Namespace": Namespace,
    "builtins.getattr": Recipe(_member),
    "collections.OrderedDict": Ordered,
    "torch.Size": Recipe(tuple),
    "torch._utils._rebuild_tensor": Recipe(_tensor),
    "torch._utils._rebuild_tensor_v2": Recipe(_tensor),
    "torch._utils._rebuild_tensor_v3": Recipe(_tensor_of_dtype),
    "torch._utils._rebuild_parameter": Recipe(lambda tensor, *_: tensor),
    "torch._utils._rebuild_parameter_with_state": Recipe(lambda tensor, *_: tensor),
    "torch._tensor._rebuild_from_type_v2": Recipe(lambda make, kind, arguments, state: make(*arguments)),
}


def stand_in(module: str, name: str) -> object:
    """What a pickle gets for a name: something of ours where a checkpoint needs it, else a placeholder."""
    full = f"{module}.{name}"
    if full in KNOWN:
        return KNOWN[full]
    if module in ("torch", "torch.cuda", "torch.storage") and name in STORAGES:
        return StorageType(STORAGES[name])
    return type("Inert", (Inert,), {"module": module, "name": name})
