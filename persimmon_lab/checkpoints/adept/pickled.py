"""A pickle read without importing or calling anything that it names."""

import io
import math
import pickle
import pickletools
import sys
from collections.abc import Callable

import torch

from persimmon_lab.checkpoints.adept.stored import Sealed, Storage, StoredTensor
from persimmon_lab.checkpoints.adept.window import Window, hint
from persimmon_lab.checkpoints.errors import CheckpointError

LARGEST = 2**25  # bytes; the pickle of an 8B release, whose tensors lie beside it, takes about 2**18

DTYPES = {
    str(dtype): dtype
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
                  torch.int8, torch.uint8, torch.bool)
}  # fmt: skip
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
# What training settings are plausibly made of. Nothing of it is called; the list only keeps quiet about it.
HARMLESS_MODULES = {"argparse", "collections", "datetime", "decimal", "enum", "fractions", "pathlib", "uuid"}
BUILTINS = ("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "range",
            "set", "slice", "str", "tuple")  # fmt: skip
HARMLESS = {"copyreg._reconstructor", "types.SimpleNamespace", "_codecs.encode"}
HARMLESS |= {f"builtins.{name}" for name in BUILTINS}
PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # protocol 2, torch's, still uses these names


class Inert:
    """Stands for an object of a class that is not here: which class, what it was made from, what was put into it."""

    module = name = ""

    def __new__(cls, *arguments, **keywords):
        self = super().__new__(cls)
        self.arguments, self.keywords, self.state, self.entries = arguments, keywords, None, []
        return self

    def __setstate__(self, state):
        self.state = state

    def __setitem__(self, key, value):  # its class was a kind of dict
        self.entries.append((key, value))

    def append(self, value):  # its class was a kind of list
        self.entries.append(value)

    def __repr__(self) -> str:
        return f"<{self.module}.{self.name}, not loaded>"


class Namespace(dict):
    """argparse's Namespace, read as the dictionary that it is."""

    __slots__ = ()

    def __setstate__(self, state: dict):
        self.update(state)


class Ordered(dict):
    """An OrderedDict, without the `_metadata` that `state_dict()` hangs on it."""

    __slots__ = ()

    def __setstate__(self, state):
        pass


class _StorageType(Sealed):
    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype


class _Recipe(Sealed):
    """Stands for a function that makes a tensor. The pickle may call it, and nothing else."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable):
        self._make = make

    def __call__(self, *arguments):
        return self._make(*arguments)


def unpickle(data: bytes, window: Window) -> tuple[object, dict[str, Storage]]:
    """What a pickle holds, and the storages that its tensors look at, by key.

    Dicts, lists, tuples, numbers and strings are themselves, tensors `StoredTensor`, and objects of any other class
    `Inert`. Raises CheckpointError when the pickle is damaged or names code.
    """
    unpickler = _Unpickler(data, window)
    try:
        return unpickler.load(), unpickler.storages
    except CheckpointError:
        raise
    except Exception as error:  # damaged bytes are read as any instruction, which may fail in any way
        raise CheckpointError(f"the pickle in {window.name} is damaged: {error!r}. {hint(window)}") from error


def next_pickle(stream: io.BytesIO, window: Window) -> bytes:
    """The bytes of the pickle that begins here.

    Raises CheckpointError when it does not end, or when it would take memory out of all proportion.
    """
    start = stream.tell()
    try:
        for opcode, argument, position in pickletools.genops(stream):
            if opcode.name.startswith("EXT"):
                raise ValueError("it uses pickle's extension registry, which no torch.save does")
            # The memo is a list as long as the largest index; picklers count up from 0.
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > position - start:
                raise ValueError(f"it asks for {argument:,} places in memory")
    except ValueError as error:
        raise CheckpointError(f"the pickle in {window.name} is damaged: {error}. {hint(window)}") from error
    end = stream.tell()
    stream.seek(start)
    return stream.read(end - start)


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, window: Window):
        super().__init__(io.BytesIO(data))
        self.window = window
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str):
        """Called for every name in the pickle: gives a stand-in, and never the thing itself."""
        module = PYTHON_2.get(module, module)
        full = f"{module}.{name}"
        if full in DTYPES:
            return DTYPES[full]
        if module in ("torch", "torch.cuda", "torch.storage") and name in STORAGES:
            return _StorageType(STORAGES[name])
        if full == "argparse.Namespace":
            return Namespace
        if full == "collections.OrderedDict":
            return Ordered
        recipes = {
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_tensor_v3": self._untyped_tensor,
            "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
            "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
            "torch._tensor._rebuild_from_type_v2": lambda make, type_, arguments, state: make(*arguments),
            "torch.Size": lambda sizes=(): tuple(sizes),
        }
        if full in recipes:
            return _Recipe(recipes[full])
        standard = module.partition(".")[0] in sys.stdlib_module_names
        if standard and module not in HARMLESS_MODULES and full not in HARMLESS:
            raise CheckpointError(
                f"{self.window.name} is refused: it names {full}, which no checkpoint needs and which may be there to "
                "run code on your machine. It was not run. Delete the file unless you know who made it, and why"
            )
        return type("Inert", (Inert,), {"module": module, "name": name})

    def persistent_load(self, identifier) -> Storage:
        """A storage, which the pickle refers to by ("storage", type, key, location, elements)."""
        kind, storage_type, key, location, elements, *view = identifier
        if kind != "storage" or not isinstance(storage_type, _StorageType) or any(view):
            raise ValueError(f"a reference of a kind that torch.save does not write: {identifier!r}")
        dtype = storage_type.dtype
        if not (isinstance(key, str) and isinstance(location, str) and _is_count(elements)):
            raise ValueError(f"storage {key!r} at {location!r} has {elements!r} elements")
        storage = Storage(self.window, key, dtype, elements * dtype.itemsize, location)
        known = self.storages.setdefault(key, storage)
        if (known.dtype, known.nbytes) != (storage.dtype, storage.nbytes):
            raise ValueError(f"storage {key} is described twice, differently")
        return known

    def _tensor(self, storage, offset, shape, strides, *_) -> StoredTensor:
        return self._untyped_tensor(storage, offset, shape, strides, None, None, storage.dtype)

    def _untyped_tensor(self, storage, offset, shape, strides, _grad, _hooks, dtype, *_) -> StoredTensor:
        if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
            raise ValueError("a tensor without a storage or a dtype")
        if not all(map(_is_count, (offset, *shape, *strides))) or len(shape) != len(strides):
            raise ValueError(f"a tensor of shape {shape}, strides {strides} and offset {offset}")
        tensor = StoredTensor(storage, dtype, tuple(shape), tuple(strides), offset)
        elements = storage.nbytes // dtype.itemsize
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
        if tensor.nbytes and (last >= elements or math.prod(shape) > elements):
            raise ValueError(f"a tensor of shape {shape}, strides {strides} and offset {offset} in {elements} elements")
        return tensor


def _is_count(number) -> bool:
    return type(number) is int and number >= 0
