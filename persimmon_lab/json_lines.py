"""Files of JSON lines, one object each, as people write them by hand and other programs by the thousand."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from persimmon_lab.field_checks import parsed


def json_lines(path: Path, form: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(the place, such as "chats.jsonl, line 3", and the object) of every line that is not empty.

    A line ends at a line feed and nowhere else: other line breaks, such as U+2028, may stand within a text. Raises
    ValueError of the first line that is no object, with its place and the `form` that it should have, or that has half
    of a surrogate pair, and for a file that is not UTF-8 or has no line; OSError where there is no file.
    """
    try:
        lines = path.expanduser().read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    if not any(line.strip() for line in lines):
        raise ValueError(f"{path} is empty; give lines such as {form}")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            entry = parsed(line, object_pairs_hook=_without_repetition)
        except ValueError as error:
            reason = f"{error.msg} at character {error.pos}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise ValueError(f"{place}: no JSON ({reason}): {line!r:.60}; give one object a line: {form}") from None
        if not isinstance(entry, dict):
            raise ValueError(f"{place}: {line!r:.60} is no object; give {form}")
        try:
            json.dumps(entry, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{place}: {line!r:.60} has half of a surrogate pair, which is no character; write the whole pair, or "
                "the character itself"
            ) from None
        yield place, entry


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. ValueError where it says a key twice, of which other readers take the last."""
    entry = dict(pairs)
    if len(entry) < len(pairs):
        [(key, count)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {key!r} stands there {count} times")
    return entry
