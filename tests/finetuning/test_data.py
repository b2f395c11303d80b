"""Examples read line by line, their labels character by character, and rows in which every document is whole."""

import json

import pytest
import torch

from persimmon_lab import load_mini
from persimmon_lab.finetuning import Settings, conversation, encode, pack, read_examples, split
from persimmon_lab.finetuning.examples import Example, check_overlap, count_duplicates
from persimmon_lab.finetuning.packing import fill_rows
from persimmon_lab.losses import IGNORED

TWO_TURNS = conversation("Hello!", "Hi there.", "How are you?", "Fine, thank you.", name="a chat")


@pytest.fixture(scope="module")
def tokenizer():
    return load_mini()[1]


# Examples


def lines(path, *entries):
    path.write_text("\n".join(entry if isinstance(entry, str) else json.dumps(entry) for entry in entries))
    return path


def said(*texts):
    roles = ("human", "adept")
    return {"messages": [{"role": roles[index % 2], "content": text} for index, text in enumerate(texts)]}


def test_lines_of_both_kinds_are_read_in_order(tmp_path):
    path = lines(tmp_path / "a.jsonl", {"text": "One.", "more": 1}, "", said("Hi", "Ho"))
    one, two = read_examples(path)
    assert (one.text, two.text) == ("One.", None)
    assert two.rendered() == "human: Hi\n\nadept: Ho"
    assert two.name == f"{path}, line 3"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: no JSON"),
        ("[1]", "line 2: '\\[1\\]' is no object"),
        ({"prompt": "x"}, "line 2: an object with the keys .'prompt'"),
        ({"text": 3}, "line 2: text is 3"),
        ({"text": " \n"}, "line 2: text is"),
        ({"text": "x", **said("a", "b")}, "line 2: both messages and text"),
        ({"messages": "Hi"}, "line 2: messages is 'Hi'"),
        ({"messages": []}, "line 2: "),
        (said("Hi"), "line 2: the last message is the human's"),
        (said("Hi", " "), "line 2: message 1 is empty"),
        ({"messages": [{"role": "adept", "content": "Hi"}, {"role": "human", "content": "Ho"}]}, "line 2: "),
        ({"messages": [{"role": "human"}, {"role": "adept", "content": "Ho"}]}, "line 2: "),
        ({"messages": [{"role": "human", "content": 3}, {"role": "adept", "content": "Ho"}]}, "line 2: "),
        ({"messages": ["Hi", "Ho"]}, "line 2: "),
    ],
    ids=str,
)
def test_a_wrong_line_is_named_before_anything_starts(tmp_path, line, told):
    with pytest.raises(ValueError, match=told):
        read_examples(lines(tmp_path / "a.jsonl", {"text": "right"}, line))


def test_files_without_examples(tmp_path):
    with pytest.raises(ValueError, match="is empty; give lines such as"):
        read_examples(lines(tmp_path / "a.jsonl", "", ""))
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "\xff"}')
    with pytest.raises(ValueError, match="b.jsonl is not UTF-8"):
        read_examples(tmp_path / "b.jsonl")


def test_copies_stay_together_when_examples_are_parted():
    words = ["Text  {}", "text {}"]
    examples = [Example(f"{index}", text=words[index % 2].format(index // 2)) for index in range(20)]
    assert count_duplicates(examples) == 10
    training, held_out = split(examples, 0.3, seed=1)
    assert len(held_out) == 6
    assert check_overlap(training, held_out) == 0
    assert split(examples, 0.3, seed=1) == (training, held_out) != split(examples, 0.3, seed=2)
    assert {e.content for e in training} | {e.content for e in held_out} == {e.content for e in examples}
    for share in (0.0, 1.0, -1.0):
        with pytest.raises(ValueError, match="cannot be held out"):
            split(examples, share)
    with pytest.raises(ValueError, match="cannot be parted"):
        split(examples[:2], 0.5)


def test_overlap_is_counted_and_refused_above_a_share():
    held_out = [Example(f"h{index}", text=f"held {index}") for index in range(10)]
    training = [Example("t", text="HELD  3"), Example("u", text="other")]
    assert check_overlap(training, held_out) == 1
    with pytest.raises(ValueError, match="2 of the 10 held-out examples are in the training part too .h3"):
        check_overlap([*training, Example("v", text="held 7")], held_out)


# Labels


def learned_text(encoded, tokenizer):
    """What is learned, run by run of labels."""
    runs, run = [], []
    for label in (*encoded.labels, IGNORED):
        if label != IGNORED:
            run.append(label)
        elif run:
            runs.append(tokenizer.decode(run))
            run = []
    return runs


def test_answers_and_their_ends_are_learned_and_questions_are_not(tokenizer):
    encoded = encode(TWO_TURNS, tokenizer, 100)
    end = tokenizer.eos_token
    assert [text.strip() for text in learned_text(encoded, tokenizer)] == [f"Hi there.{end}", f"Fine, thank you.{end}"]
    assert len(encoded.input_ids) == len(encoded.labels)
    whole = tokenizer(TWO_TURNS.rendered()).input_ids
    assert list(encoded.input_ids) == [*whole, tokenizer.eos_token_id]
    differ = [p for p, (i, label) in enumerate(zip(encoded.input_ids, encoded.labels)) if label not in (IGNORED, i)]
    assert [encoded.labels[place] for place in differ] == [tokenizer.eos_token_id], "the end of the first answer"


def test_a_prompt_is_read_as_it_was_taught(tokenizer):
    prompt = tokenizer.apply_chat_template([{"role": "human", "content": "Hello!"}], add_generation_prompt=True)
    encoded = encode(conversation("Hello!", "Hi there."), tokenizer, 100)
    assert list(encoded.input_ids[: len(prompt)]) == list(prompt)
    assert set(encoded.labels[: len(prompt)]) == {IGNORED}
    assert IGNORED not in encoded.labels[len(prompt) :]


def test_of_a_text_all_is_learned_but_what_nothing_stands_before(tokenizer):
    encoded = encode(Example("a", text="Two roads diverged."), tokenizer, 100)
    assert encoded.labels[0] == IGNORED
    assert encoded.labels[1:] == encoded.input_ids[1:]
    assert encoded.input_ids[-1] == tokenizer.eos_token_id


def test_a_long_conversation_is_cut_after_an_answer_and_counted(tokenizer):
    whole = encode(TWO_TURNS, tokenizer, 100)
    first = len(encode(conversation("Hello!", "Hi there."), tokenizer, 100).input_ids)
    cut = encode(TWO_TURNS, tokenizer, len(whole.input_ids) - 1)
    assert len(cut.input_ids) == first
    assert cut.cut == len(whole.input_ids) - first > 0 == whole.cut
    assert cut.input_ids[-1] == cut.labels[-1] == tokenizer.eos_token_id
    within = encode(TWO_TURNS, tokenizer, first - 2)
    assert within.input_ids == whole.input_ids[: first - 2]
    assert tokenizer.eos_token_id not in within.labels, "an answer that was cut has no end to learn"


def test_nothing_left_to_learn_is_an_error_that_names_the_example(tokenizer):
    with pytest.raises(ValueError, match="a chat: nothing to learn within 4 tokens"):
        encode(TWO_TURNS, tokenizer, 4)


# Rows


def test_rows_hold_every_document_whole_and_are_few():
    lengths = [5, 9, 3, 7, 2, 8, 1, 5]
    rows = fill_rows(lengths, 10)
    assert sorted(index for row in rows for index in row) == list(range(8))
    assert all(sum(lengths[index] for index in row) <= 10 for row in rows)
    assert rows == [[0, 2, 4], [1, 6], [3], [5], [7]]
    with pytest.raises(ValueError, match="document 1 has 9 tokens and a row 8"):
        fill_rows(lengths, 8)


def test_packed_documents_keep_their_labels_and_begin_anew(tokenizer):
    documents = [encode(conversation("Hm?", "word " * n + "."), tokenizer, 100) for n in (3, 5, 2)]
    packed = pack(documents, 100)
    ids, positions, labels = (tensor[0].tolist() for tensor in packed)
    place = 0
    for document in documents:
        size = len(document.input_ids)
        assert tuple(ids[place : place + size]) == document.input_ids
        assert tuple(labels[place : place + size]) == document.labels
        assert positions[place : place + size] == list(range(size))
        place += size
    assert packed.target_count == sum(document.target_count for document in documents)
    assert torch.equal(packed.targets[:, :-1], packed.labels[:, 1:])
    assert packed.targets[0, -1] == IGNORED


# Settings


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"rows": True}, "rows is True"),
        ({"rate": 0.0}, "rate is 0.0"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"rate": float("inf")}, "rate is inf"),
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"schedule": "step"}, "schedule is 'step'; choose one of cosine"),
        ({"dtype": "float8"}, "dtype is 'float8'"),
        ({"patience": 0}, "patience is 0"),
        ({"dtype": "float16", "masters": False}, "float16 without float32 masters ends in nan"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense(settings, told):
    with pytest.raises(ValueError, match=told):
        Settings(**settings)


def test_the_rate_and_the_rows_that_nobody_chose():
    assert Settings(rank=8).highest_rate == pytest.approx(10 * Settings().highest_rate)
    assert Settings(rank=8, rate=0.1).highest_rate == 0.1
    assert Settings(dtype="float16", masters=False, float16_without_masters=True).masters is False
    assert (Settings().row_length(4096), Settings().row_length(64), Settings(length=60).row_length(64)) == (512, 64, 60)
    with pytest.raises(ValueError, match="length is 65, and the model's context 64"):
        Settings(length=65).row_length(64)
