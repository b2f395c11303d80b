"""What is settled before the first token: the settings, the prompt as tensors, and the room for new tokens."""

import math
import warnings
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.config import TOKEN_IDS
from persimmon_lab.elsewhere import keywords_left
from persimmon_lab.generation.arguments import (
    embeds_of,
    mask_of,
    require_ids_of_vocabulary,
    whole_ids,
)
from persimmon_lab.generation_config import GenerationConfig

DEFAULT_NEW_TOKENS = 20  # transformers' default
GUIDANCE = "logits_processor=[transformers.UnbatchedClassifierFreeGuidanceLogitsProcessor(...)]"
IGNORED = {"synced_gpus": "ranks that end early do not wait for the others"}
REFUSED = {  # arguments of transformers' generate that are no settings
    "prefix_allowed_tokens_fn": "logits_processor=[transformers.PrefixConstrainedLogitsProcessor(...)]",
    "negative_prompt_ids": GUIDANCE,
    "negative_prompt_attention_mask": GUIDANCE,
}
FOR_BEAMS = ("length_penalty", "early_stopping")
# Ids, none with embeddings; embeddings, where they were given; the mask, None where nothing is padded.
Prompt = tuple[
    Int[Tensor, "batch position"],
    Float[Tensor, "batch position_of_embeds hidden"] | None,
    Int[Tensor, "batch position_of_mask"] | None,
]


def settle(model: Any, generation_config: Any, settings: dict[str, Any]) -> GenerationConfig:
    """What was asked for now, over `generation_config` or else the model's own, over the token ids of the model's own
    and of its config.

    `generation_config` is ours, transformers' or a dictionary. Of settings that nothing here follows, those in it are a
    TypeError, and those that came with the model a warning.
    """
    own = GenerationConfig.from_any(getattr(model, "generation_config", None) or {})
    base = GenerationConfig.from_any(generation_config) if generation_config else own
    if generation_config and base.ignored():
        told = ", ".join(f"{name} ({reason})" for name, reason in base.ignored().items())
        raise TypeError(f"generate() does not follow {told}")
    base.warn_of_ignored(stacklevel=5)
    settings = keywords_left("generate()", settings, REFUSED, IGNORED, stacklevel=6)
    missing = {
        name: getattr(model.config, name, None) if getattr(own, name) is None else getattr(own, name)
        for name in TOKEN_IDS
        if getattr(base, name) is None
    }
    config = base.replace(**{**missing, **settings})
    require_ids_of_vocabulary(model, config)
    answers = config.num_beams if config.num_beams > 1 else math.inf if config.do_sample else 1
    if config.num_return_sequences > answers:
        raise ValueError(
            f"num_return_sequences={config.num_return_sequences} with do_sample={config.do_sample} and "
            f"num_beams={config.num_beams}: greedy decoding has one answer per prompt, beam search one per beam; "
            "pass do_sample=True or more num_beams for several"
        )
    chunk = config.prefill_chunk_size
    if chunk is not None and not config.use_cache:
        raise ValueError(f"prefill_chunk_size={chunk} with use_cache=False: what was read before is kept in the cache")
    idle = [name for name in ("temperature", "top_k", "top_p", "min_p") if settings.get(name) is not None]
    if idle and not config.do_sample and "do_sample" not in settings:
        warnings.warn(f"{', '.join(idle)} have no effect on greedy decoding; pass do_sample=True", stacklevel=4)
    if config.num_beams == 1 and (idle := [name for name in FOR_BEAMS if settings.get(name, False) is not False]):
        warnings.warn(f"{', '.join(idle)} have no effect on a single text; pass num_beams=4", stacklevel=4)
    return config


def prepare_prompt(
    model: Any,
    config: GenerationConfig,
    input_ids: Tensor | Any,
    inputs_embeds: Tensor | Any,
    attention_mask: Tensor | Any,
) -> Prompt:
    """The prompt's ids (none with inputs_embeds), its embeddings if given, and its mask; None means nothing is padded.

    Raises ValueError for prompts of the wrong shape or padded on the right, and TypeError for other kinds of numbers.
    """
    if inputs_embeds is not None:
        if input_ids is not None:
            raise ValueError("generate() was given both input_ids and inputs_embeds; pass one of them")
        inputs_embeds = embeds_of(model, inputs_embeds)
        input_ids = torch.empty(inputs_embeds.shape[0], 0, dtype=torch.int64, device=model.device)
        shape = tuple(inputs_embeds.shape[:2])
    else:
        input_ids = _prompt_ids(model, config, input_ids)
        shape = tuple(input_ids.shape)
    if shape[0] < 1:
        raise ValueError(f"the prompt has shape {shape}: give at least one row")

    if attention_mask is not None:
        attention_mask = mask_of(attention_mask, model.device)
    if attention_mask is not None and attention_mask.shape[-1:] != (0,):
        if tuple(attention_mask.shape) != shape:
            raise ValueError(f"attention_mask is {tuple(attention_mask.shape)} but the prompt is {shape}")
    elif inputs_embeds is None and _pad_id_is_only_padding(config):
        attention_mask = torch.ne(input_ids, config.pad_token_id or 0).to(torch.int64)
    elif inputs_embeds is None:
        _warn_of_padding(config, input_ids)
    if attention_mask is None or attention_mask.all():
        return input_ids, inputs_embeds, None
    if not attention_mask[:, -1].all():
        row = int((attention_mask[:, -1] == 0).nonzero()[0])
        raise ValueError(
            f"row {row} of the prompt ends in padding; generation continues after the last position, so pad on the "
            'left: tokenizer.padding_side = "left"'
        )
    return input_ids, inputs_embeds, attention_mask


def count_new_tokens(model: Any, config: GenerationConfig, width: int, longest: int) -> int:
    """How many tokens to generate after a prompt of `width` positions, at most `longest` of them not padding.

    Raises ValueError where that is none, or more than the model has positions for.
    """
    limit = model.config.context_limit
    if config.max_new_tokens is not None:
        new_tokens, asked = config.max_new_tokens, f"max_new_tokens={config.max_new_tokens}"
    elif config.max_length is not None:
        new_tokens, asked = config.max_length - width, f"max_length={config.max_length}"
    else:
        new_tokens, asked = (
            min(DEFAULT_NEW_TOKENS, max(limit - longest, 1)),
            f"the default of {DEFAULT_NEW_TOKENS} new tokens",
        )
    if new_tokens < 1:
        raise ValueError(
            f"{asked} leaves no room after a prompt of {width} tokens; max_new_tokens counts without the prompt"
        )
    if longest + new_tokens > limit:
        fewer = f", ask for at most {limit - longest} new tokens" if longest < limit else ""
        factor = math.ceil((longest + new_tokens) / model.config.max_position_embeddings)
        raise ValueError(
            f"a prompt of {longest} tokens and {new_tokens} new ones ({asked}) make {longest + new_tokens}, but the "
            f"model has {limit} positions; shorten the prompt{fewer}, or give the model "
            f'rope_scaling={{"type": "dynamic", "factor": {factor:.1f}}}'
        )
    return new_tokens


def _prompt_ids(model: Any, config: GenerationConfig, input_ids: Tensor | Any) -> Int[Tensor, "batch position"]:
    if input_ids is not None and not (isinstance(input_ids, Tensor) and input_ids.ndim == 2):
        given = (
            f"of shape {tuple(input_ids.shape)}" if isinstance(input_ids, Tensor) else f"a {type(input_ids).__name__}"
        )
        raise ValueError(
            f"input_ids is {given}, but generate() takes a tensor (batch, position): "
            'tokenizer(text, return_tensors="pt").input_ids, or ids[None] for a single row'
        )
    if input_ids is not None and input_ids.shape[1] > 0:
        return whole_ids(input_ids).to(model.device)
    if config.bos_token_id is None:
        raise ValueError(
            "the prompt is empty and the model has no bos_token_id to start from; pass input_ids or bos_token_id"
        )
    return torch.full((1 if input_ids is None else input_ids.shape[0], 1), config.bos_token_id, device=model.device)


def _warn_of_padding(config: GenerationConfig, input_ids: Int[Tensor, "batch position"]) -> None:
    """Where the pad id is bos or eos as well, a padded batch needs its mask. One bos may begin a row without a word."""
    pad = config.pad_token_id
    allowed = int(pad == config.bos_token_id)
    begin = input_ids[:, : allowed + 1]
    if pad is not None and begin.shape[1] > allowed and bool(torch.eq(begin, pad).all(dim=1).any()):
        warnings.warn(
            f"a row of the prompt begins with pad_token_id {pad}, which is bos or eos as well, and is read as text; if "
            "it is padding, pass the attention_mask that the tokenizer returns",
            stacklevel=5,
        )


def _pad_id_is_only_padding(config: GenerationConfig) -> bool:
    # As transformers infers it, except that it also takes a leading bos for padding where pad and bos share an id.
    return config.pad_token_id is not None and config.pad_token_id not in [config.bos_token_id, *config.eos_token_ids()]
