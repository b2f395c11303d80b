"""GenerationConfig: what `generate` may be told, and its `generation_config.json`."""

import dataclasses
import difflib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from persimmon_lab.atomic import write_atomically

FILE_NAME = "generation_config.json"


@dataclass
class GenerationConfig:
    """How to decode, under transformers' names.

    Length: `max_new_tokens`, or `max_length` with the prompt counted in; with neither, 20 new tokens, or fewer where
    the context ends. With both, `max_new_tokens` holds.

    Choice: `do_sample=False` takes the most probable token; otherwise one is drawn after `temperature`, `top_k`,
    `top_p` and `min_p`. `repetition_penalty` and `no_repeat_ngram_size` (no run of so many tokens twice) act on both.
    The trap: transformers samples from the 50 best tokens unless it is told `top_k=0`; here nothing is cut that you did
    not ask to cut. Adept's rule is top-k or top-p, not both.

    Beams: `num_beams` above 1 searches for the most probable text (see `persimmon_lab.generation.beams`), with
    `length_penalty` and `early_stopping`: True ends with the first `num_beams` complete texts, "never" when none can
    become better, False when none does that is no longer than now. `num_return_sequences` of them are returned.

    Long prompts: `prefill_chunk_size` positions are read at a time, which bounds what a forward pass holds.

    End: a row stops at an id in `eos_token_id` (one or several) or when its text contains one of `stop_strings`, and is
    filled with `pad_token_id` (else the first eos) while the other rows go on.

    `extra` keeps keys of a file that we do not use, so that saving it loses nothing.
    """

    max_length: int | None = None
    max_new_tokens: int | None = None
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int | None = None
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    num_return_sequences: int = 1
    use_cache: bool = True
    prefill_chunk_size: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    stop_strings: str | list[str] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def names(cls) -> list[str]:
        """The settings that `generate` takes."""
        return [item.name for item in dataclasses.fields(cls) if item.name != "extra"]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From the dictionary of a generation_config.json; null means the default."""
        known = {name: values[name] for name in cls.names() if values.get(name) is not None}
        return cls(**known, extra={name: value for name, value in values.items() if name not in cls.names()})

    def to_dict(self) -> dict[str, Any]:
        """Only what differs from the defaults, as transformers writes it."""
        default = GenerationConfig()
        changed = {name: getattr(self, name) for name in self.names() if getattr(self, name) != getattr(default, name)}
        return {**changed, **self.extra}

    @classmethod
    def from_pretrained(cls, directory: str | os.PathLike[str]) -> Self:
        """Read `directory`/generation_config.json."""
        path = Path(directory).expanduser() / FILE_NAME
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write `directory`/generation_config.json, whole or not at all; the folder is made if it is missing."""
        folder = Path(directory).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / FILE_NAME, self.to_json_string().encode("utf-8"))

    def to_json_string(self) -> str:
        return json.dumps(self.to_dict(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    def replace(self, **settings: Any) -> Self:
        """A copy with some settings replaced; None replaces too (`eos_token_id=None` never stops early).

        Raises TypeError for a name that is not a setting.
        """
        unknown = [name for name in settings if name not in self.names()]
        if unknown:
            raise TypeError(f"generate() has no setting {_with_suggestions(unknown, self.names())}")
        # A length asked for now overrules the other kind of length in the file.
        if settings.get("max_length") is not None:
            settings.setdefault("max_new_tokens", None)
        return dataclasses.replace(self, **settings)

    def eos_token_ids(self) -> list[int]:
        return _as_list(self.eos_token_id)

    def stop_string_list(self) -> list[str]:
        return _as_list(self.stop_strings)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _with_suggestions(unknown: list[str], names: list[str]) -> str:
    def with_suggestion(name: str) -> str:
        close = difflib.get_close_matches(name, names, n=1)
        return f"{name!r} (did you mean {close[0]!r}?)" if close else repr(name)

    return f"{', '.join(map(with_suggestion, unknown))}; it has {', '.join(names)}"
