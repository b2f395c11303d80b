"""GenerationConfig: what `generate` may be told, and its `generation_config.json`."""

import dataclasses
import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from persimmon_lab.atomic import place_for, write_atomically
from persimmon_lab.elsewhere import OF_GENERATION_CONFIG, UPLOADS, Elsewhere, ignore, no_keywords_left, refuse
from persimmon_lab.field_checks import (
    Rule,
    check_fields,
    flag,
    instance_of,
    number,
    one_of,
    parsed,
    prepared_by,
    token_id,
    token_ids,
    whole,
)

FILE_NAME = "generation_config.json"
LEAST = 1e-30  # by which a logit can be divided in float32 without leaving it
OFF = "; None or 0 leaves it out"
RULES: dict[str, Rule] = {
    "max_length": whole(0, null=True, note=", or None"),
    "max_new_tokens": whole(0, null=True, note=", or None"),
    "min_length": whole(0),
    "min_new_tokens": whole(0, null=True, note=", or None"),
    "do_sample": flag(),
    "temperature": number(0.0),  # 0 as long as nothing is drawn
    "top_k": whole(0, null=True, note=OFF),
    "top_p": number(0.0, 1.0, null=True, note=", a probability, or None"),
    "min_p": number(0.0, 1.0, null=True, note=", a ratio, or None"),
    "repetition_penalty": number(LEAST, 1 / LEAST, note=" (1 changes nothing)"),
    "no_repeat_ngram_size": whole(0, null=True, note=OFF),
    "num_beams": whole(1),
    "length_penalty": number(-10.0, 10.0),  # a length to a power beyond these leaves float32
    "early_stopping": one_of((True, False, "never")),
    "num_return_sequences": whole(1),
    "use_cache": flag(),
    "prefill_chunk_size": whole(1, null=True, note=", or None"),
    "prompt_lookup_num_tokens": whole(0, null=True, note=OFF),
    "max_matching_ngram_size": whole(1),
    "num_assistant_tokens": whole(1),
    "bos_token_id": token_id(),
    "eos_token_id": token_ids(),
    "pad_token_id": token_id(),
    "stop_strings": Rule(
        "a text, a list of texts, or None",
        lambda value: all(isinstance(text, str) for text in (value if isinstance(value, list | tuple) else [value])),
        null=True,
    ),
    "extra": instance_of(dict, "a dictionary"),
}

# In a file these values change nothing; nor do None, False and empty ones.
WITHOUT_EFFECT = {
    "diversity_penalty": 0.0,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "guidance_scale": 1.0,
    "num_beam_groups": 1,
    "penalty_alpha": 0.0,
    "typical_p": 1.0,
}
# Speed and memory of transformers, and notes: whatever their values, the text is the same.
HARMLESS = {
    "transformers_version", "decoder_start_token_id", "low_memory", "remove_invalid_values", "use_mtp",
    "num_assistant_tokens_schedule", "assistant_confidence_threshold", "assistant_early_exit",
    "assistant_lookbehind", "target_lookbehind", "is_assistant",
    "speculation_type", "cache_implementation", "cache_config", "max_cache_len", "compile_config", "disable_compile",
    "continuous_batching_config",
}  # fmt: skip


def _refuse_keywords(named: dict[str, Any]) -> dict[str, Any]:
    refuse("GenerationConfig()", named, OF_GENERATION_CONFIG)
    return named


@prepared_by(_refuse_keywords)
@dataclass
class GenerationConfig(Elsewhere):
    """How to decode, under transformers' names.

    Length: `max_new_tokens`, or `max_length` with the prompt counted in; with neither, 20 new tokens, or fewer where
    the context ends. With both, `max_new_tokens` holds. No text ends by an eos before `min_new_tokens` new ones, or
    before `min_length` with the prompt counted in.

    Choice: `do_sample=False` takes the most probable token; otherwise one is drawn after `temperature`, `top_k`,
    `top_p` and `min_p`. `repetition_penalty` and `no_repeat_ngram_size` (no run of so many tokens twice) act on both.
    The trap: transformers samples from the 50 best tokens unless it is told `top_k=0`; here nothing is cut that you did
    not ask to cut. Adept's rule is top-k or top-p, not both.

    Beams: `num_beams` above 1 searches for the most probable text (see `persimmon_lab.generation.beams`), with
    `length_penalty` and `early_stopping`: True ends with the first `num_beams` complete texts, "never" when none can
    become better, False when none would if it ended now. `num_return_sequences` of them are returned.

    Guessing ahead (see `persimmon_lab.generation.guessing`): `prompt_lookup_num_tokens` at a time, that the text is
    taken to say again after a run of at most `max_matching_ngram_size` tokens that it said before; or
    `num_assistant_tokens` of `generate`'s `assistant_model`.

    Long prompts: `prefill_chunk_size` positions are read at a time, which bounds what a forward pass holds.

    End: a row stops at an id in `eos_token_id` (one or several) or when its text contains one of `stop_strings`, and is
    filled with `pad_token_id` (else the first eos) while the other rows go on.

    `extra` keeps keys of a file that we do not use, so that saving it loses nothing; `ignored` names those among them
    that would have changed the text.

    Checked when it is made and in `replace`, by `check`; None for a setting that has a default is that default. Raises
    ValueError for a type or a value that cannot be right, TypeError for a setting of transformers that ours does not
    have, with what to use instead.
    """

    max_length: int | None = None
    max_new_tokens: int | None = None
    min_length: int = 0
    min_new_tokens: int | None = None
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
    prompt_lookup_num_tokens: int | None = None
    max_matching_ngram_size: int = 2
    num_assistant_tokens: int = 5
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    stop_strings: str | list[str] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    elsewhere: ClassVar[Mapping[str, str]] = OF_GENERATION_CONFIG

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            if getattr(self, item.name) is None and item.default not in (None, dataclasses.MISSING):
                setattr(self, item.name, item.default)
        self.check()

    def check(self) -> None:
        """Raise ValueError, one line that names the setting, for what no prompt and no model could make right."""
        check_fields(self, RULES, "{name}={value}, but it has to be {expected}")
        if self.temperature == 0 and self.do_sample:
            raise ValueError(
                f"temperature={self.temperature}, but it has to be a number above 0; for greedy decoding leave "
                "do_sample=False"
            )
        if 0 < self.temperature < LEAST:
            raise ValueError(
                f"temperature={self.temperature}, but it has to be at least {LEAST}, or logits divided by it leave "
                "float32; for greedy decoding leave do_sample=False"
            )
        for text in self.stop_string_list():
            if not text:
                raise ValueError("an empty stop string would end every text at its first token")
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise ValueError(f"the stop string {text!r} holds half a character, which no text does; give it whole")

    def validate(self, is_init: bool = False) -> None:
        """`check`, under transformers' name; `is_init` changes nothing."""
        self.check()

    @classmethod
    def names(cls) -> list[str]:
        """The settings that `generate` takes."""
        return [item.name for item in dataclasses.fields(cls) if item.name != "extra"]

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **overrides: Any) -> Self:
        """From the dictionary of a generation_config.json; null means the default. `overrides` replace settings."""
        refuse("GenerationConfig.from_dict", overrides, {"return_unused_kwargs": "extra, which keeps them"})
        known = {name: config_dict[name] for name in cls.names() if config_dict.get(name) is not None}
        extra = {name: value for name, value in config_dict.items() if name not in cls.names()}
        return cls(**{"extra": extra, **known, **overrides})

    @classmethod
    def from_any(cls, settings: Any) -> Self:
        """Settings as they are handed to `generate`: ours, a dictionary, or a GenerationConfig of transformers.

        Of the last, through its `to_dict`, what was set: what is not None and not the default of its own class. What we
        do not have comes into `extra`, where `ignored` finds it. Raises TypeError for anything else.
        """
        if isinstance(settings, cls):
            return settings
        if isinstance(settings, Mapping):
            return cls.from_dict(dict(settings))
        if not callable(getattr(settings, "to_dict", None)) or isinstance(settings, type):
            raise TypeError(
                f"generation_config is a {type(settings).__name__}; give a GenerationConfig, transformers' own, or a "
                "dictionary of settings"
            )
        values, usual = settings.to_dict(), type(settings)().to_dict()
        return cls.from_dict(
            {name: value for name, value in values.items() if value is not None and value != usual.get(name)}
        )

    @classmethod
    def from_model_config(cls, model_config: Any) -> Self:
        """The special ids of a model's configuration, on which `generate` falls back anyway."""
        ids = {name: getattr(model_config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        return cls(**ids, extra={"_from_model_config": True})

    def ignored(self) -> dict[str, str]:
        """The settings in `extra` that would have changed the text, which `generate` leaves out, and why."""
        return {
            name: f"use {OF_GENERATION_CONFIG[name]}" if name in OF_GENERATION_CONFIG else "no setting of ours"
            for name, value in self.extra.items()
            if not (name.startswith("_") or name in HARMLESS or value is None or value is False)
            and value not in ([], {}, "")
            and value != WITHOUT_EFFECT.get(name)
        }

    def warn_of_ignored(self, stacklevel: int = 2) -> None:
        """Warn of what is `ignored` by name, once for these settings."""
        if not self.__dict__.get("_warned"):
            self.__dict__["_warned"] = True
            reasons = self.ignored()
            ignore("generate()", reasons, reasons, stacklevel=stacklevel + 1)

    def to_dict(self) -> dict[str, Any]:
        """Only what differs from the defaults, as transformers writes it."""
        default = GenerationConfig()
        changed = {name: getattr(self, name) for name in self.names() if getattr(self, name) != getattr(default, name)}
        return {**changed, **self.extra}

    def to_diff_dict(self) -> dict[str, Any]:
        """`to_dict`, under transformers' other name."""
        return self.to_dict()

    def to_json_string(self, use_diff: bool = True, ignore_metadata: bool = False) -> str:
        """The file's text: what differs from the defaults, or every setting; without notes about its origin if asked.

        The notes are `transformers_version` and names with an underscore.
        """
        values = self.to_dict() if use_diff else {**{name: getattr(self, name) for name in self.names()}, **self.extra}
        if ignore_metadata:
            values = {
                name: value
                for name, value in values.items()
                if name != "transformers_version" and not name.startswith("_")
            }
        return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike[str], use_diff: bool = True) -> None:
        """Write one file, whole or not at all."""
        write_atomically(place_for(json_file_path, "json_file_path"), self.to_json_string(use_diff).encode("utf-8"))

    @classmethod
    def from_pretrained(cls, directory: str | os.PathLike[str]) -> Self:
        """Read `directory`/generation_config.json. Raises ValueError that names the file for what it cannot say."""
        path = Path(directory).expanduser() / FILE_NAME
        content = path.read_bytes()
        try:
            values = parsed(content)
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise ValueError(f"{path} holds a JSON {type(values).__name__}, not an object of generation settings")
        try:
            return cls.from_dict(values)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: {error}") from None

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], config_file_name: str | None = None, **uploads: Any
    ) -> None:
        """Write `save_directory`/generation_config.json (or another name), whole or not at all; the folder is made if
        it is missing. Nothing is uploaded: arguments for that are a TypeError."""
        no_keywords_left("save_pretrained", uploads, UPLOADS)
        folder = place_for(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.to_json_file(folder / (config_file_name or FILE_NAME))

    def update(self, **settings: Any) -> dict[str, Any]:
        """Set what is given, all of it or nothing; returns what is no setting of ours."""
        refuse("GenerationConfig.update", settings, OF_GENERATION_CONFIG)
        known = {name: value for name, value in settings.items() if name in self.names()}
        self.__dict__.update(dataclasses.replace(self, **known).__dict__)
        return {name: value for name, value in settings.items() if name not in known}

    def replace(self, **settings: Any) -> Self:
        """A copy with some settings replaced; None replaces too (`eos_token_id=None` never stops early).

        Raises TypeError for a name that is not a setting, ValueError as `check` does.
        """
        refuse("generate()", settings, OF_GENERATION_CONFIG)
        unknown = [name for name in settings if name not in self.names()]
        if unknown:
            raise TypeError(f"generate() has no setting {_with_suggestions(unknown, self.names())}")
        # A length asked for now overrules the other kind of length in the file.
        if settings.get("max_length") is not None:
            settings.setdefault("max_new_tokens", None)
        return dataclasses.replace(self, **settings)

    def least_new_tokens(self, prompt_width: int) -> int:
        """How many tokens come before an eos may, after a prompt of so many positions."""
        return max(self.min_new_tokens or 0, self.min_length - prompt_width, 0)

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
