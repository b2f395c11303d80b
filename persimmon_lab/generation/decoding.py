"""The decoding loop: a prompt in, one token after another out.

`decode_steps` is the loop, as a Python generator: whoever iterates over it can look at each step, and stops it by
stopping to iterate. `generate` collects the steps behind the interface that people know from transformers.

A model is known here only by what it calls: `model(input_ids=..., inputs_embeds=..., attention_mask=...,
position_ids=..., past_key_values=..., use_cache=..., logits_to_keep=1)`, its `config`, `device` and
`get_input_embeddings()`.
"""

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.cache import DynamicCache
from persimmon_lab.generation.prompts import count_new_tokens, prepare_prompt, settle
from persimmon_lab.generation.sampling import apply_repetition_penalty, sample, shape_distribution
from persimmon_lab.generation.settings import GenerationConfig
from persimmon_lab.generation.steps import DecodingStep, GenerateOutput
from persimmon_lab.generation.stopping import ends_with_stop_string


def generate(
    model: Any,
    input_ids: Tensor | Any = None,
    *,
    attention_mask: Tensor | None = None,
    inputs_embeds: Tensor | None = None,
    past_key_values: Any = None,
    generation_config: GenerationConfig | None = None,
    tokenizer: Any = None,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    on_token: Callable[[DecodingStep], Any] | None = None,
    cancel: threading.Event | None = None,
    engine: str | None = None,
    return_dict_in_generate: bool = False,
    output_scores: bool = False,
    output_logits: bool = False,
    **settings: Any,
) -> Int[Tensor, "batch position"] | GenerateOutput:
    """Continue a batch of prompts; returns (batch, position) ids, prompts included.

    `settings` are the fields of `GenerationConfig` (max_new_tokens, max_length, do_sample, temperature, top_k, top_p,
    min_p, repetition_penalty, num_return_sequences, eos_token_id, pad_token_id, stop_strings, use_cache, ...); what is
    not given comes from `generation_config`, else from `model.generation_config`, else from the defaults; token ids
    fall back on `model.config`.

    Prompts of unequal length are padded on the left, with an `attention_mask`; without one, pad ids in the prompt are
    taken for padding when the pad id is neither eos nor bos. With `inputs_embeds` alone the result holds only the new
    tokens. No prompt at all starts from bos. `past_key_values` holds keys and values of the first part of the prompt.
    `stop_strings` needs `tokenizer`. Sampling draws from `generator`, or one made from `seed`, or torch's default one.
    `engine` says what computes: "plain" calls the model as it is; None takes what is fastest.

    After every step `on_token(step)` is called; returning True stops, and so does setting `cancel`: what was generated
    until then is returned. The model keeps its mode: one in training mode generates with its dropout. Gradients are off
    by `no_grad`, not `inference_mode`, so that results and tables built on the way can be used in training afterwards.

    Raises TypeError for an unknown setting; ValueError for settings, prompts or lengths that cannot be right, naming
    the numbers; FloatingPointError when the model returns nan or infinity.
    """
    steps = decode_steps(
        model,
        input_ids,
        attention_mask=attention_mask,
        inputs_embeds=inputs_embeds,
        past_key_values=past_key_values,
        generation_config=generation_config,
        tokenizer=tokenizer,
        seed=seed,
        generator=generator,
        engine=engine,
        **settings,
    )
    scores, logits, step = [], [], None
    for step in steps:
        scores += [step.scores] if output_scores else []
        logits += [step.logits] if output_logits else []
        if (on_token is not None and on_token(step) is True) or (cancel is not None and cancel.is_set()):
            break
    if not return_dict_in_generate:
        return step.sequences
    return GenerateOutput(
        sequences=step.sequences,
        scores=tuple(scores) if output_scores else None,
        logits=tuple(logits) if output_logits else None,
        past_key_values=step.past_key_values,
    )


def decode_steps(
    model: Any,
    input_ids: Tensor | Any = None,
    *,
    attention_mask: Tensor | None = None,
    inputs_embeds: Tensor | None = None,
    past_key_values: Any = None,
    generation_config: GenerationConfig | None = None,
    tokenizer: Any = None,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    engine: str | None = None,
    **settings: Any,
) -> Iterator[DecodingStep]:
    """The loop of `generate`, whose arguments it shares: yields one DecodingStep per new token, at least one."""
    config = settle(model, generation_config, settings)
    sequences, embeds, mask = prepare_prompt(model, config, input_ids, inputs_embeds, attention_mask)
    width = sequences.shape[1] if embeds is None else embeds.shape[1]
    new_tokens = count_new_tokens(model, config, width, longest=width if mask is None else int(mask.sum(dim=1).max()))
    generator = _random_source(model, seed, generator)
    pad_token_id = _filler(config, tokenizer, batch=sequences.shape[0])
    eos_token_ids = torch.tensor(config.eos_token_ids(), dtype=torch.int64, device=model.device)
    unfinished = torch.ones(sequences.shape[0], dtype=torch.bool, device=model.device)
    cache = past_key_values
    run = runner_for(model, engine)
    if isinstance(cache, tuple):
        cache = DynamicCache.from_legacy_cache(cache)
    elif cache is None and config.use_cache:
        cache = run.new_cache(width + new_tokens) if hasattr(run, "new_cache") else DynamicCache()

    for count in range(1, new_tokens + 1):
        # Around the work and not around the yield, which would switch gradients off for the code that iterates.
        with torch.no_grad():
            inputs = _forward_inputs(model, sequences, embeds, mask, cache)
            outputs = run(**inputs, use_cache=config.use_cache, logits_to_keep=1)
            cache = outputs.past_key_values
            logits = outputs.logits[:, -1].to(torch.float32)
            _require_numbers(logits, position=width + count - 1)

            scores, token_ids = choose(logits, config, sequences, mask, generator)
            token_ids = torch.where(unfinished, token_ids, pad_token_id)

            sequences = torch.cat([sequences, rearrange(token_ids, "batch -> batch 1")], dim=1)
            mask = None if mask is None else torch.cat([mask, mask.new_ones(mask.shape[0], 1)], dim=1)
            unfinished = unfinished & ~torch.isin(token_ids, eos_token_ids)
            if config.stop_strings:
                rows = [ends_with_stop_string(tokenizer, row, config.stop_string_list()) for row in sequences.tolist()]
                unfinished = unfinished & ~torch.tensor(rows, device=model.device)
        is_last = count == new_tokens or not unfinished.any()
        yield DecodingStep(token_ids, logits, scores, sequences, unfinished, is_last, cache, config)
        if is_last:
            return


def runner_for(model: Any, engine: str | None) -> Any:
    """What is called in the model's place."""
    return model


def choose(
    logits: Float[Tensor, "batch vocab"],
    config: GenerationConfig,
    sequences: Int[Tensor, "batch position"],
    mask: Int[Tensor, "batch position_of_mask"] | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Float[Tensor, "batch vocab"], Int[Tensor, "batch"]]:
    """The next token of each row, and the scores it was chosen from: its argmax, or a draw after the filters."""
    scores = logits
    if config.repetition_penalty != 1.0:
        # The mask also covers prompt embeddings, which have no ids; ids stand at its end.
        visible = None if mask is None else mask[:, mask.shape[1] - sequences.shape[1] :].bool()
        scores = apply_repetition_penalty(scores, config.repetition_penalty, sequences, visible)
    if not config.do_sample:
        return scores, scores.argmax(dim=-1)
    scores = shape_distribution(scores, config.temperature, config.top_k, config.top_p, config.min_p)
    return scores, sample(scores, generator)


def _forward_inputs(
    model: Any, sequences: Tensor, embeds: Tensor | None, mask: Tensor | None, cache: Any
) -> dict[str, Any]:
    """What the model has not seen yet, with the positions that left padding would otherwise shift."""
    seen = 0 if cache is None else cache.get_seq_length()
    width = sequences.shape[1] + (0 if embeds is None else embeds.shape[1])
    if seen >= width:
        raise ValueError(
            f"past_key_values already holds {seen} positions and the prompt has {width}; leave at least the last one "
            f"out: past_key_values.crop({width - 1})"
        )
    # Default positions would count the padding; these count the tokens. Padding itself gets 0, which nothing looks at.
    positions = None if mask is None else (mask.cumsum(dim=1) - 1).clamp(min=0)[:, seen:]
    if embeds is None or seen >= embeds.shape[1]:
        unseen = {"input_ids": sequences[:, seen - width :]}
    else:
        unseen = {"inputs_embeds": torch.cat([embeds, model.get_input_embeddings()(sequences)], dim=1)[:, seen:]}
    return {**unseen, "attention_mask": mask, "position_ids": positions, "past_key_values": cache}


def _random_source(model: Any, seed: int | None, generator: torch.Generator | None) -> torch.Generator | None:
    if seed is None:
        return generator
    if generator is not None:
        raise ValueError("generate() was given both seed and generator; a generator has its own seed, pass one of them")
    return torch.Generator(device=model.device).manual_seed(seed)


def _filler(config: GenerationConfig, tokenizer: Any, batch: int) -> int:
    """What finished rows are filled with while others go on."""
    if config.stop_strings and tokenizer is None:
        raise ValueError("stop_strings are looked for in the text, so generate() needs tokenizer=... to make it")
    filler = next((i for i in [config.pad_token_id, *config.eos_token_ids()] if i is not None), None)
    if filler is None and config.stop_strings and batch > 1:
        raise ValueError("rows of a batch stop at different lengths, and there is no pad_token_id to fill them with")
    return 0 if filler is None else filler


def _require_numbers(logits: Float[Tensor, "batch vocab"], position: int) -> None:
    # False for nan and for +inf; -inf is a token that a model may rule out.
    if not (logits < math.inf).all():
        row = int((~(logits < math.inf)).any(dim=1).nonzero()[0])
        raise FloatingPointError(
            f"the model returned nan or infinity for the token at position {position} of row {row}. In float16 a "
            "pre-activation of 256 or more overflows when it is squared (the limit is 65504): load the model with "
            "torch_dtype=torch.bfloat16 or torch.float32. Otherwise look for nan in its weights."
        )
