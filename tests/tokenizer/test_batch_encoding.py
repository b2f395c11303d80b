"""Rows of ids: padding, truncation, tensors, masks and offsets."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from transformers import AutoTokenizer

from persimmon_lab.tokenizer import PersimmonTokenizer
from tests.tokenizer.texts import FOLDER, TOKENIZER, texts, texts_with_special_tokens, thorough

END = TOKENIZER.eos_token_id
SHORT, LONG = "love", "Love is not love which alters"
SHORT_IDS, LONG_IDS = TOKENIZER.encode(SHORT), TOKENIZER.encode(LONG)
GAP = len(LONG_IDS) - len(SHORT_IDS)


def test_one_text_gives_a_row_and_several_give_rows():
    one, several = TOKENIZER(SHORT), TOKENIZER([SHORT, LONG])
    assert list(one) == list(several) == ["input_ids", "attention_mask"]
    assert one.input_ids == one["input_ids"] == SHORT_IDS
    assert one.attention_mask == [1] * len(SHORT_IDS)
    assert several.input_ids == [SHORT_IDS, LONG_IDS]
    assert several.attention_mask == [[1] * len(SHORT_IDS), [1] * len(LONG_IDS)]
    assert TOKENIZER([], return_offsets_mapping=True) == {"input_ids": [], "attention_mask": [], "offset_mapping": []}


@pytest.mark.parametrize("padding", [True, "longest"])
def test_padding_to_the_longest(padding):
    left = TOKENIZER([SHORT, LONG], padding=padding)
    assert left.input_ids == [[END] * GAP + SHORT_IDS, LONG_IDS]
    assert left.attention_mask == [[0] * GAP + [1] * len(SHORT_IDS), [1] * len(LONG_IDS)]
    right = TOKENIZER([SHORT, LONG], padding=padding, padding_side="right")
    assert right.input_ids == [SHORT_IDS + [END] * GAP, LONG_IDS]
    assert right.attention_mask == [[1] * len(SHORT_IDS) + [0] * GAP, [1] * len(LONG_IDS)]


def test_padding_takes_the_side_and_the_token_of_the_tokenizer():
    tokenizer = PersimmonTokenizer(FOLDER / "tokenizer.model", padding_side="right", pad_token="<unk>")
    assert tokenizer([SHORT, LONG], padding=True).input_ids[0] == SHORT_IDS + [0] * GAP


def test_padding_to_a_length():
    length = len(LONG_IDS) + 2
    padded = TOKENIZER([SHORT, LONG], padding="max_length", max_length=length)
    assert padded.input_ids == [[END] * (GAP + 2) + SHORT_IDS, [END, END, *LONG_IDS]]
    both = TOKENIZER([SHORT, LONG], padding="max_length", truncation=True, max_length=4, return_tensors="pt")
    assert both.input_ids.tolist() == [[END] * (4 - len(SHORT_IDS)) + SHORT_IDS, LONG_IDS[:4]]
    assert TOKENIZER(SHORT, padding="max_length", max_length=4).input_ids == both.input_ids[0].tolist()


def test_truncation_keeps_bos_and_eos():
    assert TOKENIZER(LONG, truncation=True, max_length=4).input_ids == LONG_IDS[:4]
    assert TOKENIZER(SHORT, truncation=True, max_length=100).input_ids == SHORT_IDS
    ends = PersimmonTokenizer(FOLDER / "tokenizer.model", add_eos_token=True, model_max_length=5)
    assert ends(LONG, truncation=True).input_ids == [*LONG_IDS[:4], END]
    assert ends(LONG, truncation=True, max_length=2).input_ids == [END, END]
    assert ends(LONG, truncation=True, max_length=2, add_special_tokens=False).input_ids == LONG_IDS[1:3]
    row = ends(LONG, truncation=True, return_offsets_mapping=True)
    assert len(row.offset_mapping) == len(row.input_ids) == 5


def test_tensors():
    encoding = TOKENIZER([SHORT, LONG], padding=True, return_tensors="pt")
    assert encoding.input_ids.shape == encoding.attention_mask.shape == (2, len(LONG_IDS))
    assert encoding.input_ids.dtype == encoding.attention_mask.dtype == torch.int64
    one = TOKENIZER(SHORT, return_tensors="pt", return_offsets_mapping=True)
    assert one.input_ids.tolist() == [SHORT_IDS]
    assert one.offset_mapping.shape == (1, len(SHORT_IDS), 2)
    empty = TOKENIZER("", return_tensors="pt", add_special_tokens=False)
    assert (empty.input_ids.shape, empty.input_ids.dtype) == ((1, 0), torch.int64)


def test_an_encoding_is_a_dict_with_attributes():
    encoding = TOKENIZER(SHORT, return_tensors="pt")

    def model(input_ids, attention_mask):
        return input_ids, attention_mask

    assert model(**encoding)[0] is encoding.input_ids
    assert encoding.to("meta") is encoding
    assert encoding.input_ids.device.type == encoding.attention_mask.device.type == "meta"
    assert pickle.loads(pickle.dumps(TOKENIZER(SHORT))).input_ids == SHORT_IDS
    with pytest.raises(AttributeError, match="no 'offset_mapping', only"):
        _ = encoding.offset_mapping


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"return_tensors": "pt"},
            f"of {len(SHORT_IDS)} to {len(LONG_IDS)} tokens do not make one tensor; pass padding",
        ),
        ({"return_tensors": "np"}, "return_tensors='np': expected 'pt'"),
        ({"padding": "most"}, "padding='most': expected True, 'longest', 'max_length' or False"),
        ({"padding": True, "pad_to_multiple_of": 0}, "pad_to_multiple_of=0: expected a whole number from 1 on"),
        ({"truncation": "most", "max_length": 3}, "truncation='most': expected True, 'longest_first', 'only_first'"),
        ({"truncation": "do_not_truncate", "max_length": 3}, "max_length=3 does nothing alone"),
        ({"padding": True, "padding_side": "top"}, "padding_side='top': expected 'left' or 'right'"),
        ({"padding": "max_length"}, "padding='max_length' needs a max_length"),
        ({"truncation": True}, "truncation=True needs a max_length"),
        ({"max_length": 5}, "max_length=5 does nothing alone"),
        ({"truncation": True, "max_length": 0}, "max_length=0 has no room for the 1 special tokens"),
    ],
)
def test_what_cannot_be_made_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TOKENIZER([SHORT, LONG], **options)


def test_padding_to_a_multiple():
    padded = TOKENIZER([SHORT, LONG], padding=True, pad_to_multiple_of=8, return_tensors="pt")
    assert len(LONG_IDS) % 8 and padded.input_ids.shape == (2, -(-len(LONG_IDS) // 8) * 8)
    assert TOKENIZER(SHORT, padding="max_length", max_length=9, pad_to_multiple_of=4).attention_mask == (
        [0] * (12 - len(SHORT_IDS)) + [1] * len(SHORT_IDS)
    )


def test_the_words_of_transformers_for_truncation():
    for word in ("longest_first", "only_first"):
        assert TOKENIZER(LONG, truncation=word, max_length=4).input_ids == LONG_IDS[:4]
    assert TOKENIZER(LONG, truncation="do_not_truncate") == TOKENIZER(LONG, truncation=None) == TOKENIZER(LONG)


def test_no_mask_on_request():
    assert list(TOKENIZER([SHORT, LONG], padding=True, return_attention_mask=False)) == ["input_ids"]


# Encodings made before


FEATURES = [{"input_ids": SHORT_IDS, "labels": [1, 2]}, {"input_ids": LONG_IDS, "labels": [3, 4]}]


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    TOKENIZER.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "longest", "pad_to_multiple_of": 8},
        {"padding": "max_length", "max_length": 20},
        {"padding": "max_length", "max_length": 3, "pad_to_multiple_of": 5},
        {"padding": "do_not_pad"},
        {"return_attention_mask": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_that_of_transformers(peer, options, side):
    masked = [{**feature, "attention_mask": [1] * (len(feature["input_ids"]) - 1) + [0]} for feature in FEATURES]
    marked = [{**feature, "special_tokens_mask": [0] * len(feature["input_ids"])} for feature in FEATURES]
    together = {key: [feature[key] for feature in FEATURES] for key in FEATURES[0]}
    for features in (FEATURES, masked, marked, together, FEATURES[0], FEATURES[:1]):
        theirs = peer.pad(copy.deepcopy(features), padding_side=side, **options)
        assert TOKENIZER.pad(features, padding_side=side, **options) == dict(theirs)


def test_tensors_of_padded_encodings(peer):
    floats = [{**feature, "score": index / 2} for index, feature in enumerate(FEATURES)]
    theirs, ours = (one.pad(copy.deepcopy(floats), return_tensors="pt") for one in (peer, TOKENIZER))
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) and ours[key].dtype == theirs[key].dtype for key in ours)
    rows = [{key: torch.tensor(value) for key, value in feature.items()} for feature in FEATURES]
    assert torch.equal(TOKENIZER.pad(rows, return_tensors="pt").input_ids, ours.input_ids)
    assert torch.equal(TOKENIZER.pad(rows, return_tensors="pt").labels, ours.labels)
    assert list(TOKENIZER.pad(FEATURES, return_attention_mask=False)) == ["input_ids", "labels"]
    assert FEATURES[0] == {"input_ids": SHORT_IDS, "labels": [1, 2]}  # what was given stays


@pytest.mark.parametrize(
    ("features", "options", "error", "message"),
    [
        ([{"labels": [1]}], {}, ValueError, r"padding needs input_ids, and these encodings have \['labels'\]"),
        ([SHORT_IDS], {}, TypeError, "expected encodings to pad|encoded_inputs"),
        ([*FEATURES, {"input_ids": [1]}], {}, ValueError, "some of the 3 encodings have 'labels' and some have not"),
        ([{"input_ids": [1, 2], "attention_mask": [1]}], {}, ValueError, "rows of different lengths"),
        (FEATURES, {"padding": "most"}, ValueError, "padding='most': expected"),
        (FEATURES, {"padding": False, "return_tensors": "pt"}, ValueError, "do not make one tensor; pass padding"),
        (FEATURES, {"return_tensors": "np"}, ValueError, "expected 'pt'"),
        (
            [{"input_ids": [1], "labels": [1]}, {"input_ids": [1], "labels": [1, 2]}],
            {"return_tensors": "pt"},
            ValueError,
            "'labels' does not make one tensor .* pad it yourself",
        ),
    ],
)
def test_what_cannot_be_padded_is_refused(features, options, error, message):
    with pytest.raises(error, match=message):
        TOKENIZER.pad(features, **options)


# Offsets


@thorough
@given(texts)
def test_offsets_say_where_each_piece_stands(text):
    encoding = TOKENIZER(text, return_offsets_mapping=True, add_special_tokens=False)
    assert encoding.input_ids == TOKENIZER.encode(text, add_special_tokens=False)
    reached, pending = 0, b""
    for index, (start, end) in zip(encoding.input_ids, encoding.offset_mapping):
        data = TOKENIZER.id_to_bytes(index)
        if TOKENIZER.sp_model.is_byte(index):
            pending += data
            assert (start, end) == (reached, reached + 1)
            if len(pending) == len(text[start:end].encode("utf-8")):
                assert pending == text[start:end].encode("utf-8")
                reached, pending = end, b""
        else:
            stands_for = text[start:end].replace("\u2581", " ").encode("utf-8")
            # The first piece may begin with the space that sentencepiece puts before every text.
            assert data == stands_for or (start == 0 and data == b" " + stands_for)
            assert start == reached and not pending
            reached = end
    assert reached == len(text)


def test_offsets_of_special_tokens():
    ends = PersimmonTokenizer(FOLDER / "tokenizer.model", add_eos_token=True)
    row = ends("a<s>\u67ff", return_offsets_mapping=True, parse_special=True)
    assert ends.convert_ids_to_tokens(row.input_ids) == [
        *("|ENDOFTEXT|", "\u2581a", "<s>", "\u2581", "<0xE6>", "<0x9F>", "<0xBF>", "|ENDOFTEXT|"),
    ]
    assert row.offset_mapping == [(0, 0), (0, 1), (1, 4), (4, 4), (4, 5), (4, 5), (4, 5), (0, 0)]
    padded = TOKENIZER(["a", "a a a"], padding=True, return_offsets_mapping=True)
    assert padded.offset_mapping == [[(0, 0), (0, 0), (0, 0), (0, 1)], [(0, 0), (0, 1), (1, 3), (3, 5)]]


@thorough
@given(texts_with_special_tokens)
def test_offsets_cover_the_text(text):
    for parse_special in (False, True):
        row = TOKENIZER(text, parse_special=parse_special, return_offsets_mapping=True)
        assert row.input_ids == TOKENIZER.encode(text, parse_special=parse_special)
        spans = sorted({span for span in row.offset_mapping if span[0] < span[1]})
        assert [start for start, _ in spans] == [0, *(end for _, end in spans)][: len(spans)]
        assert not text or spans[-1][1] == len(text)


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize("length", [2.5, "3", True, 1e30])
def test_lengths_are_whole_numbers(length):
    tokenizer = copy.deepcopy(TOKENIZER)
    with pytest.raises(ValueError, match="max_length=.*: expected a whole number of tokens"):
        tokenizer(LONG, truncation=True, max_length=length)
    with pytest.raises(ValueError, match="max_length=.*: expected a whole number of tokens"):
        tokenizer(LONG, padding="max_length", max_length=length)
    tokenizer.model_max_length = length
    with pytest.raises(ValueError, match="max_length=.*: expected a whole number of tokens"):
        tokenizer(LONG, truncation=True)
    with pytest.raises(ValueError, match="pad_to_multiple_of"):
        tokenizer(LONG, padding=True, pad_to_multiple_of=2.5)


def test_a_side_to_cut_on_that_nothing_follows_is_refused():
    """It was kept, and texts were cut on the right all the same."""
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.truncation_side = "right"
    with pytest.raises(ValueError, match="truncation_side='left': texts are cut on the right"):
        tokenizer.truncation_side = "left"
    assert tokenizer(LONG, truncation=True, max_length=3).input_ids == LONG_IDS[:3]
