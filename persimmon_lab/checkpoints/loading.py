"""`from_pretrained` and `save_pretrained`: a model from a folder of weights and back, in transformers' layout."""

import dataclasses
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from persimmon_lab.atomic import place_for
from persimmon_lab.checkpoints import hub
from persimmon_lab.checkpoints.keywords import (
    LOADING_IGNORES,
    LOADING_REFUSES,
    SAVING_IGNORES,
    SAVING_REFUSES,
)
from persimmon_lab.checkpoints.matching import EMBEDDING, HEADS, check_fit, check_savable, check_tied, names_in_file
from persimmon_lab.checkpoints.reading import Device, read_tensors
from persimmon_lab.checkpoints.rounded import Rounding, names_to_round, rounding_of, settle_rounding, unmarked
from persimmon_lab.checkpoints.rounded_models import (
    check_rounded,
    round_modules,
    sources_of,
    unrounded_state,
    warn_of_emulation,
)
from persimmon_lab.checkpoints.saving import finish_save, staged, write_weights
from persimmon_lab.checkpoints.settings import (
    REPEATS_CONFIG,
    choose_dtype,
    default_generation_config,
    override,
    read_config,
    read_generation_config,
)
from persimmon_lab.checkpoints.shards import open_weights
from persimmon_lab.checkpoints.skeletons import module_of, shapes_in_file, skeleton
from persimmon_lab.checkpoints.tensor_streams import InMemory, Source
from persimmon_lab.checkpoints.weight_files import FileTensor, WeightFile
from persimmon_lab.config import TOKEN_IDS, PersimmonConfig
from persimmon_lab.dtypes import dtype_name
from persimmon_lab.elsewhere import keywords_left, no_keywords_left
from persimmon_lab.generation_config import GenerationConfig


class Pretrained(nn.Module):
    """Loading and saving, for a model class that `cls(config)` builds.

    A model has a `config`, says which of its tensors are tied where the configuration ties them, and defines the three
    methods that are not implemented here. `name_or_path` is where it was loaded from, "" where it was not.
    """

    config: PersimmonConfig
    name_or_path = ""
    _tied_weights_keys: tuple[str, ...] = ()
    _generation_config: GenerationConfig | None = None
    _ids_of_config: Mapping[str, Any] = {}

    @property
    def generation_config(self) -> GenerationConfig:
        """What `generate` does unless it is told otherwise: what `generation_config.json` asks for, or was set here.

        Without either, the token ids are those of `config`, and stay so when `config` changes, but for those that were
        set here. None sets it back to that.
        """
        ids = {name: getattr(self.config, name) for name in TOKEN_IDS}
        if self._generation_config is None:
            self._generation_config = default_generation_config(self.config)
            self._ids_of_config = ids
        for name, before in self._ids_of_config.items():
            if getattr(self._generation_config, name) == before:
                setattr(self._generation_config, name, ids[name])
        if self._ids_of_config:
            self._ids_of_config = ids
        return self._generation_config

    @generation_config.setter
    def generation_config(self, settings: GenerationConfig | None) -> None:
        if settings is not self._generation_config:
            self._generation_config = settings
            self._ids_of_config = {}

    def get_input_embeddings(self) -> nn.Module:
        """What makes embeddings of ids; its `weight` has a row a token."""
        raise NotImplementedError

    def tie_weights(self) -> None:
        """Let tied tensors be one, where the configuration says so."""
        raise NotImplementedError

    def initialize_weights(self, generator: torch.Generator | None = None, only: nn.Module | None = None) -> None:
        """Draw first weights: of all modules, or of `only`."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        config: PersimmonConfig | None = None,
        torch_dtype: torch.dtype | str | None = None,
        dtype: torch.dtype | str | None = None,
        device: Device | Mapping[str, Device] | None = None,
        attn_implementation: str | None = None,
        quantize: str | None = None,
        mmap: bool = False,
        verify: bool | None = None,
        generator: torch.Generator | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        **overrides: Any,
    ) -> Self:
        """Load a checkpoint folder or a hub id, ready for inference (`eval()`).

        `torch_dtype` (`dtype` is the same) is float32 when None, the stored one when "auto". Tensors are read one
        by one, converted and put on `device` (the CPU by default): the peak of memory is
        the weights and at most a sixth more (benchmarks/load.py), and a few bites of a tensor here when they go
        elsewhere. A mapping from modules to devices is what `persimmon_lab.fitting.offload` uses; alone it makes no
        model that runs.

        With `mmap` weights that are stored in the dtype asked for stay mapped to their files, for the CPU: the model is
        there at once, memory is taken as weights are used and given back when others need it, and changing them does
        not reach the file. The trap: overwriting that file in place changes the model, and shortening it ends the
        process at the next use; saving over it with `save_pretrained` is safe. What has to be copied all the same is
        told in a warning.

        `quantize`, "int8" or "int4", rounds every Linear and Embedding but a classifier's `score` as it is read, and
        the unrounded model is never in memory; `torch_dtype` is then bfloat16 when None, for which torch has products
        of such weights on a CPU (a warning says where they are emulated). A checkpoint that was saved rounded needs no
        word, and comes back to the bit in its own dtype, which None means there. Nothing in such a model is trained.

        `attn_implementation` ("sdpa" unless it says "eager") and `overrides` (such as `num_labels=3`) replace fields of
        the configuration. Of transformers' other arguments those that change nothing are ignored, with a warning.

        A body loads into a head and a head's checkpoint into a body. A head that the checkpoint does not have is drawn
        from `generator`, with a warning; every other missing, unexpected or misshapen tensor is an error. `verify`
        compares the checksums that `save_pretrained` stores, by default of what is copied and not of what is mapped,
        which it would have to read. `revision`, `token`, `cache_dir` and `local_files_only` are for hub ids.

        Raises CheckpointNotFoundError when there is no such checkpoint, CheckpointError (a ValueError) when it is
        damaged, unsafe or does not fit, and TypeError for an override that is no field, with what to use where it is an
        argument of transformers.
        """
        overrides = keywords_left(
            "from_pretrained", overrides, LOADING_REFUSES, LOADING_IGNORES, false_counts=["use_safetensors"]
        )
        folder = hub.resolve(
            pretrained_model_name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        finish_save(folder)
        if attn_implementation is not None:
            overrides["attn_implementation"] = attn_implementation
        config = override(read_config(folder, rounded_too=True) if config is None else config, overrides)
        files = open_weights(folder)
        stored_rounding = rounding_of(config)
        if torch_dtype is None and dtype is None and (quantize is not None or stored_rounding is not None):
            torch_dtype = torch.bfloat16 if stored_rounding is None else "auto"
        dtype = choose_dtype(torch_dtype, dtype, config, files)
        rounding = settle_rounding(quantize, stored_rounding, dtype)
        config = unmarked(config) if rounding is None else rounding.marked(config)
        config.torch_dtype = dtype_name(dtype)

        model = skeleton(cls, config)
        stored, new_heads = _match(folder, model, files, stored_rounding)
        devices = device if isinstance(device, Mapping) else {"": "cpu" if device is None else device}
        rounded = [] if rounding is None else [name for name in names_to_round(model) if name in stored]
        plain = {name: name_in_file for name, name_in_file in stored.items() if name not in rounded}
        tensors = read_tensors(plain, files, dtype, devices, mmap, verify)
        for name in new_heads:
            head = model.get_submodule(name.removesuffix(".weight")).to_empty(device="cpu")
            model.initialize_weights(generator, only=head)
            weight = head.get_parameter("weight").detach()
            tensors[name] = weight.to(torch.device(devices[module_of(name, devices)]), dtype)
        if rounding is not None:
            checked = verify is not False
            sources: dict[str, Source] = {n: FileTensor(files[stored[n]], stored[n], checked) for n in rounded}
            sources |= {n: InMemory(tensors.pop(n)) for n in new_heads if n in names_to_round(model)}
            round_modules(model, sources, stored_rounding or rounding, rounding.dtype, devices)
        model.load_state_dict(tensors, assign=True, strict=False)  # everything is there but the tied, tied below
        model.tie_weights()
        if rounding is not None:
            model.requires_grad_(False)
            warn_of_emulation(model)
        if new_heads:
            warnings.warn(
                f"{folder} has no {', '.join(new_heads)}: newly initialised at random, to be trained before use",
                stacklevel=2,
            )
        model.generation_config = read_generation_config(folder)
        model.name_or_path = os.fspath(pretrained_model_name_or_path)
        return model.eval()

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        max_shard_size: int | str = "5GB",
        *,
        is_main_process: bool = True,
        state_dict: Mapping[str, Shaped[Tensor, "..."]] | None = None,
        safe_serialization: bool = True,
        **keywords: Any,
    ) -> None:
        """Write `config.json`, `generation_config.json` and safetensors that transformers 4 and 5 load as well.

        Weights above `max_shard_size` (bytes, or text such as "200MB") are cut into shards with an index. Other files
        of the folder stay, weights of an older save go. An interruption leaves the old checkpoint or the new one.
        `state_dict` are the tensors to write, where the model holds only a part of them, as under FSDP; a process that
        is not the main one writes nothing. Of transformers' other arguments those that change nothing are ignored, with
        a warning.

        Raises OSError when the disk is full or the folder cannot be written, and ValueError, before anything is
        written, for a model that could not be read again: with adapters or masks in it, or other tensors than its
        configuration describes. What was there before is unchanged. TypeError for unknown arguments.
        """
        no_keywords_left("save_pretrained", keywords, SAVING_REFUSES, SAVING_IGNORES)
        if not safe_serialization:
            raise ValueError("safe_serialization=False: pickles may carry code; safetensors are all that is written")
        target = place_for(save_directory)
        if not is_main_process:
            return
        rounded = sources_of(self)
        if rounded and state_dict is not None:
            raise ValueError("state_dict= is for the parts of plain weights; this model is rounded, and saved whole")
        tensors = unrounded_state(self) if state_dict is None else dict(state_dict)
        architecture = type(self).__name__
        config = dataclasses.replace(unmarked(self.config), architectures=[architecture])
        again = skeleton(type(self), config)
        _check_configured(self, again)
        needed = shapes_in_file(again, ())
        if rounded:
            config = check_rounded(self, needed, rounded).marked(config)
            needed = {name: shape for name, shape in needed.items() if name not in rounded}
        tied = self._tied_weights_keys if config.tie_word_embeddings else ()
        check_savable(architecture, needed, tensors, optional=() if state_dict is None else tied)
        if untied := _untied(tensors, tied, gathered=state_dict is not None):
            raise ValueError(
                f"config.tie_word_embeddings is True, but {', '.join(untied)} is a tensor of its own; call "
                "tie_weights() to give it up, or set config.tie_word_embeddings=False to keep it"
            )
        config.torch_dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
        stored: dict[str, Source | Tensor] = {**tensors, **rounded}
        stored = {name: tensor for name, tensor in stored.items() if name not in tied}
        settings = self.generation_config
        if settings != default_generation_config(self.config):  # else a mark says that it repeats config.json
            extra = {name: value for name, value in settings.extra.items() if name != REPEATS_CONFIG}
            settings = dataclasses.replace(settings, extra=extra)
        with staged(target) as folder:
            write_weights(folder, stored, max_shard_size)
            config.save_pretrained(folder)
            if hasattr(self, "generate"):
                settings.save_pretrained(folder)


def _check_configured(model: nn.Module, again: nn.Module) -> None:
    """ValueError where a module computes otherwise than one that is made anew by the configuration."""
    modules = dict(model.named_modules())
    for path, made in again.named_modules():
        for name in ("eps", "act"):
            after, now = vars(made).get(name), vars(modules.get(path, made)).get(name)
            if now != after and now is not None:
                raise ValueError(
                    f"{path} has {name} {now}, and would have {after} when it is loaded again, by the configuration: "
                    "change both or neither before saving"
                )


def _untied(tensors: Mapping[str, Float[Tensor, "..."]], tied: Iterable[str], gathered: bool) -> list[str]:
    """The tied tensors that are not the embedding itself; of gathered copies, those that are not equal to it."""
    embedding = next((tensor for name, tensor in tensors.items() if name.endswith(EMBEDDING)), None)
    if embedding is None:  # rounded, and its head with it
        return []
    return [
        name for name in tied
        if name in tensors and tensors[name].data_ptr() != embedding.data_ptr()
        and not (gathered and torch.equal(tensors[name], embedding))
    ]  # fmt: skip


def _match(
    folder: Path, model: Pretrained, files: dict[str, WeightFile], rounding: Rounding | None
) -> tuple[dict[str, str], list[str]]:
    """What each tensor of a model is called in the files, and the heads that the checkpoint does not have.

    Raises CheckpointError for every other difference.
    """
    tied = model._tied_weights_keys if model.config.tie_word_embeddings else ()
    shapes = shapes_in_file(model, tied)
    rounded = [] if rounding is None else [name for name in names_to_round(model) if name in shapes]
    shapes |= {name: rounding.file_shape(shapes[name]) for name in rounded if rounding is not None}
    names = names_in_file(shapes, files)
    # The architecture the file names must bring its head; to others a head is new.
    absent = [name for name in HEADS if name in shapes and name not in files]
    architecture = type(model).__name__
    new_heads = [] if architecture in (model.config.architectures or []) else absent
    stored = {name: names[name] for name in shapes if name not in new_heads}
    check_fit(folder, architecture, {name: shapes[name] for name in stored}, stored, files,
              rounded=[stored[name] for name in rounded if name in stored])  # fmt: skip
    check_tied(folder, tied, files)
    return stored, new_heads
