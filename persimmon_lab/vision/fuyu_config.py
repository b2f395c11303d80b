"""config.json of a Fuyu: a Persimmon's, and the four numbers of its pictures."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from persimmon_lab.checkpoints.errors import CheckpointError, CheckpointNotFoundError
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.field_checks import is_whole, parsed

MODEL_TYPE = "fuyu"
OF_PICTURES = {"patch_size": 30, "num_channels": 3, "image_token_id": 71011}  # and what they are where none is named
OF_FUYU = {"text_config", "vision_config", "image_size", "model_type", "architectures", *OF_PICTURES}


@dataclass
class FuyuConfig:
    """What a Fuyu is made of. `place_id` is transformers' `image_token_id`; `image_size` there is read by nobody."""

    text: PersimmonConfig
    patch_size: int
    channels: int
    place_id: int

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Of a folder. CheckpointNotFoundError where it has none, CheckpointError where it is not a Fuyu's."""
        path = folder / "config.json"
        if not path.exists():
            raise CheckpointNotFoundError(f"{folder} holds no config.json; give the folder of a saved Fuyu")
        try:
            return cls.from_dict(parsed(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path} describes no Fuyu: {error}") from error

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Of both kinds of file: flat, as Adept's own and transformers 4's first ones, or with a `text_config`.

        The trap: a file that names no `rope_theta` means 25000, with which Fuyu was trained and which was the default
        when such files were written; transformers 5.23 reads it as 10000. It is warned of. Raises ValueError for
        another model_type, for numbers that are none, and where the two parts contradict each other.
        """
        if values.get("model_type") != MODEL_TYPE:
            raise ValueError(f"model_type is {values.get('model_type')!r}, not {MODEL_TYPE!r}")
        numbers = {name: default if values.get(name) is None else values[name] for name, default in OF_PICTURES.items()}
        for name, value in numbers.items():
            if not is_whole(value) or value < (0 if name == "image_token_id" else 1):
                raise ValueError(f"{name} is {value!r}; it has to be a whole number")
        outer = {name: value for name, value in values.items() if name not in OF_FUYU}
        text = dict(values["text_config"]) if values.get("text_config") else outer
        tied = values.get("tie_word_embeddings")
        if tied is not None:
            if text.get("tie_word_embeddings") and not tied:
                raise ValueError("contradictory: tie_word_embeddings is false, and true in its text_config")
            text["tie_word_embeddings"] = tied
        for name in ("dtype", "torch_dtype"):  # one for all of it
            if values.get(name) is not None:
                text.setdefault(name, values[name])
        if text.get("rope_theta") is None and "rope_theta" not in (text.get("rope_parameters") or {}):
            warnings.warn(
                "config.json names no rope_theta: 25000 is taken, as Fuyu was trained; transformers 5.23 takes 10000",
                stacklevel=4,
            )
        config = PersimmonConfig.from_dict(text)
        if numbers["image_token_id"] >= config.vocab_size:
            raise ValueError(
                f"image_token_id is {numbers['image_token_id']}, and there are {config.vocab_size} ids (vocab_size)"
            )
        return cls(config, numbers["patch_size"], numbers["num_channels"], numbers["image_token_id"])

    def to_dict(self, dtype: str) -> dict[str, Any]:
        """The contents of a config.json that transformers 4 and 5 read."""
        text = self.text.to_dict() | {"torch_dtype": dtype}
        return {
            "architectures": ["FuyuForCausalLM"],
            "model_type": MODEL_TYPE,
            "patch_size": self.patch_size,
            "num_channels": self.channels,
            "image_token_id": self.place_id,
            "tie_word_embeddings": self.text.tie_word_embeddings,
            "torch_dtype": dtype,
            "text_config": text,
        }
