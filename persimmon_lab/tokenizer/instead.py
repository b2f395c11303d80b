"""Names and arguments of transformers' tokenizers that ours has not, each with what to use instead."""

from persimmon_lab.checkpoints.keywords import LOADING_IGNORES, LOADING_REFUSES
from persimmon_lab.elsewhere import UPLOAD, UPLOADS

CHAT = "apply_chat_template, which writes Adept's format and no other"
SAVED = "save_pretrained and from_pretrained: the settings are in tokenizer_config.json"
WARNINGS = "Python's warnings"

NAMES = {
    "SPECIAL_TOKENS_ATTRIBUTES": "special_tokens_map",
    "add_special_tokens": "the constructor's bos_token=, eos_token= and pad_token=, pieces of the vocabulary",
    "add_tokens": "sentencepiece, which trains a vocabulary with the pieces that you want",
    "all_special_tokens_extended": "all_special_tokens",
    "as_target_tokenizer": "labels: a copy of input_ids, with -100 where nothing is to be learnt",
    "backend_tokenizer": "sp_model, or tokenizers.Tokenizer.from_file on a saved tokenizer.json",
    "batch_encode_plus": "tokenizer(texts)",
    "can_save_slow_tokenizer": "save_pretrained, which writes both formats",
    "chat_template": "apply_chat_template; as Jinja it is persimmon_lab.tokenizer.chat.CHAT_TEMPLATE",
    "convert_added_tokens": "special_tokens",
    "create_token_type_ids_from_sequences": "attention_mask: this model knows no types of tokens",
    "decoder": "persimmon_lab.tokenizer.StreamingDecoder, or decode",
    "default_chat_template": CHAT,
    "deprecation_warnings": WARNINGS,
    "encode_plus": "tokenizer(text)",
    "init_inputs": SAVED,
    "init_kwargs": SAVED,
    "max_len_sentences_pair": "max_len_single_sentence: this model reads one text a row",
    "max_model_input_sizes": "model_max_length",
    "prepare_for_model": "tokenizer(text), or build_inputs_with_special_tokens and pad",
    "prepare_seq2seq_batch": "tokenizer(texts)",
    "pretrained_init_configuration": "from_pretrained",
    "pretrained_vocab_files_map": "from_pretrained",
    "push_to_hub": UPLOAD,
    "register_for_auto_class": "transformers.AutoTokenizer.from_pretrained on the folder that save_pretrained wrote",
    "sanitize_special_tokens": "special_tokens",
    "set_truncation_and_padding": "the call's own padding=, truncation= and max_length=",
    "slow_tokenizer_class": "save_pretrained, which writes both formats",
    "special_tokens_map_extended": "special_tokens_map",
    "split_special_tokens": "the call's parse_special=, False unless given",
    "train_new_from_iterator": "sentencepiece.SentencePieceTrainer",
    "truncate_sequences": "the call's truncation= and max_length=",
    "update_post_processor": "add_bos_token and add_eos_token, which may be set at any time",
    "use_default_system_prompt": "apply_chat_template: Adept's format has no system prompt",
    "verbose": WARNINGS,
    "vocab_file": "sp_model, or save_vocabulary, which writes it to a file",
}

CONSTRUCTOR = {
    "tokenizer_file": "vocab_file, a sentencepiece model",
    "unk_token": "sp_model: the unknown piece is the sentencepiece model's own",
    "use_default_system_prompt": NAMES["use_default_system_prompt"],
}
ONE_TEXT = "one text a row: this model reads no pairs"
CUT = "return_offsets_mapping, or cut input_ids yourself"
CALL = {
    "is_split_into_words": "one string: join the words with spaces",
    "return_length": "len(input_ids)",
    "return_overflowing_tokens": CUT,
    "return_special_tokens_mask": "get_special_tokens_mask",
    "return_token_type_ids": "attention_mask: this model knows no types of tokens",
    "stride": CUT,
    "text_pair": ONE_TEXT,
    "text_pair_target": ONE_TEXT,
    "text_target": "labels: a copy of input_ids, with -100 where nothing is to be learnt",
}
TOKENIZE = {"pair": ONE_TEXT}
CHAT_ARGUMENTS = {"chat_template": "persimmon_lab.tokenizer.chat.render_chat: Adept's format is the only one"}
LOADING = {name: LOADING_REFUSES[name] for name in ("proxies", "subfolder", "use_auth_token")}
LOADING_IGNORED = {name: LOADING_IGNORES[name] for name in ("force_download", "resume_download")}
SAVING = {
    "filename_prefix": "a folder of its own, or save_vocabulary",
    **UPLOADS,
}
SAVING_IGNORED = {"legacy_format": "both formats are written"}
CALL_IGNORED = {"verbose": "warnings are Python's"}
