"""What `generate` is handed beside its settings, checked once before the first step."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from persimmon_lab.cache import DynamicCache, StaticCache
from persimmon_lab.config import TOKEN_IDS
from persimmon_lab.field_checks import is_whole, shown
from persimmon_lab.generation_config import GenerationConfig


def require_numbers(model: Any) -> None:
    """Raises ValueError for a model that has shapes and no numbers."""
    if model.device.type == "meta":
        raise ValueError(
            "the model is on the meta device, where weights have shapes and no numbers, so there is nothing to choose "
            "a token by; load it with from_pretrained, or give it weights by model.to_empty and load_state_dict"
        )


def require_methods(name: str, given: Any, methods: Iterable[str], example: str) -> None:
    """Raises TypeError, which names the argument, for a class and for what lacks one of these; None is fine."""
    if given is None or not (isinstance(given, type) or not all(hasattr(given, method) for method in methods)):
        return
    kind = f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"
    raise TypeError(f"{name} is {kind}; give {example}")


def require_dtype(model: Any, cache: Any) -> None:
    """Raises ValueError for keys of another dtype than the model's, which a fast engine would round in silence. Under
    autocast they may differ."""
    if torch.is_autocast_enabled(model.device.type) or not isinstance(cache, DynamicCache | StaticCache):
        return
    if len(cache) and (remembered := cache[0][0].dtype) != model.dtype:
        raise ValueError(
            f"past_key_values are {remembered} and the model is {model.dtype}; give none, and the text is read anew"
        )


def require_ids_of_vocabulary(model: Any, config: GenerationConfig) -> None:
    """Raises ValueError for a special id that the model has no row for: it could neither be chosen nor read."""
    limit = getattr(model.config, "vocab_size", None)
    if limit is None:
        return
    for name in TOKEN_IDS:
        value = getattr(config, name)
        ids = value if isinstance(value, list | tuple) else [] if value is None else [value]
        if any(item >= limit for item in ids):
            raise ValueError(
                f"{name}={shown(value)}, but the model's ids are 0 … {limit - 1}; give one of them or None"
            )


def functions(name: str, given: Any) -> list[Callable[..., Any]]:
    """The caller's functions as a list. Raises TypeError, which names the argument, for anything else."""
    if given is None:
        return []
    if not isinstance(given, Iterable) or isinstance(given, str | bytes | type):
        wrapped = getattr(given, "__name__", "f") if callable(given) else "f"
        raise TypeError(f"{name} is a {type(given).__name__}; give a list of functions: {name}=[{wrapped}]")
    listed = list(given)
    for index, function in enumerate(listed):
        if not callable(function) or isinstance(function, type):
            kind = f"the class {function.__name__}" if isinstance(function, type) else f"a {type(function).__name__}"
            raise TypeError(f"{name}[{index}] is {kind}, and is to be called with the ids and the scores")
    return listed


def random_source(model: Any, seed: Any, generator: Any) -> torch.Generator | None:
    """What sampling draws from: `generator`, or one made from `seed`, or None for torch's default one."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator is a {type(generator).__name__}; give a torch.Generator, or a whole number as seed")
    if seed is None:
        return generator
    if generator is not None:
        raise ValueError("generate() was given both seed and generator; a generator has its own seed, pass one of them")
    if not (is_whole(seed) and -(2**63) <= seed < 2**64):
        raise ValueError(f"seed={shown(seed)}, but it has to be a whole number from -2**63 to 2**64 - 1")
    return torch.Generator(device=model.device).manual_seed(int(seed))


def whole_ids(input_ids: Shaped[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Ids as int64. Raises TypeError for numbers that would be cut to whole ones, and for truth values."""
    if input_ids.dtype == torch.bool or input_ids.is_floating_point() or input_ids.is_complex():
        hint = "pass a mask as attention_mask" if input_ids.dtype == torch.bool else "embeddings are inputs_embeds"
        raise TypeError(f"input_ids are {input_ids.dtype}; give the ids as whole numbers ({hint})")
    return input_ids.long()


def rows_of(input_ids: Any, device: torch.device) -> Int[Tensor, "batch position"]:
    """Ids as int64, where they are wanted. Raises TypeError for other things and other numbers, ValueError for another
    shape than (batch, position) and for no rows."""
    if not isinstance(input_ids, Tensor):
        raise TypeError(f"input_ids is a {type(input_ids).__name__}; give a tensor (batch, position)")
    if input_ids.ndim != 2 or len(input_ids) < 1:
        wanted = "at least one row" if input_ids.ndim == 2 else "(batch, position), ids[None] of a single text"
        raise ValueError(f"input_ids has shape {tuple(input_ids.shape)}: give {wanted}")
    return whole_ids(input_ids).to(device)


def mask_of(attention_mask: Any, device: torch.device) -> Int[Tensor, "*shape"]:
    """The mask as zeros and ones, of a tensor, an array or nested lists: what is not 0 is read.

    Source: transformers 5.23, which takes a mask for truth values; only its positions count a 2 twice. Negative numbers
    are refused, because those of an additive mask mean the opposite.
    """
    try:
        mask = torch.as_tensor(attention_mask, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"attention_mask is {shown(attention_mask)}; give a tensor (batch, position) of 1 (text) and 0 (padding)"
        ) from None
    if mask.dtype != torch.bool and not bool((mask >= 0).all()):
        raise ValueError(
            f"attention_mask holds {mask.amin().item()}; give 1 for text and 0 for padding, not what is added to scores"
        )
    return torch.ne(mask, 0).to(torch.int64)


def embeds_of(model: Any, inputs_embeds: Any) -> Tensor:
    """The embeddings on the model's device. Raises ValueError that names their shape where it cannot be right."""
    size = model.config.hidden_size
    is_tensor = isinstance(inputs_embeds, Tensor)
    if not is_tensor or inputs_embeds.ndim != 3 or inputs_embeds.shape[-1] != size or 0 in inputs_embeds.shape:
        given = f"of shape {tuple(inputs_embeds.shape)}" if is_tensor else f"a {type(inputs_embeds).__name__}"
        raise ValueError(
            f"inputs_embeds is {given}, but generate() takes a tensor (batch, position, {size}), with at least one row "
            "and position: model.get_input_embeddings()(input_ids)"
        )
    if not inputs_embeds.is_floating_point():
        raise TypeError(f"inputs_embeds are {inputs_embeds.dtype}; ids are input_ids")
    embeds: Tensor = inputs_embeds.to(model.device)
    return embeds
