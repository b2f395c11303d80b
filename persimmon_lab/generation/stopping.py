"""Where generation ends inside the text: stop strings, wherever the token boundaries fall."""

from collections.abc import Sequence
from typing import Any

REPLACEMENT_CHARACTER = "\ufffd"


def ends_with_stop_string(tokenizer: Any, token_ids: Sequence[int], stop_strings: Sequence[str]) -> bool:
    """Whether the last token completes one of the stop strings in the text of `token_ids`.

    The string may begin many tokens back and end inside the last token, as in transformers; a stop string that was
    complete before the last token does not count.
    """
    if not stop_strings:
        return False
    # A token carries at least one byte, so the string spans at most its number of bytes in tokens. One token more on
    # the left keeps what a decoder does to the very first token (dropping its space) away from the string.
    reach = 1 + max(len(stop_string.encode("utf-8")) for stop_string in stop_strings)
    tail = list(token_ids[-reach:])
    text = tokenizer.decode(tail, skip_special_tokens=False)
    # Bytes of an unfinished character decode to replacement characters, which the last token may turn into a real one.
    before = tokenizer.decode(tail[:-1], skip_special_tokens=False).rstrip(REPLACEMENT_CHARACTER)
    return any(text.find(stop, max(0, len(before) - len(stop) + 1)) >= 0 for stop in stop_strings)


def split_at_stop_string(text: str, stop_strings: Sequence[str]) -> tuple[str, str]:
    """Split streamed text into what may be shown and what must wait because it is, or may become, a stop string.

    >>> split_at_stop_string("fine.\\n\\nhum", ["\\n\\nhuman:"])
    ('fine.', '\\n\\nhum')
    """
    found = [text.find(stop) for stop in stop_strings if stop in text]
    if found:
        return text[: min(found)], text[min(found) :]
    begun = (
        length
        for stop in stop_strings
        for length in range(min(len(stop) - 1, len(text)), 0, -1)
        if text.endswith(stop[:length])
    )
    waiting = max(begun, default=0)
    return text[: len(text) - waiting], text[len(text) - waiting :]
