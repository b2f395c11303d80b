"""A path or a hub id, resolved to a folder on this machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub

from persimmon_lab.checkpoints.errors import CheckpointNotFoundError


@dataclass(frozen=True)
class Wanted:
    """What to fetch of a repository: names, or patterns of names, and what to call them in a message.

    `settings` always; of `one_of` the first set of which the repository has a file, and the others not at all.
    """

    settings: list[str]
    one_of: list[list[str]]
    spoken: str


MODEL = Wanted(
    settings=["config.json", "generation_config.json"],
    one_of=[
        ["model.safetensors", "model.safetensors.index.json", "model-*.safetensors"],
        ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin"],
    ],
    spoken="config.json and the weights",
)


def resolve(
    path_or_id: str | os.PathLike[str],
    wanted: Wanted = MODEL,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder of a checkpoint: a folder as it is, a hub id (`owner/name`) after a download into the hub's cache.

    A folder wins over a hub id of the same name, and `~` is the home folder. `revision`, `token`, `cache_dir` and
    `local_files_only` mean what they mean in `huggingface_hub.snapshot_download` and are for hub ids only.

    Raises CheckpointNotFoundError when the name is neither, or when the hub cannot or will not give it.
    """
    if not os.fspath(path_or_id).strip():  # as a Path it would be the current folder
        raise CheckpointNotFoundError('the name of the model is empty; give a folder (".": this one) or a hub id')
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointNotFoundError(f"{folder} is a file; give the folder that holds {wanted.spoken}")
    download = huggingface_hub.snapshot_download  # loaded here, on first use, and with it `errors` and `utils`
    # A Path is meant as a path; only a string can also be an id.
    repo_id = path_or_id if isinstance(path_or_id, str) else ""
    with _telling(path_or_id, revision, local_files_only):
        huggingface_hub.utils.validate_repo_id(repo_id)  # type: ignore[attr-defined]  # documented, not in __all__
        for patterns in wanted.one_of:
            snapshot = download(
                repo_id,
                allow_patterns=[*wanted.settings, *patterns],
                revision=revision,
                token=token,
                cache_dir=None if cache_dir is None else os.fspath(cache_dir),
                local_files_only=local_files_only,
            )
            folder = Path(snapshot)
            if any(file for pattern in patterns for file in folder.glob(pattern)):
                break
    return folder


@contextmanager
def _telling(name: str | os.PathLike[str], revision: str | None, local_files_only: bool) -> Iterator[None]:
    """The errors of the hub's client as CheckpointNotFoundErrors that say what to do."""
    looked_in = f"There is no folder {Path(name).expanduser().absolute()}"
    try:
        yield
    except huggingface_hub.errors.HFValidationError as error:
        raise CheckpointNotFoundError(
            f"{str(name)!r} is neither a folder nor a hub id. {looked_in}, and a hub id is 'owner/name'"
        ) from error
    except huggingface_hub.errors.GatedRepoError as error:
        raise CheckpointNotFoundError(
            f"the hub shows {name!r} only to those who accepted its terms: do so at "
            f"https://huggingface.co/{name}, then log in with `hf auth login` or pass token=..."
        ) from error
    except huggingface_hub.errors.RevisionNotFoundError as error:
        raise CheckpointNotFoundError(f"the hub has {name!r}, but no revision {revision!r} of it") from error
    except huggingface_hub.errors.RepositoryNotFoundError as error:
        raise CheckpointNotFoundError(
            f"{name!r} is neither a folder nor on the hub. {looked_in}, and the hub shows no repository of that "
            "name (a private one needs `hf auth login` or token=...)"
        ) from error
    except huggingface_hub.errors.LocalEntryNotFoundError as error:
        reason = "local_files_only=True" if local_files_only else "the hub cannot be reached from here"
        raise CheckpointNotFoundError(
            f"{name!r} is neither a folder nor wholly in the hub's cache. {looked_in}, and it cannot be "
            f"downloaded: {reason}. Load it once while online, or give the folder of a copy"
        ) from error
    except huggingface_hub.errors.HfHubHTTPError as error:
        raise CheckpointNotFoundError(f"{name!r} is no folder, and the hub did not give it: {error}") from error
