"""PersimmonConfig: every size and switch of the model, checked once, on construction."""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from persimmon_lab.atomic import place_for, write_atomically
from persimmon_lab.dialects import agree, in_our_dialect
from persimmon_lab.dtypes import dtype_name
from persimmon_lab.elsewhere import OF_CONFIG, UPLOADS, Elsewhere, no_keywords_left, refuse
from persimmon_lab.field_checks import (
    Rule,
    check_fields,
    flag,
    instance_of,
    number,
    one_of,
    parsed,
    prepared_by,
    shown,
    token_id,
    token_ids,
    whole,
)
from persimmon_lab.labels import check_label_names, settle_label_names, take_label_names

ROPE_SCALING_TYPES = ("linear", "dynamic")
ROPE_PRECISIONS = ("float32", "adept")
ATTENTION_IMPLEMENTATIONS = ("sdpa", "eager")
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
TOKEN_IDS = ("pad_token_id", "bos_token_id", "eos_token_id")

SIZE = whole(1)
FLAG = flag()
PROBABILITY = number(0.0, 1.0, note=", a probability")
RULES: dict[str, Rule] = {
    "vocab_size": SIZE,
    "hidden_size": SIZE,
    "intermediate_size": SIZE,
    "num_hidden_layers": SIZE,
    "num_attention_heads": SIZE,
    "hidden_act": Rule("the name of an activation, or a function", lambda act: isinstance(act, str) or callable(act)),
    "max_position_embeddings": SIZE,
    "initializer_range": number(0.0),
    "layer_norm_eps": number(0.0),
    "use_cache": FLAG,
    "tie_word_embeddings": FLAG,
    "rope_theta": number(0.0, above=True, note=", the base of the rotary frequencies"),
    "rope_scaling": instance_of(dict, 'a dictionary such as {"type": "linear", "factor": 2.0}, or None', null=True),
    "qk_layernorm": FLAG,
    "hidden_dropout": PROBABILITY,
    "attention_dropout": PROBABILITY,
    "partial_rotary_factor": number(0.0, 1.0, above=True, note=", the fraction of each head's channels that rotates"),
    "pad_token_id": token_id(),
    "bos_token_id": token_id(),
    "eos_token_id": token_ids(),
    "rope_precision": one_of(ROPE_PRECISIONS),
    "attn_implementation": one_of(ATTENTION_IMPLEMENTATIONS),
    "torch_dtype": Rule(
        'the name of a dtype such as "bfloat16", a torch.dtype, or None',
        lambda dtype: isinstance(dtype, str | torch.dtype),
        dtype_name,
        null=True,
    ),
    "num_labels": SIZE,
    "problem_type": one_of(PROBLEM_TYPES, null=True),
    "output_attentions": FLAG,
    "output_hidden_states": FLAG,
    "return_dict": FLAG,
    "architectures": Rule(
        "a list of names, or None",
        lambda names: isinstance(names, list | tuple) and all(isinstance(name, str) for name in names),
        list,
        null=True,
    ),
    "extra": instance_of(dict, "a dictionary"),
    "name_or_path": instance_of(str, "a text"),
}
FLAGS = [name for name, rule in RULES.items() if rule is FLAG]


def _prepared(named: dict[str, Any]) -> dict[str, Any]:
    refuse("PersimmonConfig()", named, OF_CONFIG)
    return take_label_names(named)


@prepared_by(_prepared)
@dataclass
class PersimmonConfig(Elsewhere):
    """The configuration of a Persimmon model; the defaults are those of Persimmon-8B.

    Sizes are counts of units. Reads both dialects of `config.json`: transformers 4 (`rope_theta`,
    `partial_rotary_factor`, `rope_scaling`, `torch_dtype`) and transformers 5 (`rope_parameters`, `dtype`), and
    writes the first, which both read correctly. Keys of a file that this class does not know are kept in `extra`
    and written back; an unknown keyword in the constructor is a TypeError, which for a field of transformers says what
    to use instead. The constructor also takes `id2label` and `label2id`, and counts them. `name_or_path` is where it
    was read from; it is neither written nor compared.

    Raises ValueError for a type or a value that cannot be right, for sizes that do not fit together and for special
    tokens beyond the vocabulary: one line that names the field, what was given and what is right.

    Source: transformers 4.37.2, `PersimmonConfig`; the last block of fields comes from its `PretrainedConfig`,
    except `rope_precision`, which is ours (see `persimmon_lab.rotary`).
    """

    vocab_size: int = 262144
    hidden_size: int = 4096
    intermediate_size: int = 16384
    num_hidden_layers: int = 36
    num_attention_heads: int = 64
    hidden_act: str | Callable[..., Any] = "relu2"
    max_position_embeddings: int = 16384
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-5
    use_cache: bool = True
    tie_word_embeddings: bool = False
    rope_theta: float = 25000.0
    rope_scaling: dict[str, Any] | None = None
    qk_layernorm: bool = True
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    partial_rotary_factor: float = 0.5
    pad_token_id: int | None = None
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2

    rope_precision: str = "float32"
    attn_implementation: str = "sdpa"
    torch_dtype: str | None = None
    num_labels: int = 2
    problem_type: str | None = None
    output_attentions: bool = False
    output_hidden_states: bool = False
    return_dict: bool = True
    architectures: list[str] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    name_or_path: str = field(default="", repr=False, compare=False)

    model_type = "persimmon"
    elsewhere: ClassVar[Mapping[str, str]] = OF_CONFIG
    # What other software asks of a configuration.
    attribute_map: ClassVar[dict[str, str]] = {}
    is_composition = False
    is_encoder_decoder = False

    def __post_init__(self) -> None:
        check_fields(self, RULES, "{name} is {value}; it has to be {expected}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not divisible by num_attention_heads {self.num_attention_heads}; "
                "every head needs the same whole number of channels"
            )
        if self.rotary_dim % 2 or self.rotary_dim == 0:
            raise ValueError(
                f"rotary width {self.rotary_dim} is {'odd' if self.rotary_dim else 'zero'} (head_dim {self.head_dim} x "
                f"partial_rotary_factor {self.partial_rotary_factor}); rotations act on pairs of channels"
            )
        self.rope_scaling = self._checked_rope_scaling(self.rope_scaling)
        self._check_token_ids()
        self.extra = settle_label_names(self.extra, self.num_labels)

    def _check_token_ids(self) -> None:
        """Special tokens are ids of the vocabulary; the defaults are not held against a vocabulary of two."""
        for name, value in self.token_ids_beyond(self.vocab_size).items():
            if value != getattr(type(self), name):
                raise ValueError(
                    f"{name} is {shown(value)}; it has to be an id of the vocabulary, 0 to {self.vocab_size - 1} "
                    f"(vocab_size {self.vocab_size}), or None"
                )

    def token_ids_beyond(self, vocab_size: int) -> dict[str, int | list[int]]:
        """The special tokens, by the names of their fields, that a vocabulary of that size would not have."""
        values = {name: getattr(self, name) for name in TOKEN_IDS}
        return {
            name: value
            for name, value in values.items()
            if any(i is not None and i >= vocab_size for i in (value if isinstance(value, list) else [value]))
        }

    def _checked_rope_scaling(self, scaling: dict[str, Any] | None) -> dict[str, Any] | None:
        """Either dialect of the dictionary as {"type", "factor"}; None where positions are not scaled."""
        if scaling is None:
            return None
        kind, factor = scaling.get("type", scaling.get("rope_type")), scaling.get("factor")
        if kind in (None, "default") and factor is None:
            return None
        if kind not in ROPE_SCALING_TYPES:
            raise ValueError(f"rope_scaling type is {kind!r}; choose one of 'linear', 'dynamic' (given: {scaling})")
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 1 < factor < math.inf:
            raise ValueError(f"rope_scaling factor is {factor!r}; it must be a number above 1 (given: {scaling})")
        if kind == "dynamic" and self.rotary_dim == 2:
            raise ValueError("dynamic rope_scaling needs a rotary width above 2: its base grows by 1 / (width - 2)")
        return {"type": kind, "factor": float(factor)}

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def rotary_dim(self) -> int:
        """Channels of one head that rotate: int(partial_rotary_factor * head_dim), the first ones."""
        return int(self.partial_rotary_factor * self.head_dim)

    @property
    def context_limit(self) -> int:
        """How far a text may go, in positions: `max_position_embeddings`, times the factor of `rope_scaling` if there
        is one. Further than that rotary phases are none that the model has seen."""
        factor = 1.0 if self.rope_scaling is None else self.rope_scaling["factor"]
        return int(self.max_position_embeddings * factor)

    @property
    def use_return_dict(self) -> bool:
        """The name that transformers' forward methods read `return_dict` by."""
        return self.return_dict

    @property
    def id2label(self) -> dict[int, str]:
        """The names of the labels by their numbers: those that were given, else LABEL_0, LABEL_1, ..."""
        names: dict[int, str] = self.extra.get("id2label") or {}
        return dict(names) if len(names) == self.num_labels else {i: f"LABEL_{i}" for i in range(self.num_labels)}

    @id2label.setter
    def id2label(self, names: dict[int, str]) -> None:
        self.update({"id2label": names})

    @property
    def label2id(self) -> dict[str, int]:
        """The numbers of the labels by their names."""
        return {name: i for i, name in self.id2label.items()}

    @label2id.setter
    def label2id(self, ids: dict[str, int]) -> None:
        self.update({"label2id": ids})

    @property
    def keys_to_ignore_at_inference(self) -> list[str]:
        """What an evaluation need not gather; a list of its own each time, since callers add to it."""
        return ["past_key_values"]

    def __contains__(self, name: object) -> bool:
        """Whether it has such a field, as for a dictionary."""
        return name in RULES or name in self.extra or name in ("model_type", "id2label", "label2id")

    def get(self, name: str, default: Any = None) -> Any:
        """A field, also one that is only in `extra`, or the default, as of a dictionary."""
        return getattr(self, name, self.extra.get(name, default)) if name in self else default

    def update(self, config_dict: dict[str, Any]) -> None:
        """Set several fields, checked together: all of them or, with an error as of the constructor, none."""
        self.__dict__.update(self._replaced(config_dict).__dict__)

    def _replaced(self, fields: Mapping[str, Any]) -> Self:
        """A copy with some fields replaced, `id2label` and `label2id` among them."""
        settings = dict(fields)
        if labels := settings.get("id2label") or settings.get("label2id"):
            settings.setdefault("num_labels", len(labels))
        return dataclasses.replace(self, **settings)

    @classmethod
    def persimmon_8b(cls, **overrides: Any) -> Self:
        """Persimmon-8B as Adept released it: 9.40 B parameters; 71013 is its `|ENDOFTEXT|`, used as bos and as eos.

        A smaller vocabulary than has that token has neither.
        """
        end = 71013 if overrides.get("vocab_size", cls.vocab_size) > 71013 else None
        released: dict[str, Any] = {"bos_token_id": end, "eos_token_id": end, "torch_dtype": "bfloat16"}
        return cls(**released | overrides)

    @classmethod
    def tiny(cls, **overrides: Any) -> Self:
        """A model for tests and first looks: 64 wide, 2 layers, 4 heads, 128 tokens of vocabulary, context 64."""
        sizes: dict[str, Any] = {
            "vocab_size": 128,
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
        }
        return cls(**sizes | overrides)

    @classmethod
    def from_dict(
        cls, config_dict: dict[str, Any], *, attn_implementation: str | None = None, **overrides: Any
    ) -> Self:
        """Read the contents of a `config.json` of either dialect; `overrides` replace fields.

        Raises ValueError when `model_type` names another architecture, or when the two dialects contradict each other
        in one file (see `dialects`).
        """
        refuse("PersimmonConfig.from_dict", overrides, {"return_unused_kwargs": "extra, which keeps them"})
        values = {name: value for name, value in config_dict.items() if value is not None or name not in FLAGS}
        model_type = values.pop("model_type", cls.model_type)
        if model_type != cls.model_type:
            raise ValueError(f"model_type is {model_type!r}; this package reads {cls.model_type!r} configurations only")
        values = in_our_dialect(values)
        check_label_names(values.get("id2label"), values.get("label2id"))
        if labels := values.get("id2label"):
            agree(values, "num_labels", len(labels), "id2label")
        known = RULES.keys() - {"extra", "name_or_path"}
        extra = {key: values.pop(key) for key in list(values) if key not in known}
        config = cls(**values, extra=extra)
        if attn_implementation is not None:
            overrides["attn_implementation"] = attn_implementation
        return config._replaced(overrides) if overrides else config

    def to_dict(self) -> dict[str, Any]:
        """The contents of a `config.json` that transformers 4 and 5 both read correctly."""
        if callable(self.hidden_act):
            raise ValueError(f"hidden_act is the function {self.hidden_act}; only a name can be written to a file")
        values: dict[str, Any] = dataclasses.asdict(self)
        extra: dict[str, Any] = values.pop("extra")
        # The choice of kernel belongs to a run, not to a checkpoint.
        values.pop("attn_implementation")
        if self.rope_precision == "float32":
            values.pop("rope_precision")
        values.pop("name_or_path")
        # transformers counts labels by their names.
        if values.pop("num_labels") != 2 or extra.get("id2label"):
            extra |= {"id2label": self.id2label, "label2id": self.label2id}
        return {"model_type": self.model_type} | values | extra

    def to_diff_dict(self) -> dict[str, Any]:
        """Of `to_dict` what differs from the defaults, and the type of the model."""
        usual = type(self)().to_dict()
        return {
            name: value
            for name, value in self.to_dict().items()
            if name == "model_type" or name not in usual or value != usual[name]
        }

    def to_json_string(self, use_diff: bool = False) -> str:
        """The text of a `config.json`: every field, or what differs from the defaults."""
        return json.dumps(self.to_diff_dict() if use_diff else self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike[str], use_diff: bool = False) -> None:
        """Write one file, whole or not at all."""
        write_atomically(place_for(json_file_path, "json_file_path"), self.to_json_string(use_diff).encode("utf-8"))

    @classmethod
    def from_json_file(cls, json_file: str | os.PathLike[str]) -> Self:
        """Read one `config.json`. Raises ValueError that names the file when it is not a JSON object."""
        text = Path(json_file).expanduser().read_text(encoding="utf-8", errors="replace")
        try:
            values = parsed(text)
        except ValueError as error:
            raise ValueError(f"{json_file} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{json_file} holds a JSON {type(values).__name__}, not an object of configuration fields")
        return cls.from_dict(values)

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str], **overrides: Any) -> Self:
        """Read `config.json` in a folder (or the file itself); `overrides` replace fields."""
        file = Path(path).expanduser()
        config = cls.from_json_file(file / "config.json" if file.is_dir() else file)
        return config._replaced({"name_or_path": str(path)} | overrides)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **uploads: Any) -> None:
        """Write `config.json` into a folder, made if it is missing, whole or not at all. Nothing is uploaded: arguments
        for that are a TypeError."""
        no_keywords_left("save_pretrained", uploads, UPLOADS)
        folder = place_for(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.to_json_file(folder / "config.json")
