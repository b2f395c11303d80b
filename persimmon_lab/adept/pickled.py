"""A pickle read without importing or calling anything that it names."""

import io
import pickle
import pickletools
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator
from typing import Any

from persimmon_lab.adept.stand_ins import StorageType, are_counts, stand_in
from persimmon_lab.adept.stored import Storage
from persimmon_lab.adept.window import Window, hint
from persimmon_lab.checkpoints.errors import CheckpointError

LARGEST = 2**25  # bytes; the pickle of the 8B release, whose tensors lie beside it, takes about 2**18

# Of Python's own library, what the settings of a training run may be made of. These become placeholders as any unknown
# class does; for every other name of the library the whole file is refused.
HARMLESS_MODULES = {"argparse", "collections", "datetime", "decimal", "enum", "fractions", "pathlib", "uuid"}
BUILTINS = ("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "range",
            "set", "slice", "str", "tuple")  # fmt: skip
HARMLESS = {"copyreg._reconstructor", "types.SimpleNamespace", "_codecs.encode", "builtins.getattr"}
HARMLESS |= {f"builtins.{name}" for name in BUILTINS}


def next_pickle(stream: io.BytesIO, window: Window) -> bytes:
    """The bytes of the pickle that begins here, up to its end.

    Raises CheckpointError when it has no end, or asks for memory that no pickle of its length needs.
    """
    start = stream.tell()
    instructions: Iterator[tuple[pickletools.OpcodeInfo, Any, Any]] = pickletools.genops(stream)
    try:
        for opcode, argument, position in instructions:
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
    def __init__(self, data: bytes, window: Window) -> None:
        super().__init__(io.BytesIO(data))
        self.window = window
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Called for every name in the pickle; gives a stand-in, never the thing itself."""
        # Protocol 2, which is torch's, writes the names of Python 2: subprocess.Popen as commands.Popen.
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        full = f"{module}.{name}"
        of_python = module.partition(".")[0] in sys.stdlib_module_names
        if of_python and module not in HARMLESS_MODULES and full not in HARMLESS:
            raise CheckpointError(
                f"{self.window.name} is refused: it names {full}, which could run code on this machine and which a "
                "checkpoint of Adept's does not need. Nothing was run. Get the release from where Adept published it"
            )
        return stand_in(module, name)

    def persistent_load(self, identifier: tuple[Any, ...]) -> object:
        """A storage, to which the pickle refers by ("storage", type, key, location, how many elements).

        torch's old format also refers to the class of a module, with its source code.
        """
        if identifier[0] == "module":
            return identifier[1]
        kind, storage_type, key, location, elements, *view = identifier
        if kind != "storage" or not isinstance(storage_type, StorageType) or any(view):
            raise ValueError(f"a reference that torch.save does not write: {kind!r}, {storage_type!r}")
        if not (isinstance(key, str) and isinstance(location, str) and are_counts(elements)):
            raise ValueError(f"a storage {key!r} at {location!r} with {elements!r} elements")
        dtype = storage_type.dtype
        new = Storage(self.window, key, dtype, elements * dtype.itemsize, location)
        storage = self.storages.setdefault(key, new)
        if (storage.dtype, storage.nbytes) != (new.dtype, new.nbytes):
            raise ValueError(f"storage {key!r} is described twice, and differently")
        return storage
