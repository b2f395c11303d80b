"""What a checkpoint folder says besides its weights: config.json, generation_config.json, the dtype to load in."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from persimmon_lab.checkpoints.errors import CheckpointError, CheckpointNotFoundError
from persimmon_lab.checkpoints.rounded import rounding_of
from persimmon_lab.checkpoints.weight_files import WeightFile
from persimmon_lab.config import TOKEN_IDS, PersimmonConfig
from persimmon_lab.dtypes import DTYPES, FLOATS, dtype_name
from persimmon_lab.generation_config import GenerationConfig

REPEATS_CONFIG = "_from_model_config"  # transformers' mark in a generation_config.json


def choose_dtype(
    torch_dtype: torch.dtype | str | None,
    dtype: torch.dtype | str | None,
    config: PersimmonConfig,
    files: dict[str, WeightFile],
) -> torch.dtype:
    """float32 for None; for "auto" the dtype that config.json names, else that of the first floating tensor."""
    names = {dtype_name(value) for value in (torch_dtype, dtype) if value is not None}
    if len(names) > 1:
        raise ValueError(f"torch_dtype={torch_dtype} and dtype={dtype} are two names of one argument; give one of them")
    name = names.pop() if names else "float32"
    if name == "auto":
        stored = (file.dtypes[key] for key, file in files.items())
        first = next((kind for kind in stored if isinstance(kind, torch.dtype) and kind in FLOATS), torch.float32)
        return DTYPES.get(config.torch_dtype or "", first)
    if name not in DTYPES:
        raise ValueError(f'a model computes in {", ".join(DTYPES)} or "auto", what is stored; dtype is {name!r}')
    return DTYPES[name]


def read_config(folder: Path, rounded_too: bool = False) -> PersimmonConfig:
    """The configuration of a checkpoint; of one whose weights are rounded only where that is expected.

    Raises CheckpointError where it is not there, is damaged, or says that another program quantised the weights.
    """
    path = folder / "config.json"
    if not path.exists():
        raise CheckpointNotFoundError(f"{folder} holds no config.json; give the folder of a saved model, or config=...")
    try:
        config = PersimmonConfig.from_json_file(path)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} describes no Persimmon model: {error}") from error
    if config.torch_dtype not in (None, "auto", *DTYPES):
        raise CheckpointError(f"{path} has torch_dtype {config.torch_dtype!r}; a model computes in {', '.join(DTYPES)}")
    rounding = rounding_of(config)
    if rounding is not None and not rounded_too:
        raise CheckpointError(
            f"{folder} holds {rounding.format} weights, which from_pretrained alone reads; take the checkpoint that "
            "they were rounded from"
        )
    return config


def override(config: PersimmonConfig, overrides: dict[str, Any]) -> PersimmonConfig:
    """A copy of a configuration with some fields replaced. Raises TypeError for what is none."""
    if not isinstance(config, PersimmonConfig):
        raise TypeError(f"config is a {type(config).__name__}; give a PersimmonConfig, or leave it out")
    fields = {"id2label", "label2id", *(field.name for field in dataclasses.fields(config))}
    if unknown := sorted(overrides.keys() - fields):
        raise TypeError(f"{unknown} are neither arguments of from_pretrained nor fields of PersimmonConfig")
    changed = dataclasses.replace(config)
    changed.update(overrides)
    return changed


def read_generation_config(folder: Path) -> GenerationConfig | None:
    """None where there is none, or where transformers wrote one that only repeats the token ids of config.json."""
    path = folder / "generation_config.json"
    if not path.exists():
        return None
    try:
        settings = GenerationConfig.from_pretrained(folder)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    return None if settings.extra.get(REPEATS_CONFIG) else settings


def default_generation_config(config: PersimmonConfig) -> GenerationConfig:
    ids: dict[str, Any] = {name: getattr(config, name) for name in TOKEN_IDS}
    return GenerationConfig(**ids, extra={REPEATS_CONFIG: True})
