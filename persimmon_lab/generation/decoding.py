"""The decoding loop: a prompt in, one token after another out.

`decode_steps` is the loop, as a Python generator: whoever iterates over it can look at each step, and stops it by
stopping to iterate. `generate` collects the steps behind the interface that people know from transformers.

A model is known here only as a `Decodable`.
"""

import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch
from einops import repeat
from jaxtyping import Int
from torch import Tensor

from persimmon_lab.cache import DynamicCache, cache_for
from persimmon_lab.elsewhere import require_own_inputs
from persimmon_lab.generation.arguments import (
    functions,
    random_source,
    require_dtype,
    require_methods,
    require_numbers,
)
from persimmon_lab.generation.beams import beam_steps
from persimmon_lab.generation.context import Context
from persimmon_lab.generation.engines.choosing import forget_room, runner_for, take_back
from persimmon_lab.generation.engines.decodable import Decodable
from persimmon_lab.generation.engines.fast import FastRunner
from persimmon_lab.generation.guessing import reading_ahead
from persimmon_lab.generation.memory import require_memory
from persimmon_lab.generation.prompts import Prompt, count_new_tokens, prepare_prompt, settle
from persimmon_lab.generation.sampling import LogitsProcessor, sample, shape_scores
from persimmon_lab.generation.steps import DecodingStep, GenerateOutput, Streamer
from persimmon_lab.generation.stopping import Ending, StoppingCriterion
from persimmon_lab.generation_config import GenerationConfig


def generate(
    model: Decodable,
    inputs: Tensor | Any = None,
    generation_config: GenerationConfig | Any = None,
    logits_processor: Sequence[LogitsProcessor] | None = None,
    stopping_criteria: Sequence[StoppingCriterion] | None = None,
    *,
    input_ids: Tensor | Any = None,
    attention_mask: Tensor | None = None,
    inputs_embeds: Tensor | None = None,
    past_key_values: Any = None,
    tokenizer: Any = None,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    on_token: Callable[[DecodingStep], Any] | None = None,
    streamer: Streamer | None = None,
    cancel: threading.Event | None = None,
    engine: str | None = None,
    progress: bool | None = None,
    assistant_model: Decodable | None = None,
    return_dict_in_generate: bool = False,
    output_scores: bool = False,
    output_logits: bool = False,
    **settings: Any,
) -> Int[Tensor, "batch position"] | GenerateOutput:
    """Continue a batch of prompts, `inputs` or `input_ids`; returns (batch, position) ids, prompts included.

    `settings` are the fields of `GenerationConfig` (max_new_tokens, max_length, do_sample, temperature, top_k, top_p,
    min_p, repetition_penalty, no_repeat_ngram_size, min_new_tokens, num_beams, length_penalty, early_stopping,
    num_return_sequences, eos_token_id, pad_token_id, stop_strings, use_cache, prefill_chunk_size, ...); what is not
    given comes from `generation_config` (ours or transformers'), which takes the place of `model.generation_config` as
    in transformers 4 (5 merges the two), and from the defaults. Token ids that it leaves open are the model's.

    Prompts of unequal length are padded on the left, with an `attention_mask`; without one, pad ids in the prompt are
    taken for padding when the pad id is neither eos nor bos. With `inputs_embeds` alone the result holds only the new
    tokens. No prompt at all starts from bos. `past_key_values` holds keys and values of the first part of the prompt;
    it grows, and with several answers or beams a prompt it ends with a row for each of them.

    Each of `logits_processor` is a function `(ids so far, scores) -> scores` (batch, vocab), called after the
    repetition penalty and the n-grams and before temperature and filters; beams give it log-probabilities. Each of
    `stopping_criteria` is one `(ids so far, scores) -> bool`, for all rows, or a tensor with a bool for each.
    `stop_strings` needs `tokenizer`. Sampling draws from `generator`, or one made from `seed`, or torch's default one.
    `engine` says what computes: "plain" calls the model as it is; None takes what is fastest. `progress` shows a bar
    while a prompt is read in chunks; None does so from 4,096 positions on.

    With `prompt_lookup_num_tokens`, or an `assistant_model` of the same vocabulary, a text is read several tokens at a
    time where they are guessed right; the choices are the same, up to the last bits of a product with more rows.

    The fast engines may hold copies of the weights, which are made anew when the weights have changed. Seen are
    operations in place, another `.data`, `load_state_dict`, an optimiser's step, another dtype or device, a hook, a
    replaced module or forward, another config. What may be missed: numbers written through `.data`, through numpy, or
    into a model that was loaded in inference mode, where a weight has more than 16,384 numbers and the few that are
    looked at stayed what they were; and a forward replaced on a class. Then ask for engine="plain".

    After every step `on_token(step)` is called; returning True stops, and so does setting `cancel`: what was generated
    until then is returned (of beams the best texts, ended or not). A `streamer`, as transformers has them, is given the
    prompt and then each token by `put`, and told the `end`; not with beams, which change their minds. An error or a
    KeyboardInterrupt passes through and leaves a given cache with the positions of whole steps, to go on from. The
    model keeps its mode: one in training mode generates with its dropout. Gradients are off by `no_grad`, not
    `inference_mode`, so that results and tables built on the way can be used in training afterwards.

    Raises TypeError for an unknown setting; ValueError for settings, prompts or lengths that cannot be right, naming
    the numbers; MemoryError, before anything is allocated, for more than is free; FloatingPointError when the model
    returns nan or infinity.
    """
    if inputs is not None and input_ids is not None:
        raise ValueError("generate() was given both inputs and input_ids, two names of the prompt; pass one of them")
    require_methods("streamer", streamer, ("put", "end"), "transformers.TextStreamer(tokenizer)")
    require_methods("cancel", cancel, ("is_set",), "threading.Event()")
    require_methods("on_token", on_token, ("__call__",), "a function of a step")
    steps = decode_steps(
        model,
        inputs if input_ids is None else input_ids,
        attention_mask=attention_mask,
        inputs_embeds=inputs_embeds,
        past_key_values=past_key_values,
        generation_config=generation_config,
        tokenizer=tokenizer,
        seed=seed,
        generator=generator,
        engine=engine,
        logits_processor=logits_processor,
        stopping_criteria=stopping_criteria,
        progress=progress,
        assistant_model=assistant_model,
        **settings,
    )
    if streamer is not None:
        steps = _streamed(steps, streamer)
    scores: list[Tensor] = []
    logits: list[Tensor] = []
    for step in steps:  # at least one
        scores += [step.scores] if output_scores else []
        logits += [step.logits] if output_logits else []
        if (on_token is not None and on_token(step) is True) or (cancel is not None and cancel.is_set()):
            break
    steps.close()  # which forgets what was guessed and not said
    if not return_dict_in_generate:
        if past_key_values is None and on_token is None:  # then nobody else has the cache
            take_back(model, step.past_key_values)
        return step.result
    return GenerateOutput(
        sequences=step.result,
        sequences_scores=step.result_scores,
        scores=tuple(scores) if output_scores else None,
        logits=tuple(logits) if output_logits else None,
        past_key_values=step.past_key_values,
    )


def decode_steps(
    model: Decodable,
    input_ids: Tensor | Any = None,
    *,
    attention_mask: Tensor | None = None,
    inputs_embeds: Tensor | None = None,
    past_key_values: Any = None,
    generation_config: GenerationConfig | Any = None,
    tokenizer: Any = None,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    engine: str | None = None,
    logits_processor: Sequence[LogitsProcessor] | None = None,
    stopping_criteria: Sequence[StoppingCriterion] | None = None,
    progress: bool | None = None,
    assistant_model: Decodable | None = None,
    **settings: Any,
) -> Generator[DecodingStep, None, None]:
    """The loop of `generate`, whose arguments it shares: yields one DecodingStep per new token, at least one.

    Where it guesses ahead, the cache of a step may hold what was guessed right as well: crop it to go on from there.
    """
    require_own_inputs(model)
    require_numbers(model)
    require_methods("tokenizer", tokenizer, ("decode",), "a PersimmonTokenizer")
    require_methods("assistant_model", assistant_model, ("forward", "config"), "a PersimmonForCausalLM")
    processors = functions("logits_processor", logits_processor)
    config = settle(model, generation_config, settings)
    ending = Ending(config, tokenizer, model.device, functions("stopping_criteria", stopping_criteria))
    generator = random_source(model, seed, generator)
    prompt = prepare_prompt(model, config, input_ids, inputs_embeds, attention_mask)
    context, new_tokens = _opened(model, config, prompt, past_key_values, ending, engine, progress)
    reader = reading_ahead(context, model, assistant_model, config, new_tokens, engine)
    if config.num_beams > 1:
        yield from beam_steps(context, config, ending, new_tokens, processors, generator)
        return

    batch = len(context.ids)
    rows = repeat(torch.arange(batch, device=model.device), "batch -> (batch copy)", copy=config.num_return_sequences)
    unfinished = torch.ones(len(rows), dtype=torch.bool, device=model.device)
    try:
        for count in range(1, new_tokens + 1):
            # Around the work and not around the yield, which would switch gradients off for the code that iterates.
            with torch.no_grad():
                logits = reader.next_logits()
                if count == 1 and len(rows) > batch:  # the prompt is read once for all its answers
                    logits = logits[rows]
                    context.keep(rows)
                may_end = count > config.least_new_tokens(context.prompt_width)
                scores = shape_scores(logits, context.sequences, config, context.visible, processors, may_end=may_end)
                token_ids = sample(scores, generator) if config.do_sample else scores.argmax(dim=-1)
                if ending.possible:
                    token_ids = token_ids.masked_fill(~unfinished, ending.filler)
                context.append(token_ids)
                if ending.possible:
                    unfinished = unfinished & ~ending(context.sequences, scores)
            is_last = count == new_tokens or (ending.possible and not bool(unfinished.any()))
            yield DecodingStep(
                token_ids, logits, scores, context.sequences, unfinished, is_last, context.cache, config
            )  # fmt: skip
            if is_last:
                return
    finally:
        context.forget_guesses()


def _streamed(steps: Generator[DecodingStep, None, None], streamer: Streamer) -> Generator[DecodingStep, None, None]:
    """The same steps, told to the streamer as transformers tells them."""
    try:
        for count, step in enumerate(steps):
            if step.config.num_beams > 1:
                raise ValueError(f"a streamer cannot follow num_beams={step.config.num_beams}; pass num_beams=1")
            if count == 0:
                streamer.put(step.sequences[:, :-1].cpu())
            streamer.put(step.token_ids.cpu())
            yield step
    finally:
        streamer.end()  # whoever waits for it in another thread is let go


def _opened(
    model: Decodable,
    config: GenerationConfig,
    prompt: Prompt,
    past_key_values: Any,
    ending: Ending,
    engine: str | None,
    progress: bool | None,
) -> tuple[Context, int]:
    """The prompt, ready to be read by the engine that serves it, and how many tokens to generate after it."""
    sequences, embeds, mask = prompt
    batch = sequences.shape[0]
    width = sequences.shape[1] if embeds is None else embeds.shape[1]
    new_tokens = count_new_tokens(model, config, width, longest=width if mask is None else int(mask.sum(dim=1).max()))
    if config.stop_strings and not ending.has_filler and batch > 1:
        raise ValueError("rows of a batch stop at different lengths, and there is no pad_token_id to fill them with")
    cache = past_key_values
    if cache is not None:
        checked = cache_for(cache, model.config.num_hidden_layers, rows=batch)
        require_dtype(model, checked)
        cache = checked if isinstance(cache, tuple | list) else cache
    requirement = model, config, batch, width, new_tokens, cache, mask is not None
    try:
        require_memory(*requirement)
    except MemoryError:
        if not forget_room(model):
            raise
        require_memory(*requirement)

    run = runner_for(model, engine, rows=batch * max(config.num_beams, config.num_return_sequences))
    if cache is None and config.use_cache:
        cache = run.new_cache(width + new_tokens, batch) if isinstance(run, FastRunner) else DynamicCache()
    context = Context(
        run, sequences, mask, cache, new_tokens=new_tokens, use_cache=config.use_cache, progress=progress,
        chunk=config.prefill_chunk_size, prompt_embeds=embeds, embed=model.get_input_embeddings(),
    )  # fmt: skip
    return context, new_tokens
