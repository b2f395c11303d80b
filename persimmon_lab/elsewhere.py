"""What transformers' classes have and ours do not: asking for it says what to use instead."""

import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

UPLOAD = "huggingface_hub.HfApi().upload_folder, of the folder that was saved"
UPLOADS = dict.fromkeys(("push_to_hub", "repo_id", "commit_message", "token", "use_auth_token"), UPLOAD)
_DECODER = "nothing, it is a decoder alone"
_DECODING = "GenerationConfig, whose it is"
OF_CONFIG = {
    "add_cross_attention": _DECODER,
    "bad_words_ids": _DECODING,
    "begin_suppress_tokens": _DECODING,
    "chunk_size_feed_forward": "persimmon_lab.fitting.memory",
    "cross_attention_hidden_size": _DECODER,
    "decoder_start_token_id": "bos_token_id",
    "dict_torch_dtype_to_str": "to_dict",
    "diversity_penalty": _DECODING,
    "do_sample": _DECODING,
    "early_stopping": _DECODING,
    "encoder_no_repeat_ngram_size": _DECODER,
    "exponential_decay_length_penalty": _DECODING,
    "finetuning_task": "extra",
    "forced_bos_token_id": _DECODING,
    "forced_eos_token_id": _DECODING,
    "get_config_dict": "from_json_file",
    "is_decoder": _DECODER,
    "length_penalty": _DECODING,
    "max_length": _DECODING,
    "min_length": _DECODING,
    "no_repeat_ngram_size": _DECODING,
    "num_beam_groups": _DECODING,
    "num_beams": _DECODING,
    "num_return_sequences": _DECODING,
    "output_scores": _DECODING,
    "prefix": "extra",
    "pruned_heads": "persimmon_lab.trace.ablation.ablate",
    "push_to_hub": UPLOAD,
    "register_for_auto_class": "transformers.AutoConfig.register",
    "remove_invalid_values": "nothing, generate raises FloatingPointError",
    "repetition_penalty": _DECODING,
    "return_dict_in_generate": _DECODING,
    "sep_token_id": "eos_token_id",
    "suppress_tokens": _DECODING,
    "task_specific_params": "extra",
    "temperature": _DECODING,
    "tf_legacy_loss": "torch",
    "tie_encoder_decoder": "tie_word_embeddings",
    "tokenizer_class": "PersimmonTokenizer",
    "top_k": _DECODING,
    "top_p": _DECODING,
    "torchscript": "torch.export",
    "transformers_version": "persimmon_lab.__version__",
    "typical_p": _DECODING,
    "update_from_string": "dataclasses.replace",
    "use_bfloat16": "torch_dtype",
}
_PROCESSOR = "logits_processor=[transformers."
OF_GENERATION_CONFIG = {
    "bad_words_ids": f"{_PROCESSOR}NoBadWordsLogitsProcessor(...)]",
    "begin_suppress_tokens": f"{_PROCESSOR}SuppressTokensAtBeginLogitsProcessor(...)]",
    "constraints": "num_beams",
    "decoder_start_token_id": "bos_token_id",
    "dict_torch_dtype_to_str": "to_dict",
    "diversity_penalty": "num_beams",
    "encoder_no_repeat_ngram_size": "no_repeat_ngram_size",
    "encoder_repetition_penalty": "repetition_penalty",
    "epsilon_cutoff": "min_p",
    "eta_cutoff": "min_p",
    "exponential_decay_length_penalty": "length_penalty",
    "force_words_ids": "num_beams",
    "forced_bos_token_id": "bos_token_id",
    "forced_decoder_ids": "input_ids that begin with them",
    "forced_eos_token_id": f"{_PROCESSOR}ForcedEOSTokenLogitsProcessor(...)]",
    "generation_kwargs": "extra",
    "guidance_scale": f"{_PROCESSOR}UnbatchedClassifierFreeGuidanceLogitsProcessor(...)]",
    "low_memory": "prefill_chunk_size",
    "max_time": "cancel, an event that ends generate",
    "num_assistant_tokens_schedule": "num_assistant_tokens",
    "num_beam_groups": "num_beams",
    "output_attentions": "persimmon_lab.trace.capture.capture",
    "output_hidden_states": "persimmon_lab.trace.capture.capture",
    "output_scores": "the argument of generate",
    "penalty_alpha": "do_sample",
    "push_to_hub": UPLOAD,
    "remove_invalid_values": "nothing, generate raises FloatingPointError",
    "renormalize_logits": f"{_PROCESSOR}LogitNormalization()]",
    "return_dict_in_generate": "the argument of generate",
    "sequence_bias": f"{_PROCESSOR}SequenceBiasLogitsProcessor(...)]",
    "suppress_tokens": f"{_PROCESSOR}SuppressTokensLogitsProcessor(...)]",
    "transformers_version": "persimmon_lab.__version__",
    "typical_p": f"{_PROCESSOR}TypicalLogitsWarper(...)]",
}
_CAUSAL_MASK = "persimmon_lab.attention.causal_mask"
_ABLATE = "persimmon_lab.trace.ablation.ablate"
_TAGS = "huggingface_hub.ModelCardData, in a README.md of the folder"
_WRITER = "PersimmonForCausalLM, which writes text"
OF_MODELS = {
    "active_adapter": "peft.PeftModel.active_adapter",
    "active_adapters": "peft.PeftModel.active_adapters",
    "add_adapter": "peft.get_peft_model",
    "add_memory_hooks": "torch.cuda.max_memory_allocated",
    "add_model_tags": _TAGS,
    "create_extended_attention_mask_for_decoder": "attention_mask, which may be two-dimensional",
    "disable_adapters": "peft.PeftModel.disable_adapter",
    "enable_adapters": "peft.PeftModel.set_adapter",
    "generate": _WRITER,
    "get_adapter_state_dict": "peft.get_peft_model_state_dict",
    "get_extended_attention_mask": _CAUSAL_MASK,
    "get_head_mask": _ABLATE,
    "get_position_embeddings": "persimmon_lab.rotary.rotary_tables",
    "init_weights": "initialize_weights",
    "invert_attention_mask": _CAUSAL_MASK,
    "load_adapter": "peft.PeftModel.from_pretrained",
    "model_tags": _TAGS,
    "post_init": "initialize_weights, which constructors call",
    "prepare_inputs_for_generation": _WRITER,
    "prune_heads": _ABLATE,
    "push_to_hub": UPLOAD,
    "register_for_auto_class": "transformers.AutoModelForCausalLM.register",
    "reset_memory_hooks_state": "torch.cuda.reset_peak_memory_stats",
    "resize_position_embeddings": "config.rope_scaling: positions are turned, no table of them is learnt",
    "retrieve_modules_from_names": "get_submodule",
    "reverse_bettertransformer": "set_attn_implementation",
    "set_adapter": "peft.PeftModel.set_adapter",
    "to_bettertransformer": "set_attn_implementation",
    "warn_if_padding_and_no_attention_mask": "attention_mask",
}
OF_DECODING = {
    "assisted_decoding": "generate(), in which nothing drafts",
    "beam_sample": "generate(num_beams=..., do_sample=True)",
    "beam_search": "generate(num_beams=...)",
    "constrained_beam_search": "generate(num_beams=...), without constraints",
    "contrastive_search": "generate()",
    "greedy_search": "generate()",
    "group_beam_search": "generate(num_beams=...), in one group",
    "sample": "generate(do_sample=True)",
}


class Elsewhere:
    """A mixin: reading or setting a name that stands in `elsewhere` and does not exist is refused, with what to use.

    The refusal is an AttributeError, so `hasattr` says no and `getattr` takes its default. Names that exist never come
    here, but for the parts of an `nn.Module`; instances keep nothing of it, so they copy and pickle as before.
    """

    elsewhere: ClassVar[Mapping[str, str]] = {}

    if not TYPE_CHECKING:  # which knows better what a class has, by its own `__getattr__` or without one

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)  # an nn.Module finds its parameters and modules by it
            except AttributeError:
                told = f"{type(self).__name__!r} object has no attribute {name!r}"
                if name in type(self).elsewhere:
                    told = f"{type(self).__name__} has no {name}: use {type(self).elsewhere[name]}"
                raise AttributeError(told) from None

        def __setattr__(self, name: str, value: Any) -> None:
            # Nothing would follow it: None, False, 0 and "" ask for nothing, as they do among keywords.
            if name in type(self).elsewhere and _asks(value) and not hasattr(type(self), name):
                raise AttributeError(f"{type(self).__name__} has no {name}: use {type(self).elsewhere[name]}")
            super().__setattr__(name, value)


def refuse(function: str, given: Iterable[str], elsewhere: Mapping[str, str]) -> None:
    """Raise TypeError for the arguments among `given` that stand in `elsewhere`, with what to use instead of each."""
    if words := [f"{name} (use {elsewhere[name]})" for name in given if name in elsewhere]:
        raise TypeError(f"{function} does not take {', '.join(words)}")


def ignore(function: str, given: Iterable[str], reasons: Mapping[str, str], stacklevel: int = 3) -> None:
    """Warn of the arguments among `given` that stand in `reasons`: taken, without effect."""
    if words := [f"{name} ({reasons[name]})" for name in given if name in reasons]:
        warnings.warn(f"{function} ignores {', '.join(words)}", stacklevel=stacklevel)


def keywords_left(
    function: str,
    given: Mapping[str, Any],
    refused: Mapping[str, str],
    ignored: Mapping[str, str] | None = None,
    *,
    false_counts: Iterable[str] = (),
    stacklevel: int = 4,
) -> dict[str, Any]:
    """What is left of `given` without transformers' own arguments: some ignored with a warning, the others refused.

    None, False, 0 and "" ask for nothing and pass quietly, but for the arguments in which False says something.
    """
    ignored = ignored or {}
    asking = [name for name, value in given.items() if _asks(value) or (value is False and name in false_counts)]
    refuse(function, asking, refused)
    ignore(function, asking, ignored, stacklevel)
    return {name: value for name, value in given.items() if name not in refused and name not in ignored}


def no_keywords_left(
    function: str,
    given: Mapping[str, Any],
    refused: Mapping[str, str],
    ignored: Mapping[str, str] | None = None,
    stacklevel: int = 5,
) -> None:
    """`keywords_left` where nothing may be: TypeError that names the others."""
    if unknown := keywords_left(function, given, refused, ignored, stacklevel=stacklevel):
        raise TypeError(f"{function} takes no argument {', '.join(map(repr, sorted(unknown)))}")


def _asks(value: Any) -> bool:
    return bool(value) if isinstance(value, int | str) else value is not None


def require_own_inputs(model: object) -> None:
    """Raise NotImplementedError for a model whose `prepare_inputs_for_generation` was replaced, as peft's prompt tuning
    does for a while: who does not call it would leave out what it adds."""
    name = "prepare_inputs_for_generation"
    own = getattr(model, "__dict__", {}).get(name)
    if own is not None and getattr(own, "__func__", own) is not getattr(type(model), name, None):
        raise NotImplementedError(
            f"{name} of this {type(model).__name__} was replaced, and generate() does not call it: what it adds, such "
            "as the virtual tokens of peft's prompt tuning, would be left out. Give them as inputs_embeds, or take an "
            "adapter that changes weights, such as LoRA"
        )
