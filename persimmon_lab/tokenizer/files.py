"""The files of a tokenizer: finding them, reading the settings, writing what this and other libraries read."""

import json
import os
from pathlib import Path
from typing import Any

from persimmon_lab.atomic import write_atomically
from persimmon_lab.checkpoints import hub
from persimmon_lab.checkpoints.errors import CheckpointNotFoundError
from persimmon_lab.tokenizer.chat import CHAT_TEMPLATE

VOCAB_FILE, CONFIG_FILE, FAST_FILE = "tokenizer.model", "tokenizer_config.json", "tokenizer.json"
CONFIG_KEYS = (
    "bos_token",
    "eos_token",
    "pad_token",
    "add_bos_token",
    "add_eos_token",
    "padding_side",
    "model_max_length",
    "clean_up_tokenization_spaces",
)
ON_THE_HUB = hub.Wanted(settings=[CONFIG_FILE], one_of=[[VOCAB_FILE], [FAST_FILE]], spoken=VOCAB_FILE)
NO_LIMIT = 10**30  # what transformers writes as model_max_length where there is none


def find_vocabulary(
    path_or_id: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """The tokenizer.model in a folder, the one named or the hub's, downloaded into its cache; else its tokenizer.json.

    CheckpointNotFoundError (a FileNotFoundError) where there is no such folder, or neither file in it.
    """
    folder = hub.resolve(
        path_or_id,
        ON_THE_HUB,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
    )
    for name in (VOCAB_FILE, FAST_FILE):
        if (folder / name).is_file():
            return folder / name
    names = sorted(path.name for path in folder.iterdir())
    raise CheckpointNotFoundError(f"{folder} has no {VOCAB_FILE}, where the vocabulary would be; it has {names}")


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, where settings by name would be")
    return content


def read_config(path: Path) -> dict[str, Any]:
    """What tokenizer_config.json says of the constructor's options; nothing where there is no such file."""
    if not path.is_file():
        return {}
    stored = read_json(path)
    options = {key: stored[key] for key in CONFIG_KEYS if stored.get(key) is not None}
    for key in ("bos_token", "eos_token", "pad_token"):
        if isinstance(options.get(key), dict):
            options[key] = options[key]["content"]  # transformers' AddedToken
    if options.get("model_max_length", 0) >= NO_LIMIT:
        del options["model_max_length"]
    return options


def write_files(folder: Path, proto: bytes, config: dict[str, Any], fast: dict[str, Any] | None) -> list[Path]:
    """Write the vocabulary, the settings and, where there is one, the content of tokenizer.json."""
    bos = "{{ bos_token }}" if config["add_bos_token"] and config["bos_token"] else ""
    config = config | {
        # transformers' LlamaTokenizer would rebuild a Unigram model as BPE; this one takes tokenizer.json as it is.
        "tokenizer_class": "LlamaTokenizer" if fast is None else "PreTrainedTokenizerFast",
        "model_max_length": config["model_max_length"] or NO_LIMIT,
    }
    config |= {
        "clean_up_tokenization_spaces": config.pop("clean_up_tokenization_spaces"),  # where it always stood
        "chat_template": bos + CHAT_TEMPLATE,
    }
    contents = {VOCAB_FILE: proto, CONFIG_FILE: json.dumps(config, ensure_ascii=False, indent=2).encode("utf-8")}
    if fast is not None:
        contents[FAST_FILE] = json.dumps(fast, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [folder / name for name in contents]
