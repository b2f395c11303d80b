"""A path or a hub id, resolved to a folder on this machine."""

import os
from pathlib import Path

import huggingface_hub

from persimmon_lab.checkpoints.errors import CheckpointNotFoundError

SETTINGS = ["config.json", "generation_config.json"]
SAFETENSORS = ["model.safetensors", "model.safetensors.index.json", "model-*.safetensors"]
PICKLES = ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin"]


def resolve(
    path_or_id: str | os.PathLike,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder of a checkpoint: a folder as it is, a hub id (`owner/name`) after a download into the hub's cache.

    A folder wins over a hub id of the same name. `revision`, `token`, `cache_dir` and `local_files_only` mean what
    they mean in `huggingface_hub.snapshot_download` and are for hub ids only.

    Raises CheckpointNotFoundError when the name is neither, or when the hub cannot or will not give it.
    """
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointNotFoundError(f"{folder} is a file; give the folder that holds config.json and the weights")
    looked_in = f"There is no folder {folder.absolute()}"
    download = huggingface_hub.snapshot_download  # loaded here, on first use, and with it `errors` and `utils`
    try:
        # A Path is meant as a path; only a string can also be an id.
        huggingface_hub.utils.validate_repo_id(path_or_id if isinstance(path_or_id, str) else "")
    except huggingface_hub.errors.HFValidationError as error:
        raise CheckpointNotFoundError(
            f"{str(path_or_id)!r} is neither a folder nor a hub id. {looked_in}, and a hub id is 'owner/name'"
        ) from error
    options = {
        "revision": revision,
        "token": token,
        "cache_dir": cache_dir,
        "local_files_only": local_files_only,
    }
    try:
        # The pickled weights are only fetched where there are no safetensors.
        folder = Path(download(path_or_id, allow_patterns=SETTINGS + SAFETENSORS, **options))
        if not any(folder.glob("model*.safetensors")):
            folder = Path(download(path_or_id, allow_patterns=SETTINGS + PICKLES, **options))
        return folder
    except huggingface_hub.errors.GatedRepoError as error:
        raise CheckpointNotFoundError(
            f"the hub shows {path_or_id!r} only to those who accepted its terms: do so at "
            f"https://huggingface.co/{path_or_id}, then log in with `hf auth login` or pass token=..."
        ) from error
    except huggingface_hub.errors.RevisionNotFoundError as error:
        raise CheckpointNotFoundError(f"the hub has {path_or_id!r}, but no revision {revision!r} of it") from error
    except huggingface_hub.errors.RepositoryNotFoundError as error:
        raise CheckpointNotFoundError(
            f"{path_or_id!r} is neither a folder nor on the hub. {looked_in}, and the hub shows no repository of that "
            "name (a private one needs `hf auth login` or token=...)"
        ) from error
    except huggingface_hub.errors.LocalEntryNotFoundError as error:
        reason = "local_files_only=True" if local_files_only else "the hub cannot be reached from here"
        raise CheckpointNotFoundError(
            f"{path_or_id!r} is neither a folder nor wholly in the hub's cache. {looked_in}, and it cannot be "
            f"downloaded: {reason}. Load it once while online, or give the folder of a copy"
        ) from error
