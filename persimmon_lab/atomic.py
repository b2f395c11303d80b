"""Files and folders that are there whole or not at all: made under a temporary name, flushed to the disk, renamed.

Two who write to the same place would share the temporary name, and one of them would finish what the other began. So
whoever writes holds a lock on it (`flock`), which the system forgets with the process, however that ends. Where a
system has no such locks, as Windows and some network file systems, nothing is promised of two writers.
"""

import errno
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TORCH_WRITER = "inline_container"  # of torch.save, whose errors are RuntimeErrors that name a line of C++


def place_for(given: object, name: str = "save_directory") -> Path:
    """The path to write to, HOME for `~`. `given` is checked before it is a Path, of which an empty one is "." and
    would fill the folder that one happens to stand in.

    Raises ValueError for an empty text and TypeError for what is no path, both with the argument's `name`.
    """
    if not isinstance(given, str | os.PathLike):
        raise TypeError(f"{name} is a {type(given).__name__}; give the path of a folder or a file")
    if not os.fspath(given).strip():
        raise ValueError(f'{name} is empty; name a folder, or give "." for the current one')
    return Path(given).expanduser()


@contextmanager
def alone(place: Path, wait: bool = False) -> Iterator[None]:
    """Hold `place`, a folder or a file that is there, against all other processes and threads that ask for it so.

    OSError where somebody has it; with `wait` it begins when they are done.
    """
    lock = _locked(place, wait)
    try:
        yield
    finally:
        _unlock(lock)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to. When the block ends it becomes `path`; when it fails nothing is left of it, and
    an older `path` stays as it was. Of two who write to it, one waits for the other.

    A link stays one: what it leads to is replaced. A file that was there keeps its permissions.

    OSError, with the name and the room that is left, where the disk is full.
    """
    path = path.resolve() if path.is_symlink() else path
    temporary = path.with_name(path.name + ".partial")
    lock = _lock_under(temporary, lambda: os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o666)), wait=True)
    try:
        yield temporary
        _flush(temporary)
        if path.exists():
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        code = errno.ENOSPC if isinstance(error, RuntimeError) and TORCH_WRITER in str(error) else None
        code = error.errno if isinstance(error, OSError) and error.errno in FULL else code
        if code is None:
            raise
        free = f"{shutil.disk_usage(path.parent).free:,} bytes free on its disk"
        told = f"could not write {path} ({error}; {free}); what was there before is unchanged"
        raise OSError(code, told) from error
    finally:
        _unlock(lock)


def write_atomically(path: Path, content: bytes) -> None:
    """Give `path` this content; a reader sees the old file or the new one."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def filling(folder: Path, temporary: Path | None = None) -> Iterator[Path]:
    """An empty folder to fill. When the block ends it becomes `folder`; when it fails nothing is left of it.

    `folder` must not be there yet, or be empty. Meanwhile it is called `temporary`, by default a hidden name beside it;
    what a process that was killed left under that name goes. OSError where `folder` holds something, or where somebody
    else is filling it.
    """
    temporary = temporary or folder.with_name(f".{folder.name}.unfinished")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        kind = "not empty" if folder.is_dir() else "no folder"
        raise OSError(errno.ENOTEMPTY if folder.is_dir() else errno.ENOTDIR, f"{folder} is {kind}; give another name")
    if temporary.is_symlink():
        temporary.unlink()
    lock = _lock_under(temporary, lambda: temporary.mkdir(parents=True, exist_ok=True), wait=False, told=folder)
    try:
        for path in temporary.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                _flush(path)
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        _unlock(lock)


def _locked(place: Path, wait: bool, told: Path | None = None) -> int | None:
    """A descriptor of `place` that holds a lock on it. OSError where somebody else has one, if it is not to `wait`;
    `told` is what the place is called there."""
    if sys.platform == "win32":  # which has no locks, and does not rename what is open
        return None
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        os.close(descriptor)
        name = told or place
        raise OSError(
            error.errno, f"another process or thread is writing to {name}; wait for it, or give another place"
        ) from None
    except OSError:
        pass  # a file system without locks
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lock_under(name: Path, make: Callable[[], None], wait: bool, told: Path | None = None) -> int | None:
    """`_locked`, of what has this name: whoever waited may have got what was renamed meanwhile."""
    while True:
        make()
        with suppress(FileNotFoundError):
            lock = _locked(name, wait, told)
            if lock is None:
                return None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), os.stat(name)):
                    return lock
            os.close(lock)


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _flush(path: Path) -> None:
    """Wait until the disk has all of a file: a rename may reach it before what was written."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
