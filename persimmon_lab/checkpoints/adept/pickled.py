"""A pickle read without importing or calling anything that it names."""

import io
import math
import pickle
import pickletools
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable

import torch

from persimmon_lab.checkpoints.adept.stored import Sealed, Storage, StoredTensor
from persimmon_lab.checkpoints.adept.window import Window, hint
from persimmon_lab.checkpoints.errors import CheckpointError

LARGEST = 2**25  # bytes; the pickle of the 8B release, whose tensors lie beside it, takes about 2**18

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
# Of Python's own library, what the settings of a training run may be made of. These become placeholders as any unknown
# class does; for every other name of the library the whole file is refused.
HARMLESS_MODULES = {"argparse", "collections", "datetime", "decimal", "enum", "fractions", "pathlib", "uuid"}
BUILTINS = ("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "range",
            "set", "slice", "str", "tuple")  # fmt: skip
HARMLESS = {"copyreg._reconstructor", "types.SimpleNamespace", "_codecs.encode"}
HARMLESS |= {f"builtins.{name}" for name in BUILTINS}


class Inert:
    """Stands for an object of a class that is not here: of which class, made from what, and what was put into it."""

    module = name = ""

    def __new__(cls, *arguments, **keywords):
        self = super().__new__(cls)
        self.arguments, self.keywords, self.state, self.entries = arguments, keywords, None, []
        return self

    def __setstate__(self, state):
        self.state = state

    def __setitem__(self, key, value):  # its class is a kind of dict
        self.entries.append((key, value))

    def append(self, value):  # its class is a kind of list
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
    """Stands for a function of torch's that puts a tensor together. The pickle may call it and do nothing else."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable):
        self._make = make

    def __call__(self, *arguments):
        return self._make(*arguments)


def next_pickle(stream: io.BytesIO, window: Window) -> bytes:
    """The bytes of the pickle that begins here, up to its end.

    Raises CheckpointError when it has no end, or asks for memory that no pickle of its length needs.
    """
    start = stream.tell()
    try:
        for opcode, argument, position in pickletools.genops(stream):
            if opcode.name.startswith("EXT"):
                raise ValueError("it asks for objects registered in this process, which no torch.save does")
            # Unpicklers keep a list as long as the largest index; picklers count up from 0.
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > position - start:
                raise ValueError(f"it asks for {argument:,} places in memory")
    except ValueError as error:
        raise CheckpointError(f"{window.name} holds a pickle that cannot be read: {error}. {hint(window)}") from error
    end = stream.tell()
    stream.seek(start)
    return stream.read(end - start)


def unpickle(data: bytes, window: Window) -> tuple[object, dict[str, Storage]]:
    """What a pickle holds, and the storages that its tensors look at, by key.

    Dicts, lists, tuples, numbers and strings are themselves, tensors `StoredTensor`, objects of any other class
    `Inert`. Raises CheckpointError when the pickle is damaged or names something that could run code.
    """
    unpickler = _Unpickler(data, window)
    try:
        return unpickler.load(), unpickler.storages
    except CheckpointError:
        raise
    except Exception as error:  # damaged bytes can be any instruction, which can fail in any way
        raise CheckpointError(f"{window.name} holds a pickle that cannot be read: {error!r}. {hint(window)}") from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, window: Window):
        super().__init__(io.BytesIO(data))
        self.window = window
        self.storages: dict[str, Storage] = {}
        self.known = {
            **DTYPES,
            "argparse.Namespace": Namespace,
            "collections.OrderedDict": Ordered,
            "torch.Size": _Recipe(tuple),
            "torch._utils._rebuild_tensor": _Recipe(_tensor),
            "torch._utils._rebuild_tensor_v2": _Recipe(_tensor),
            "torch._utils._rebuild_tensor_v3": _Recipe(_tensor_of_dtype),
            "torch._utils._rebuild_parameter": _Recipe(lambda tensor, *_: tensor),
            "torch._utils._rebuild_parameter_with_state": _Recipe(lambda tensor, *_: tensor),
            "torch._tensor._rebuild_from_type_v2": _Recipe(lambda make, kind, arguments, state: make(*arguments)),
        }

    def find_class(self, module: str, name: str):
        """Called for every name in the pickle; gives a stand-in, never the thing itself."""
        # Protocol 2, which is torch's, writes the names of Python 2: subprocess.Popen as commands.Popen.
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        full = f"{module}.{name}"
        if full in self.known:
            return self.known[full]
        if module in ("torch", "torch.cuda", "torch.storage") and name in STORAGES:
            return _StorageType(STORAGES[name])
        of_python = module.partition(".")[0] in sys.stdlib_module_names
        if of_python and module not in HARMLESS_MODULES and full not in HARMLESS:
            raise CheckpointError(
                f"{self.window.name} is refused: it names {full}, which could run code on this machine and which a "
                "checkpoint of Adept's does not need. Nothing was run. Get the file from whom you trust"
            )
        return type("Inert", (Inert,), {"module": module, "name": name})

    def persistent_load(self, identifier: tuple) -> object:
        """A storage, to which the pickle refers by ("storage", type, key, location, how many elements).

        torch's old format also refers to the class of a module, with its source code.
        """
        if identifier[0] == "module":
            return identifier[1]
        kind, storage_type, key, location, elements, *view = identifier
        if kind != "storage" or not isinstance(storage_type, _StorageType) or any(view):
            raise ValueError(f"a reference that torch.save does not write: {kind!r}, {storage_type!r}")
        if not (isinstance(key, str) and isinstance(location, str) and _are_counts(elements)):
            raise ValueError(f"a storage {key!r} at {location!r} with {elements!r} elements")
        dtype = storage_type.dtype
        new = Storage(self.window, key, dtype, elements * dtype.itemsize, location)
        storage = self.storages.setdefault(key, new)
        if (storage.dtype, storage.nbytes) != (new.dtype, new.nbytes):
            raise ValueError(f"storage {key!r} is described twice, and differently")
        return storage


def _tensor(storage: Storage, offset: int, shape: tuple, strides: tuple, *_) -> StoredTensor:
    return _tensor_of_dtype(storage, offset, shape, strides, False, None, storage.dtype)


def _tensor_of_dtype(
    storage: Storage, offset: int, shape: tuple, strides: tuple, requires_grad, hooks, dtype: torch.dtype, *_
) -> StoredTensor:
    """A tensor that lies within its storage, whoever described it."""
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        raise ValueError(f"a tensor in {storage!r} of {dtype!r}")
    if not _are_counts(offset, *shape, *strides) or len(shape) != len(strides):
        raise ValueError(f"a tensor of shape {shape}, strides {strides} and offset {offset}")
    elements = storage.nbytes // dtype.itemsize
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
    # More elements than bytes to back them: `expand` makes such tensors, and a few bytes could claim any memory.
    if math.prod(shape) > elements or (math.prod(shape) and last >= elements):
        raise ValueError(
            f"a tensor of shape {shape}, strides {strides} and offset {offset} in a storage of {elements} elements"
        )
    return StoredTensor(storage, dtype, tuple(shape), tuple(strides), offset)


def _are_counts(*numbers) -> bool:
    return all(type(number) is int and number >= 0 for number in numbers)
