"""Text from token ids as they come, never half a character."""

import codecs
import re

from persimmon_lab.tokenizer.vocabulary import Vocabulary

ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


class StreamingDecoder:
    """Turns ids into text one at a time; all pushes and the finish, joined, are `tokenizer.decode` of all the ids.

    Three things keep this from being a look-up: a character outside the vocabulary comes as one id per UTF-8 byte, and
    is held back until its last; bytes that never become a character are shown as U+FFFD each; and the space that a
    piece such as `▁The` stands for is dropped where the text begins.
    """

    def __init__(self, tokenizer: Vocabulary, skip_special_tokens: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip_special_tokens = skip_special_tokens
        self._special_ids = set(tokenizer.all_special_ids)
        # Bytes that are no UTF-8 become lone surrogates, one each, and those U+FFFD: sentencepiece replaces byte by
        # byte, where Python's errors="replace" would replace a broken character as a whole.
        self._utf8 = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._silent: list[int] | None = []  # the last id, while the text has shown nothing yet; then None

    def push(self, token_id: int) -> str:
        """The text that `token_id` completes; empty while a character still lacks bytes.

        An id beyond the vocabulary is U+FFFD; ValueError for a negative one.
        """
        data = self._tokenizer.id_to_bytes(token_id)
        special = token_id in self._special_ids
        if special and self._skip_special_tokens:
            return ""
        if self._tokenizer.is_byte(token_id):
            return self._shown(self._characters(data))
        remainder = self._shown(self._characters(b"", final=True))
        if special:
            self._silent = []
            return remainder + data.decode("utf-8")
        if self._silent is None:
            return remainder + data.decode("utf-8")
        # What is dropped at the beginning is sentencepiece's to say.
        text = self._shown(self._tokenizer.text_of([*self._silent, token_id]))
        if not text:
            self._silent = [token_id]
        return text

    def finish(self) -> str:
        """What is still held back, one U+FFFD a byte; the decoder is then ready for another text."""
        remainder = self._characters(b"", final=True)
        self._silent = []
        return remainder

    def _characters(self, data: bytes, final: bool = False) -> str:
        return ESCAPED_BYTE.sub("\ufffd", self._utf8.decode(data, final))

    def _shown(self, text: str) -> str:
        if text:
            self._silent = None
        return text
