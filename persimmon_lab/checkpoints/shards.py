"""Which weight files a checkpoint folder has, and which of them holds which tensor."""

from pathlib import Path
from typing import Any

from persimmon_lab.checkpoints.errors import CheckpointError, CheckpointNotFoundError
from persimmon_lab.checkpoints.weight_files import PickleFile, SafetensorsFile, WeightFile
from persimmon_lab.field_checks import parsed

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"


def open_weights(folder: Path) -> dict[str, WeightFile]:
    """The file that holds each tensor of a checkpoint, by tensor name.

    Looked for in transformers' order: model.safetensors, its sharded index, then the same two of pytorch_model.bin.

    Raises CheckpointNotFoundError when the folder holds no weights, CheckpointError when a file is damaged, carries
    code, or does not hold what the index says.
    """
    for whole, index in ((WHOLE, INDEX), (PICKLE, PICKLE_INDEX)):
        if (folder / whole).exists():
            file = _open(folder / whole)
            return dict.fromkeys(file.shapes, file)
        if (folder / index).exists():
            return _open_sharded(folder / index)
    names = ", ".join(sorted(entry.name for entry in folder.iterdir())) or "nothing"
    raise CheckpointNotFoundError(f"{folder} holds no {WHOLE}, {INDEX}, {PICKLE} or {PICKLE_INDEX}; it holds {names}")


def _open(path: Path) -> WeightFile:
    return PickleFile(path) if path.suffix == ".bin" else SafetensorsFile(path)


def _open_sharded(index: Path) -> dict[str, WeightFile]:
    paths = _read_index(index)
    if absent := sorted({path.name for path in paths.values() if not path.exists()}):
        raise CheckpointNotFoundError(
            f"{index} names {len(absent)} shards that are not beside it: {', '.join(absent)}. Copy them there; if this "
            "is a hub download that stopped half-way, load it again while online"
        )
    files = {path: _open(path) for path in sorted(set(paths.values()))}
    file_of = {name: file for file in files.values() for name in file.shapes}
    wrong = [name for name, path in paths.items() if name not in files[path].shapes]
    wrong += [f"{name} (in {file.path.name})" for name, file in file_of.items() if name not in paths]
    if wrong:
        raise CheckpointError(f"{index} and its shards disagree about where these tensors are: {', '.join(wrong)}")
    return {name: files[path] for name, path in paths.items()}


def _read_index(index: Path) -> dict[str, Path]:
    """The shard of every tensor; refuses an index that points anywhere but at files beside it."""
    try:
        weight_map = parsed(index.read_text(encoding="utf-8"))["weight_map"]
        pairs = list(weight_map.items())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f'{index} is no JSON object with a "weight_map" from tensor to file: {error!r}'
        ) from error
    if bad := [shard for _, shard in pairs if not _is_file_name(shard)]:
        raise CheckpointError(f"{index} points outside its folder: {bad[0]!r}. A shard is the name of a file beside it")
    return {name: index.parent / shard for name, shard in pairs}


def _is_file_name(shard: Any) -> bool:
    """Whether an index names a file beside it. A file that is there may be a link, made by whoever keeps weights on
    another disk or by the hub's cache: what came from outside, and must not lead out, is the name in the index."""
    return isinstance(shard, str) and shard == Path(shard).name and "\\" not in shard and shard not in ("", "..")
