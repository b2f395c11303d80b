"""Text to token ids and back, exactly as sentencepiece does it, with special tokens, batches, chats and streams.

`tokenizer` is what users call; `vocabulary` knows its pieces and special tokens, `segmentation` cuts a text,
`batch_encoding` pads and truncates, `chat` writes Adept's chat format, `streaming_decoder` shows text as it is
generated. `lattice` holds every way to cut a text, and `unigram` makes one from the vocabulary. `sentencepiece_model`
reads and writes the model file, `tokenizer_json` says the same to Hugging Face's tokenizers and `from_tokenizer_json`
reads it back, `files` finds and writes a tokenizer's folder. `transformers_names` is what collators and trainers look
up, `instead` what they look up in vain, and what to use.
"""

from persimmon_lab.tokenizer.batch_encoding import BatchEncoding
from persimmon_lab.tokenizer.streaming_decoder import StreamingDecoder
from persimmon_lab.tokenizer.tokenizer import PersimmonTokenizer

__all__ = ["BatchEncoding", "PersimmonTokenizer", "StreamingDecoder"]
