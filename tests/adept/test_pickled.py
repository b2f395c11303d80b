"""Nothing that a pickle names is ever run, whatever the pickle does to have it run."""

import argparse
import collections
import copyreg
import datetime
import functools
import importlib
import logging.config
import os
import pathlib
import pickle
import shutil
import struct
import subprocess
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from persimmon_lab.adept import stand_ins
from persimmon_lab.adept.stand_ins import Inert
from persimmon_lab.adept.torch_files import read_archive
from persimmon_lab.adept.window import Window
from persimmon_lab.checkpoints.errors import CheckpointError
from tests.adept.releases import build_release, write_archive

each_format = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Settings(dict):
    """A class that a reader will not have, here a kind of dict."""


class Steps(list):
    """And a kind of list."""


def read(path: Path) -> dict:
    return read_archive(Window.whole(path))


def read_saved(path: Path, contents: object, **options) -> dict:
    write_archive(path, contents, **options)
    return read(path)


# Pickles by hand


def name(module: str, attribute: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{attribute}\n".encode()


def value(plain: object) -> bytes:
    return pickle.dumps(plain, protocol=2)[2:-1]


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + pickle.MARK + b"".join(arguments) + pickle.TUPLE + pickle.REDUCE


def storage(key: str = "0", kind: str = "FloatStorage", elements: int = 20) -> bytes:
    reference = value("storage") + name("torch", kind) + value(key) + value("cpu") + value(elements)
    return pickle.MARK + reference + pickle.TUPLE + pickle.BINPERSID


def tensor(offset: object, shape: object, strides: object, of: bytes | None = None) -> bytes:
    rest = (offset, shape, strides, False, None)
    return call(name("torch._utils", "_rebuild_tensor_v2"), of or storage(), *map(value, rest))


def read_made(path: Path, made: bytes, memo: bytes = b"") -> object:
    """What is read of an archive whose pickle is {"x": made}, with one storage of 20 floats."""
    with zipfile.ZipFile(path, "w") as archive:
        data = pickle.PROTO + b"\2" + pickle.EMPTY_DICT + value("x") + made + pickle.SETITEM + pickle.STOP
        archive.writestr("x/data.pkl", data)
        archive.writestr("x/data/0", np.arange(20, dtype=np.float32).tobytes())
    return read(path)["x"]


INERT = call(name("somewhere", "Thing"))


def test_pickles_by_hand_are_read(tmp_path):
    """Else the refusals below would tell nothing."""
    assert read_made(tmp_path / "x.pt", value(5)) == 5
    assert isinstance(read_made(tmp_path / "x.pt", INERT), Inert)
    found = read_made(tmp_path / "x.pt", tensor(2, (3, 4), (5, 1)))
    assert found.read().tolist() == [[2.0, 3.0, 4.0, 5.0], [7.0, 8.0, 9.0, 10.0], [12.0, 13.0, 14.0, 15.0]]


def test_names_of_older_torch(tmp_path):
    """Before version 2 of its function, and where a storage kept the class of its device."""
    of = storage().replace(name("torch", "FloatStorage"), name("torch.cuda", "FloatStorage"))
    made = call(name("torch._utils", "_rebuild_tensor"), of, value(3), value((2, 2)), value((1, 2)))
    assert read_made(tmp_path / "x.pt", made).read().tolist() == [[3.0, 5.0], [4.0, 6.0]]


# Code


@each_format
def test_canary(tmp_path, legacy):
    """A pickle that makes a folder as soon as it is read. torch.load makes it; this does not."""
    path, canary = tmp_path / "x.pt", tmp_path / "canary"
    write_archive(path, {"model": {"weight": torch.ones(3)}, "args": Call(os.mkdir, str(canary))}, legacy=legacy)
    torch.load(path, weights_only=False)
    canary.rmdir()
    with pytest.raises(CheckpointError, match=rf"^{path} is refused: it names (posix|nt)\.mkdir, .* Nothing was run"):
        read(path)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("function", "arguments", "told"),
    [
        (os.system, ["touch canary"], "(posix|nt).system"),
        (subprocess.Popen, [["touch", "canary"]], "subprocess.Popen"),
        (subprocess.check_output, [["touch", "canary"]], "subprocess.check_output"),
        (eval, ["open('canary', 'w')"], "builtins.eval"),
        (exec, ["open('canary', 'w')"], "builtins.exec"),
        (__import__, ["antigravity"], "builtins.__import__"),
        (open, ["canary", "w"], "io.open"),
        (importlib.import_module, ["antigravity"], "importlib.import_module"),
        (shutil.rmtree, ["canary"], "shutil.rmtree"),
        (pickle.loads, [b"cos\nsystem\n(S'touch canary'\ntR."], "pickle.loads"),
        (functools.partial, [print], "functools.partial"),
        (logging.config.fileConfig, ["canary"], "logging.config.fileConfig"),
        (time.sleep, [1000], "time.sleep"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_code_is_refused_by_name(tmp_path, monkeypatch, function, arguments, told):
    monkeypatch.chdir(tmp_path)
    write_archive(Path("x.pt"), {"args": Call(function, *arguments)})
    with pytest.raises(CheckpointError, match=f"^x.pt is refused: it names {told}, which could run code"):
        read(Path("x.pt"))
    assert os.listdir() == ["x.pt"]


def test_bare_pickle(tmp_path):
    path, canary = tmp_path / "x.pt", tmp_path / "canary"
    path.write_bytes(pickle.dumps({"model": {}}))
    with pytest.raises(CheckpointError, match=r"x\.pt is a bare pickle, not a file of torch\.save"):
        read(path)
    path.write_bytes(pickle.dumps(Call(os.mkdir, str(canary))))
    with pytest.raises(CheckpointError, match=r"names (posix|nt)\.mkdir"):
        read(path)
    assert not canary.exists()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol(tmp_path, protocol):
    path = tmp_path / "x.pt"
    torch.save({"model": torch.ones(2), "args": argparse.Namespace(layers=3)}, path, pickle_protocol=protocol)
    assert read(path)["args"] == {"layers": 3}
    torch.save({"args": Call(subprocess.Popen, "true")}, path, pickle_protocol=protocol)
    with pytest.raises(CheckpointError, match="names subprocess.Popen"):
        read(path)


# What is unknown, and does no harm


def test_placeholder_says_what_it_stands_for(tmp_path):
    build_release(tmp_path)
    args = read(next(tmp_path.glob("*/*/*.pt")))["args"]
    assert (args["hidden_size"], args["params_dtype"]) == (32, torch.bfloat16)
    model_type = args["model_type"]
    assert (model_type.module, model_type.name) == ("megatron.model.enums", "ModelType")
    assert model_type.arguments in ((1,), ("encoder_or_decoder",))  # as this Python pickles a member: value or name
    assert repr(model_type) == "<megatron.model.enums.ModelType, not loaded>"


def test_enumerations_of_early_python_3_11(tmp_path):
    """3.11.0 to 3.11.3, of which 3.11.2 is Debian 12's, pickle a member as getattr(class, name)."""
    kind = name("megatron.model.enums", "ModelType")
    found = read_made(tmp_path / "x.pt", call(name("builtins", "getattr"), kind, value("encoder_or_decoder")))
    assert (found.name, found.arguments) == ("ModelType", ("encoder_or_decoder",))
    touched = call(name("pathlib", "PosixPath"), value("canary"))  # its `touch` would be a function to call
    for owner in (
        touched,
        name("collections", "OrderedDict"),
        name("torch", "FloatStorage"),
        call(kind),
        value("text"),
    ):
        made = call(name("builtins", "getattr"), owner, value("__class__"))
        with pytest.raises(CheckpointError, match="builtins.getattr of .* no enumeration"):
            read_made(tmp_path / "x.pt", made)


def test_placeholders_keep_what_is_put_into_them(tmp_path):
    settings, steps = Settings(rate=1e-4), Steps([1, 2])
    settings.origin = "file"
    args = argparse.Namespace(settings=settings, steps=steps)
    found = read_saved(tmp_path / "x.pt", {"args": args})["args"]
    assert found["settings"].entries == [("rate", 1e-4)]
    assert found["settings"].state == {"origin": "file"}
    assert found["steps"].entries == [1, 2]


def test_settings_of_harmless_kinds(tmp_path):
    args = dict(
        path=pathlib.PurePosixPath("/mnt"),
        since=datetime.datetime(2023, 9, 7),
        names={"a", "b"},
        counts=collections.defaultdict(int, x=1),
        device=torch.device("cpu"),
        raw=b"bytes",
        number=np.float32(1.5),
        array=np.arange(3),
        span=range(3),
        z=1j,
        pair=(1, None),
        shape=torch.Size((2, 3)),
    )
    found = read_saved(tmp_path / "x.pt", {"args": argparse.Namespace(**args)})["args"]
    assert list(found) == list(args)
    assert found["path"].name == "PurePosixPath"
    assert found["path"].arguments == ("/", "mnt")
    assert found["counts"].entries == [("x", 1)]
    assert (found["pair"], found["shape"]) == ((1, None), (2, 3))


def test_module_saved_whole(tmp_path):
    """The old format keeps the source of a module's class, and refers to it."""
    for legacy in (False, True):
        found = read_saved(tmp_path / "x.pt", {"m": torch.nn.Linear(2, 3)}, legacy=legacy)["m"]
        assert (found.module, found.name) == ("torch.nn.modules.linear", "Linear")
        assert found.state["_parameters"]["weight"].shape == (3, 2)


# Tricks


def test_attributes_stay_out_of_reach(tmp_path):
    """BUILD could set any attribute of any object; here it cannot change what a method does or where a tensor is."""
    path = tmp_path / "x.pt"
    found = read_made(path, INERT + value({"__class__": 1, "arguments": 2, "__reduce__": 3}) + pickle.BUILD)
    assert type(found).__mro__[1] is Inert
    assert found.arguments == ()
    ordered = call(name("collections", "OrderedDict")) + value({"items": None, "_metadata": 1}) + pickle.BUILD
    assert list(read_made(path, ordered).items()) == []
    namespace = call(name("argparse", "Namespace")) + value({"items": None}) + pickle.BUILD
    assert list(read_made(path, namespace).items()) == [("items", None)]


@pytest.mark.parametrize(
    "state", [{"shape": (9,)}, *((None, {name: 0}) for name in ("start", "dtype", "_make", "__defaults__"))], ids=str
)
@pytest.mark.parametrize(
    "victim",
    [
        tensor(0, (2,), (1,)),
        storage(),
        name("torch._utils", "_rebuild_tensor_v2"),
        name("torch._utils", "_rebuild_parameter"),
        name("torch", "FloatStorage"),
        name("torch", "float32"),
        name("torch", "Size"),
        name("somewhere", "Thing"),
        name("argparse", "Namespace"),
        name("collections", "OrderedDict"),
        value({}),
        value("text"),
    ],
    ids=["tensor", "storage", "tensor recipe", "parameter recipe", "storage type", "dtype", "size", "class",
         "Namespace", "OrderedDict", "dict", "str"],
)  # fmt: skip
def test_state_of_what_is_ours_cannot_be_set(tmp_path, victim, state):
    ours = (stand_ins.Inert, stand_ins.Namespace, stand_ins.Ordered)
    before = [dict(vars(kind)) for kind in ours]
    with pytest.raises(CheckpointError, match=r"x\.pt holds a pickle that cannot be read"):
        read_made(tmp_path / "x.pt", victim + value(state) + pickle.BUILD)
    assert [dict(vars(kind)) for kind in ours] == before
    assert stand_ins._tensor.__defaults__ is None


def rebuilt(*arguments: bytes) -> bytes:
    return call(name("torch._utils", "_rebuild_tensor_v2"), *arguments)


NONSENSE = {
    "a placeholder called": call(INERT),
    "a text called": call(value("text")),
    "a storage called": call(storage()),
    "a dtype called": call(name("torch", "float32")),
    "a text called by ours": call(
        name("torch._tensor", "_rebuild_from_type_v2"), value("text"), value(0), value(()), value(None)
    ),
    "a tensor of a placeholder": rebuilt(INERT, value(0), value((1,)), value((1,))),
    "a tensor of a tensor": tensor(0, (1,), (1,), of=tensor(0, (2,), (1,))),
    "a tensor of a number": tensor(0, (1,), (1,), of=call(name("torch._utils", "_rebuild_parameter"), value(7))),
    "a tensor without a shape": rebuilt(storage(), value(0)),
    "a placeholder as a set": INERT + pickle.MARK + value(6) + pickle.ADDITEMS,
    "a storage of no type": storage().replace(name("torch", "FloatStorage"), value("FloatStorage")),
    "a reference to a file": pickle.MARK + value("file") + value("/etc/passwd") + pickle.TUPLE + pickle.BINPERSID,
    "a reference of no kind": storage().replace(value("storage"), value("view")),
    "a reference of protocol 0": pickle.PERSID + b"storage\n",
    "a storage within another": storage().replace(
        pickle.TUPLE + pickle.BINPERSID, value(("1", 0, 4)) + pickle.TUPLE + pickle.BINPERSID
    ),
    "a storage of two lengths": storage("0") + storage("0", elements=10) + pickle.TUPLE2,
    "a storage of two types": storage("0") + storage("0", "IntStorage") + pickle.TUPLE2,
    "a storage of less than nothing": storage(elements=-20),
    "an empty stack": pickle.POP * 9,
}


@pytest.mark.usefixtures("unchecked_annotations")  # which would refuse some of these, but not for users
@pytest.mark.parametrize("made", NONSENSE.values(), ids=NONSENSE)
def test_nonsense(tmp_path, made):
    with pytest.raises(CheckpointError, match=r"x\.pt holds a pickle that cannot be read"):
        read_made(tmp_path / "x.pt", made)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (21,), (1,)),
        (1, (20,), (1,)),
        (0, (2, 10), (11, 1)),
        (20, (1,), (1,)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (-2,), (1,)),
        (0, (2, 2), (1,)),
        (0, (2.0,), (1,)),
        (True, (2,), (1,)),
        (0, (10**12, 10**12), (0, 0)),
        (0, (40,), (0,)),
        (0, 2, 1),
    ],
)
def test_tensors_outside_their_storage(tmp_path, offset, shape, strides):
    with pytest.raises(CheckpointError, match=r"x\.pt holds a pickle that cannot be read"):
        read_made(tmp_path / "x.pt", tensor(offset, shape, strides))


def test_registered_extensions(tmp_path):
    """A program may have told pickle to write numbers for some names; a reader here does not follow them."""
    copyreg.add_extension("os", "system", 77)
    copyreg._extension_cache[77] = os.system
    try:
        with pytest.raises(CheckpointError, match="objects registered in this process"):
            read_made(tmp_path / "x.pt", call(pickle.EXT1 + b"\x4d", value("true")))
    finally:
        copyreg.remove_extension("os", "system", 77)
        copyreg._extension_cache.pop(77, None)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (value(1) + pickle.LONG_BINPUT + struct.pack("<I", 2**31), "asks for 2,147,483,648 places in memory"),
        (value(1) + pickle.PUT + b"999999999999\n", "asks for 999,999,999,999 places in memory"),
        (pickle.BINUNICODE8 + struct.pack("<Q", 2**60), "cannot be read"),
        (pickle.BINBYTES8 + struct.pack("<Q", 2**40), "cannot be read"),
        (pickle.BYTEARRAY8 + struct.pack("<Q", 2**40), "cannot be read"),
        (pickle.LONG4 + struct.pack("<i", 2**31 - 1), "cannot be read"),
        (pickle.FRAME + struct.pack("<Q", 2**40), "cannot be read"),
    ],
    ids=["memo", "memo in decimals", "text", "bytes", "bytearray", "number", "frame"],
)
def test_memory_that_no_pickle_needs(tmp_path, made, told):
    with pytest.raises(CheckpointError, match=told):
        read_made(tmp_path / "x.pt", made)


def test_builtins_that_fill_the_memory_are_not_made(tmp_path):
    found = read_made(tmp_path / "x.pt", call(name("builtins", "bytearray"), value(10**13)))
    assert (type(found).__mro__[1], found.arguments) == (Inert, (10**13,))


@each_format
def test_pickle_that_is_too_large(tmp_path, legacy, monkeypatch):
    """It is not even read."""
    contents = {"text": "x" * 10000, "a": torch.ones(2)}
    assert read_saved(tmp_path / "x.pt", contents, legacy=legacy)["text"] == "x" * 10000
    monkeypatch.setattr("persimmon_lab.adept.torch_files.LARGEST", 9000)
    with pytest.raises(
        CheckpointError, match="cannot be read" if legacy else "more than 9,000 bytes are there to fill"
    ):
        read(tmp_path / "x.pt")
