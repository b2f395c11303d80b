"""Losses, and the token that a classifier looks at."""

import math

import pytest
import torch
import torch.nn.functional as F

from persimmon_lab import PersimmonForSequenceClassification
from persimmon_lab.losses import IGNORED, next_token_loss, surprisal
from tests.models import ids, tiny
from tests.parity.cases import uniform


def classifier(**overrides) -> PersimmonForSequenceClassification:
    return tiny(PersimmonForSequenceClassification, **{"pad_token_id": 0, "num_labels": 3} | overrides)


def test_each_position_is_marked_against_the_next_label():
    output = tiny()(ids(), labels=ids())
    one_by_one = [
        -output.logits[row, position].log_softmax(-1)[ids()[row, position + 1]]
        for row in range(2)
        for position in range(8)
    ]
    assert output.loss.item() == pytest.approx(torch.stack(one_by_one).mean().item(), rel=1e-6)


def test_a_count_from_outside_makes_parts_of_a_mean():
    """Batches of unequal numbers of labels, each divided by the number of all, add up to the loss of all at once."""
    labels = ids()
    labels[0, 1:5] = IGNORED
    model = tiny()
    count = (labels[:, 1:] != IGNORED).sum()
    parts = [model(ids()[row, None], labels=labels[row, None], num_items_in_batch=count).loss for row in range(2)]
    torch.testing.assert_close(sum(parts), model(ids(), labels=labels).loss)


def test_ignored_labels_do_not_count():
    labels = ids()
    labels[0, 1:] = IGNORED
    alone = tiny()(ids()[1:], labels=ids()[1:]).loss
    assert tiny()(ids(), labels=labels).loss.item() == pytest.approx(alone.item(), rel=1e-6)


def test_nothing_to_predict_is_a_loss_of_zero():
    """NaN in the peers, which poisons the weights at the next step."""
    model = tiny()
    loss = model(ids(), labels=torch.full((2, 9), IGNORED)).loss
    assert loss.item() == 0
    loss.backward()
    assert all((parameter.grad == 0).all() for parameter in model.parameters() if parameter.grad is not None)
    assert model(ids(2, 1), labels=ids(2, 1)).loss.item() == 0


@pytest.mark.parametrize("bad", [128, -1, -101])
def test_a_label_outside_the_vocabulary_is_named(bad):
    labels = ids()
    labels[1, 5] = bad
    with pytest.raises(IndexError, match=rf"label {bad} .*outside 0 … 127"):
        tiny()(ids(), labels=labels)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_float32_in_a_half_precision_model(dtype):
    output = tiny().to(dtype)(ids(), labels=ids())
    assert output.logits.dtype == dtype
    assert output.loss.dtype == torch.float32
    expected = F.cross_entropy(output.logits[:, :-1].float().flatten(0, 1), ids()[:, 1:].flatten())
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert classifier().to(dtype)(ids(), labels=torch.tensor([0, 2])).loss.dtype == torch.float32


def test_int32_ids_and_labels():
    output = tiny()(ids().int(), labels=ids().int())
    assert torch.equal(output.loss, tiny()(ids(), labels=ids()).loss)
    labels = torch.tensor([0, 2], dtype=torch.int32)
    assert torch.equal(classifier()(ids(), labels=labels).loss, classifier()(ids(), labels=labels.long()).loss)


def each_position_its_own(model: PersimmonForSequenceClassification) -> torch.Tensor:
    """Puts these hidden states (5 positions) in place of the computed ones, which alike tokens would make alike."""
    hidden = uniform("hidden", 5, 64)
    model.model.final_layernorm.register_forward_hook(lambda module, given, output: hidden[None])
    return hidden


@pytest.mark.parametrize(
    ("row", "last"),
    [
        ([5, 6, 7, 8, 9], 4),
        ([5, 6, 7, 0, 0], 2),
        ([0, 0, 7, 8, 9], 4),
        ([5, 0, 7, 0, 0], 2),  # the pad id inside the text, as when padding is the end of text: 4.37.2 reads position 0
        ([0, 6, 0, 8, 0], 3),
        ([0, 0, 0, 0, 0], 4),
    ],
)
def test_the_classifier_reads_the_rightmost_token_that_is_not_padding(row, last):
    model = classifier()
    hidden = each_position_its_own(model)
    assert torch.allclose(model(torch.tensor([row])).logits[0], model.score(hidden[last]), atol=1e-6)


def test_of_embeddings_the_classifier_reads_the_last():
    model = classifier()
    hidden = each_position_its_own(model)
    assert torch.allclose(model(inputs_embeds=torch.ones(1, 5, 64)).logits[0], model.score(hidden[4]), atol=1e-6)


def test_padded_texts_are_classified_as_they_are_alone():
    model = classifier()
    texts = [ids()[0, :4], ids()[1, :7]]
    batch = torch.stack([F.pad(text, (0, 9 - len(text))) for text in texts])
    together = model(batch, attention_mask=(batch != 0).long()).logits
    for row, text in zip(together, texts):
        assert torch.allclose(row, model(text[None]).logits[0], atol=1e-5)


def test_a_batch_without_a_pad_id_is_refused():
    model = classifier(pad_token_id=None)
    with pytest.raises(ValueError, match="pad_token_id is None"):
        model(ids())
    assert model(ids(1)).logits.shape == (1, 3)
    assert model(inputs_embeds=torch.ones(2, 4, 64)).logits.shape == (2, 3)


@pytest.mark.parametrize("bad", [3, -1])
def test_a_class_that_does_not_exist_is_named(bad):
    with pytest.raises(IndexError, match=rf"label {bad} at index \[1\] is outside 0 … 2"):
        classifier()(ids(), labels=torch.tensor([0, bad]))


@pytest.mark.parametrize(
    ("num_labels", "labels", "expected"),
    [
        (1, torch.tensor([0.5, -1.0]), lambda logits, labels: F.mse_loss(logits[:, 0], labels)),
        (1, torch.tensor([[0.5], [-1.0]]), F.mse_loss),
        (1, torch.tensor([2, 3]), lambda logits, labels: F.mse_loss(logits[:, 0], labels.float())),
        (3, torch.tensor([2, 0]), F.cross_entropy),
        (3, torch.tensor([2, IGNORED]), F.cross_entropy),
        (3, torch.tensor([IGNORED, IGNORED]), lambda logits, labels: torch.zeros(())),
        (3, torch.tensor([[1.0, 0, 1], [0, 0, 1]]), F.binary_cross_entropy_with_logits),
    ],
)
def test_the_loss_follows_from_the_labels(num_labels, labels, expected):
    output = classifier(num_labels=num_labels)(ids(), labels=labels)
    assert output.loss.item() == pytest.approx(expected(output.logits, labels).item(), rel=1e-6)


@pytest.mark.parametrize(
    ("problem_type", "labels", "expected"),
    [
        ("regression", torch.tensor([[1.0, 0, 1], [0, 0, 1]]), F.mse_loss),
        ("multi_label_classification", torch.tensor([[1, 0, 1], [0, 0, 1]]),
         lambda logits, labels: F.binary_cross_entropy_with_logits(logits, labels.float())),
    ],
)  # fmt: skip
def test_a_problem_type_decides_over_the_labels(problem_type, labels, expected):
    output = classifier(problem_type=problem_type)(ids(), labels=labels)
    assert output.loss.item() == pytest.approx(expected(output.logits, labels).item(), rel=1e-6)


def test_the_first_labels_do_not_fix_the_problem_type():
    """The peers write their guess into the configuration, so the next kind of label fails."""
    model = classifier()
    model(ids(), labels=torch.tensor([0, 2]))
    assert model.config.problem_type is None
    model(ids(), labels=torch.ones(2, 3))


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"labels of shape \(2, 2\) do not match logits of shape \(2, 3\)"):
        classifier()(ids(), labels=torch.ones(2, 2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_surprisal_is_minus_the_log_probability_at_each_position(dtype):
    logits = uniform("logits", 2, 5, 11).to(dtype)
    tokens = torch.arange(10).reshape(2, 5)
    losses = surprisal(logits, tokens)
    assert losses.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)
    expected = -logits.double().log_softmax(dim=-1).gather(-1, tokens[..., None])[..., 0]
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-6)


def test_the_loss_of_each_next_token_by_row():
    model = tiny()
    losses = next_token_loss(model, ids())
    assert losses.shape == (2, 8)
    assert torch.equal(losses, surprisal(model(ids()[:, :-1]).logits, ids()[:, 1:]))
    assert losses.mean().item() == pytest.approx(model(ids(), labels=ids()).loss.item(), rel=1e-6)


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize("shape", [(3, 6), (6, 3), (1, 18), (18,)])
def test_labels_of_as_many_numbers_in_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=rf"labels have shape \({shape[0]}.*the input \(2, 9\)"):
        tiny()(ids(), labels=ids().reshape(shape))


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.uint8])
def test_labels_that_are_no_ids_are_refused(dtype):
    with pytest.raises(TypeError, match=f"labels are {dtype}"):
        tiny()(ids(), labels=ids().to(dtype))


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize("count", [-1, math.nan, "5", True])
def test_a_count_that_is_none_is_refused(count):
    with pytest.raises(ValueError, match="num_items_in_batch is"):
        tiny()(ids(), labels=ids(), num_items_in_batch=count)


@pytest.mark.parametrize("count", [0, torch.tensor(0)])
def test_a_step_in_which_nothing_counts_has_no_loss(count):
    """As in a batch; 0 / 0 would teach nan to every weight."""
    labels = torch.full_like(ids(), IGNORED)
    assert tiny()(ids(), labels=labels, num_items_in_batch=count).loss.item() == 0
    assert classifier()(ids(), labels=torch.tensor([IGNORED, IGNORED]), num_items_in_batch=count).loss.item() == 0


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize("labels", [torch.tensor([[0.0, 1.0]]), torch.tensor([[0, 1]])], ids=["floats", "integers"])
def test_numbers_of_another_row_are_no_regression(labels):
    """torch would spread one row of two over two rows of one, and take the mean of all four."""
    with pytest.raises(ValueError, match=r"labels of shape \(1, 2\) do not match logits of shape \(2, 1\)"):
        classifier(num_labels=1)(ids(), labels=labels)


@pytest.mark.usefixtures("unchecked_annotations")
def test_too_few_classes_are_refused():
    with pytest.raises(ValueError, match=r"labels of shape \(1,\) for 2 rows"):
        classifier()(ids(), labels=torch.tensor([0]))


def test_a_row_that_is_read_where_the_mask_hides_it_is_told_of():
    """transformers reads there as well; what is right is the row alone, or the same row filled with the pad id."""
    model, mask = classifier(), torch.ones(2, 9, dtype=torch.int64)
    mask[1, 6:] = 0
    padded = ids().masked_fill(mask == 0, 0)
    alone = model(padded[1:, :6]).logits[0]
    torch.testing.assert_close(model(padded, attention_mask=mask).logits[1], alone)
    with pytest.warns(UserWarning, match="row 1 is classified by its position 8, which attention_mask hides"):
        filled_otherwise = model(ids(), attention_mask=mask).logits[1]
    assert not torch.allclose(filled_otherwise, alone, atol=1e-3)
    with pytest.warns(UserWarning, match="row 1 is classified by its position 8"):
        model(inputs_embeds=model.get_input_embeddings()(padded), attention_mask=mask)
