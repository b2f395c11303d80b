"""transformers' collators with our tokenizer."""

import pytest
import torch

from tests.clients.clients import TEXTS, mini, tokenizer

transformers = pytest.importorskip("transformers")


def features() -> list[dict[str, list[int]]]:
    """Encodings of several lengths, as `Dataset.map(tokenizer)` makes them."""
    return [dict(tokenizer()(text)) for text in TEXTS]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding(side):
    tokens = tokenizer()
    tokens.padding_side = side
    batch = transformers.DataCollatorWithPadding(tokens, pad_to_multiple_of=8)(features())
    longest = max(len(row["input_ids"]) for row in features())
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (len(TEXTS), -(-longest // 8) * 8)
    for row, ids, mask in zip(features(), batch["input_ids"], batch["attention_mask"], strict=True):
        assert ids[mask.bool()].tolist() == row["input_ids"]
        assert (ids[~mask.bool()] == tokens.pad_token_id).all()
        assert bool(mask[0 if side == "right" else -1])


def test_same_as_calling_with_padding():
    batch = transformers.DataCollatorWithPadding(tokenizer())(features())
    called = tokenizer()(list(TEXTS), padding=True, return_tensors="pt")
    assert set(batch) == set(called)
    assert all(torch.equal(batch[key], called[key]) for key in called)


def test_language_modelling():
    """Labels are the ids, -100 at padding; each row's loss is that of the text alone."""
    tokens = tokenizer()
    batch = transformers.DataCollatorForLanguageModeling(tokens, mlm=False)(features())
    is_padding = batch["input_ids"] == tokens.pad_token_id
    assert torch.equal(batch["labels"], batch["input_ids"].masked_fill(is_padding, -100))
    model = mini()
    with torch.no_grad():
        for index, row in enumerate(features()):
            alone = torch.tensor([row["input_ids"]])
            labels = alone.masked_fill(alone == tokens.pad_token_id, -100)
            expected = model(alone, labels=labels).loss
            one = {key: value[index : index + 1] for key, value in batch.items()}
            torch.testing.assert_close(model(**one).loss, expected, atol=1e-5, rtol=1e-5)


def test_language_modelling_with_masks_is_refused():
    """There is no mask token."""
    with pytest.raises(ValueError, match="mask"):
        transformers.DataCollatorForLanguageModeling(tokenizer(), mlm=True)


def test_seq2seq_collator_pads_labels():
    """What chat fine-tuning uses: labels of its own, padded with -100."""
    rows = [row | {"labels": [-100, *row["input_ids"][1:]]} for row in features()]
    batch = transformers.DataCollatorForSeq2Seq(tokenizer(), padding=True)(rows)
    assert batch["labels"].shape == batch["input_ids"].shape
    assert ((batch["labels"] == -100).sum(dim=1) >= (batch["attention_mask"] == 0).sum(dim=1)).all()


def test_labels_of_tokens_and_choices_are_padded():
    """Collators that call `pad` and then fill labels by its side, or take its rows apart again."""
    rows = features()
    labelled = [row | {"labels": list(range(len(row["input_ids"])))} for row in rows]
    batch = transformers.DataCollatorForTokenClassification(tokenizer())(labelled)
    for row, labels, mask in zip(labelled, batch["labels"], batch["attention_mask"], strict=True):
        assert labels[mask.bool()].tolist() == row["labels"]
        assert (labels[~mask.bool()] == -100).all()
    choice = {name: [row[name] for row in rows] for name in ("input_ids", "attention_mask")} | {"label": 1}
    batch = transformers.data.data_collator.DataCollatorForMultipleChoice(tokenizer())([choice, choice])
    together = tokenizer()(list(TEXTS), padding=True, return_tensors="pt")
    assert torch.equal(batch["input_ids"], torch.stack([together["input_ids"]] * 2))
    assert batch["labels"].tolist() == [1, 1]


def test_rows_in_one_line_are_read_apart():
    """DataCollatorWithFlattening packs without a mask, by positions that begin again: each text's loss is its own."""
    rows = [row["input_ids"] for row in features()]
    batch = transformers.DataCollatorWithFlattening()([{"input_ids": row} for row in rows])
    model = mini()
    with torch.no_grad():
        alone = [model(torch.tensor([row]), labels=torch.tensor([row])).loss * (len(row) - 1) for row in rows]
        packed = model(**batch, use_cache=False).loss
    torch.testing.assert_close(packed, sum(alone) / sum(len(row) - 1 for row in rows), atol=1e-5, rtol=1e-5)
