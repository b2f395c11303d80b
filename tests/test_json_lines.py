"""JSON lines: what a line is, and what is told of one that is none."""

import pytest

from persimmon_lab.finetuning.examples import read_examples
from persimmon_lab.finetuning.labelled import read_labelled
from persimmon_lab.json_lines import json_lines


def written(folder, content: str):
    path = folder / "some.jsonl"
    path.write_bytes(content.encode())
    return path


def test_a_line_ends_at_a_line_feed_alone(tmp_path):
    """Programs write U+2028, U+2029 and U+0085 into a text as they are, and JSON allows it."""
    text = "a\u2028b\u2029c\u0085d"
    content = f'\ufeff{{"text": "{text}", "label": "x"}}\r\n\n{{"text": "e", "label": "y"}}'
    path = written(tmp_path, content)
    assert [place for place, _ in json_lines(path, "{}")] == [f"{path}, line 1", f"{path}, line 3"]
    assert [example.text for example in read_examples(path)] == [text, "e"]
    assert [one.text for one in read_labelled(path)] == [text, "e"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{}\n{"a"', "line 2: no JSON"),
        ('{}\n"text"', "line 2: '\"text\"' is no object"),
        ('{}\n{"a": ["\\ud800 x"]}', "line 2: .* has half of a surrogate pair"),
        ('{}\n{"\\udc00": 1}', "line 2: .* has half of a surrogate pair"),
        ("{}\n" + "[" * 100_000, "line 2: no JSON .it is nested too deep"),
        (" \n", "is empty; give lines such as THIS"),
    ],
)
def test_what_is_none_is_told_with_its_place(tmp_path, content, told):
    with pytest.raises(ValueError, match=told):
        list(json_lines(written(tmp_path, content), "THIS"))


def test_a_whole_pair_is_a_character(tmp_path):
    [(_, entry)] = json_lines(written(tmp_path, '{"text": "\\ud83e\\udd8a"}'), "{}")
    assert entry == {"text": "\N{FOX FACE}"}


def test_a_key_that_is_said_twice_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n{"text": "a", "text": "b"}\n')
    with pytest.raises(ValueError, match="line 2: .*'text' stands there 2 times"):
        list(json_lines(path, "{}"))
