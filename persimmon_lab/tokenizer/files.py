"""The files of a tokenizer: finding them, reading the settings, writing what this and other libraries read."""

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from persimmon_lab.atomic import write_atomically
from persimmon_lab.checkpoints import hub
from persimmon_lab.checkpoints.errors import CheckpointNotFoundError
from persimmon_lab.field_checks import Rule, flag, instance_of, is_number, one_of, parsed, shown, whole
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
TEMPLATE_FILE = "chat_template.jinja"
NO_LIMIT = 10**30  # what transformers writes as model_max_length where there is none
TOKEN = instance_of(str, "the text of a token, or None")
RULES = {
    "bos_token": TOKEN,
    "eos_token": TOKEN,
    "pad_token": TOKEN,
    "unk_token": TOKEN,
    "add_bos_token": flag(),
    "add_eos_token": flag(),
    "padding_side": one_of(("left", "right")),
    "model_max_length": whole(1, note=", or None"),
    "clean_up_tokenization_spaces": flag(),
    "chat_template": Rule(  # the file's alone, for transformers; several of them have names
        "the text of a template, or a list of named ones", lambda value: isinstance(value, str | list | dict)
    ),
}


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
        content = parsed(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, where settings by name would be")
    return content


def checked(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Options of the constructor and keys of tokenizer_config.json, each in Python's own type; others as they are.

    Raises ValueError, one line, for a type or a value that cannot be right; `where` is the name of the place.
    """
    kept = dict(options)
    for name, rule in RULES.items():
        value = kept.get(name)
        if value is None:
            continue
        if not rule.accepts(value):
            raise ValueError(f"{where}: {name} is {shown(value)}, but it has to be {rule.expected}")
        kept[name] = rule.kept(value)
    return kept


def read_config(path: Path) -> dict[str, Any]:
    """What tokenizer_config.json says of the constructor's options; nothing where there is no such file.

    Raises ValueError that names the file for what is no JSON object, and as `checked`.
    """
    if not path.is_file():
        return {}
    stored = read_json(path)
    for key in ("bos_token", "eos_token", "pad_token", "unk_token"):
        if isinstance(stored.get(key), dict):
            stored[key] = stored[key].get("content", stored[key])  # transformers' AddedToken
    if is_number(stored.get("model_max_length")) and stored["model_max_length"] >= NO_LIMIT:
        del stored["model_max_length"]
    stored = checked(stored, str(path))
    return {key: stored[key] for key in CONFIG_KEYS if stored.get(key) is not None}


def warn_of_unfollowed(folder: Path, vocab_size: int) -> None:
    """Say what the files of a tokenizer ask for that this one does not do."""
    path = folder / CONFIG_FILE
    stored = read_json(path) if path.is_file() else {}
    jinja = folder / TEMPLATE_FILE
    template = stored.get("chat_template") or CHAT_TEMPLATE
    if jinja.is_file():
        template = jinja.read_text(encoding="utf-8", errors="replace")
    added = stored.get("added_tokens_decoder")
    tokens = added.items() if isinstance(added, dict) else ()
    beyond = [shown(token) for index, token in tokens if index.isdecimal() and int(index) >= vocab_size]
    unfollowed = {
        "truncation_side is 'left', and texts are cut at their ends": stored.get("truncation_side") == "left",
        "chat_template is not Adept's, in whose form chats are written": not (
            isinstance(template, str) and template.endswith(CHAT_TEMPLATE)
        ),
        f"{', '.join(beyond)} was added behind the vocabulary, and is read as text": bool(beyond),
    }
    if told := "; ".join(reason for reason, is_so in unfollowed.items() if is_so):
        warnings.warn(f"{folder}: {told}", stacklevel=3)


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
