"""PersimmonConfig: every size and switch of the model, checked once, on construction."""

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from persimmon_lab.atomic import write_atomically

ROPE_SCALING_TYPES = ("linear", "dynamic")
ROPE_PRECISIONS = ("float32", "adept")
ATTENTION_IMPLEMENTATIONS = ("sdpa", "eager")
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


@dataclass
class PersimmonConfig:
    """The configuration of a Persimmon model; the defaults are those of Persimmon-8B.

    Sizes are counts of units. Reads both dialects of `config.json`: transformers 4 (`rope_theta`,
    `partial_rotary_factor`, `rope_scaling`, `torch_dtype`) and transformers 5 (`rope_parameters`, `dtype`), and
    writes the first, which both read correctly. Keys of a file that this class does not know are kept in `extra`
    and written back; an unknown keyword in the constructor is a TypeError.

    Raises ValueError for sizes that do not fit together, naming them.

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

    model_type = "persimmon"

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                     "max_position_embeddings"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; a model needs at least 1")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not divisible by num_attention_heads {self.num_attention_heads}; "
                "every head needs the same whole number of channels"
            )
        if not 0.0 < self.partial_rotary_factor <= 1.0:
            raise ValueError(
                f"partial_rotary_factor is {self.partial_rotary_factor}; it is the fraction of each head's channels "
                "that rotates, above 0 and at most 1"
            )
        if self.rotary_dim % 2 or self.rotary_dim == 0:
            raise ValueError(
                f"rotary width {self.rotary_dim} is {'odd' if self.rotary_dim else 'zero'} (head_dim {self.head_dim} x "
                f"partial_rotary_factor {self.partial_rotary_factor}); rotations act on pairs of channels"
            )
        if self.rope_theta <= 0:
            raise ValueError(f"rope_theta is {self.rope_theta}; the base of the rotary frequencies must be positive")
        self.rope_scaling = self._checked_rope_scaling(self.rope_scaling)
        self._check_choice("rope_precision", ROPE_PRECISIONS)
        self._check_choice("attn_implementation", ATTENTION_IMPLEMENTATIONS)
        if self.problem_type is not None:
            self._check_choice("problem_type", PROBLEM_TYPES)
        for name in ("hidden_dropout", "attention_dropout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; a dropout probability is between 0 and 1")

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        if getattr(self, name) not in choices:
            raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(map(repr, choices))}")

    def _checked_rope_scaling(self, scaling: dict[str, Any] | None) -> dict[str, Any] | None:
        """Either dialect of the dictionary as {"type", "factor"}; None where positions are not scaled."""
        if scaling is None:
            return None
        kind, factor = scaling.get("type", scaling.get("rope_type")), scaling.get("factor")
        if kind in (None, "default") and factor is None:
            return None
        if kind not in ROPE_SCALING_TYPES:
            raise ValueError(f"rope_scaling type is {kind!r}; choose one of 'linear', 'dynamic' (given: {scaling})")
        if isinstance(factor, bool) or not isinstance(factor, int | float) or factor <= 1:
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

    @classmethod
    def persimmon_8b(cls, **overrides: Any) -> Self:
        """Persimmon-8B as Adept released it: 9.40 B parameters; 71013 is its `|ENDOFTEXT|`, used as bos and as eos."""
        released: dict[str, Any] = {"bos_token_id": 71013, "eos_token_id": 71013, "torch_dtype": "bfloat16"}
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
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read the contents of a `config.json` of either dialect.

        Raises ValueError when `model_type` names another architecture, or when the two dialects contradict
        each other in one file.
        """
        values = dict(values)
        model_type = values.pop("model_type", cls.model_type)
        if model_type != cls.model_type:
            raise ValueError(f"model_type is {model_type!r}; this package reads {cls.model_type!r} configurations only")
        values.pop("transformers_version", None)
        _translate(values, "dtype", "torch_dtype")
        _translate(values, "_attn_implementation", "attn_implementation")
        if (rope := values.pop("rope_parameters", None)) is not None:
            if not isinstance(rope, dict):
                raise ValueError(
                    f"rope_parameters is {rope!r}; expected a dictionary such as {{'rope_theta': 25000.0}}"
                )
            rope = dict(rope)
            for key in ("rope_theta", "partial_rotary_factor"):
                if key in rope:
                    _agree(values, key, rope.pop(key), "rope_parameters")
            if rope.get("rope_type", "default") != "default":
                _agree(values, "rope_scaling", {"type": rope["rope_type"], "factor": rope.get("factor")},
                       "rope_parameters")  # fmt: skip
        if (labels := values.get("id2label")) is not None:
            _agree(values, "num_labels", len(labels), "id2label")
        if isinstance(values.get("torch_dtype"), str):
            values["torch_dtype"] = values["torch_dtype"].removeprefix("torch.")
        known = {f.name for f in dataclasses.fields(cls)} - {"extra"}
        extra = {key: values.pop(key) for key in list(values) if key not in known}
        return cls(**values, extra=extra)

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
        if "id2label" in extra or self.num_labels == 2:
            values.pop("num_labels")
        elif self.num_labels != 2:
            # transformers counts labels by their names.
            names = {i: f"LABEL_{i}" for i in range(values.pop("num_labels"))}
            extra |= {"id2label": names, "label2id": {name: i for i, name in names.items()}}
        return {"model_type": self.model_type} | values | extra

    def to_json_string(self) -> str:
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json_file(cls, path: str | os.PathLike[str]) -> Self:
        """Read one `config.json`. Raises ValueError that names the file when it is not a JSON object."""
        text = Path(path).expanduser().read_text(encoding="utf-8", errors="replace")
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{path} holds a JSON {type(values).__name__}, not an object of configuration fields")
        return cls.from_dict(values)

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str], **overrides: Any) -> Self:
        """Read `config.json` in a folder (or the file itself); `overrides` replace fields."""
        path = Path(path).expanduser()
        return dataclasses.replace(cls.from_json_file(path / "config.json" if path.is_dir() else path), **overrides)

    def save_pretrained(self, path: str | os.PathLike[str]) -> None:
        """Write `config.json` into a folder, made if it is missing, whole or not at all."""
        folder = Path(path).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "config.json", self.to_json_string().encode("utf-8"))


def _translate(values: dict[str, Any], theirs: str, ours: str) -> None:
    """Move a value from one dialect's key to ours; a file that says two different things is refused."""
    if (value := values.pop(theirs, None)) is not None:
        _agree(values, ours, value, theirs)


def _agree(values: dict[str, Any], key: str, value: Any, source: str) -> None:
    if values.get(key) is not None and values[key] != value:
        raise ValueError(f"contradictory configuration: {key} is {values[key]!r}, but {source} says {value!r}")
    values[key] = value
