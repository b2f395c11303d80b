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
