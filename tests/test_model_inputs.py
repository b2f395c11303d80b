"""What a model accepts, what it refuses and what it answers in."""

import math

import pytest
import torch

from persimmon_lab import PersimmonConfig, PersimmonForSequenceClassification, PersimmonModel
from tests.models import ids, tiny
from tests.tolerances import TOLERANCE


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.mark.parametrize("given", [{}, {"input_ids": ids(), "inputs_embeds": torch.zeros(2, 9, 64)}])
@pytest.mark.parametrize("head", [PersimmonModel, PersimmonForSequenceClassification])
def test_ids_or_embeddings_but_not_both(head, given):
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        tiny(head)(**given)


def test_embeddings_of_the_ids_give_the_same(model):
    by_ids = model(ids()).logits
    assert torch.equal(model(inputs_embeds=model.get_input_embeddings()(ids())).logits, by_ids)


@pytest.mark.parametrize("bad", [128, -1])
def test_a_token_outside_the_vocabulary_is_named(model, bad):
    wrong = ids()
    wrong[1, 4] = bad
    with pytest.raises(IndexError, match=rf"token id {bad} at index \[1, 4\] is outside 0 … 127"):
        model(wrong)


@pytest.mark.parametrize("bad", [64, -1])
def test_a_position_outside_the_table_is_named(model, bad):
    positions = torch.arange(9)[None].clone()
    positions[0, 3] = bad
    with pytest.raises(IndexError, match=rf"position id {bad} at index \[0, 3\] is outside 0 … 63"):
        model(ids(), position_ids=positions)


def test_positions_may_go_as_far_as_the_input_does(model):
    long = ids(1, 70)
    assert torch.equal(model(long, position_ids=torch.arange(70)[None]).logits, model(long).logits)


def test_positions_for_another_length_are_refused(model, unchecked_annotations):
    with pytest.raises(ValueError, match="position_ids name 8 positions, the input has 9"):
        model(ids(), position_ids=torch.arange(8)[None])


@pytest.mark.parametrize("length", [4, 8, 10])
def test_a_mask_of_another_length_is_refused(model, length):
    with pytest.raises(ValueError, match=rf"attention_mask has shape \(2, {length}\).*positions 9"):
        model(ids(), attention_mask=torch.ones(2, length, dtype=torch.long))


def test_a_mask_must_cover_what_is_cached(model):
    past = model(ids()).past_key_values
    with pytest.raises(ValueError, match="positions 11.*9 are in the cache"):
        model(ids(2, 2), past_key_values=past, attention_mask=torch.ones(2, 2, dtype=torch.long))


def test_unknown_arguments_are_refused(model):
    with pytest.raises(TypeError, match="head_mask"):
        model(ids(), head_mask=None)


@pytest.mark.parametrize("keep", [1, 4, 9])
def test_only_the_last_logits_when_asked(model, keep):
    whole = model(ids()).logits
    assert torch.allclose(model(ids(), logits_to_keep=keep).logits, whole[:, -keep:], atol=1e-6)


def test_labels_need_every_logit(model):
    with pytest.raises(ValueError, match="logits_to_keep is 1"):
        model(ids(), labels=ids(), logits_to_keep=1)


def test_one_answer_in_every_form(model):
    output = model(ids(), labels=ids(), output_hidden_states=True)
    assert list(output.keys()) == ["loss", "logits", "past_key_values", "hidden_states"]
    assert output["logits"] is output.logits is output[1]
    loss, logits, *_ = model(ids(), labels=ids(), return_dict=False)
    assert torch.equal(loss, output.loss)
    assert torch.equal(logits, output.logits)
    assert "attentions" not in output
    assert output.attentions is None


def test_a_tuple_leaves_out_what_is_missing(model):
    assert len(model(ids(), use_cache=False, return_dict=False)) == 1
    assert len(model(ids(), return_dict=False)) == 2
    assert len(model.model(ids(), return_dict=False, output_attentions=True, output_hidden_states=True)) == 4


def test_the_configuration_answers_where_the_call_does_not():
    loud = tiny(output_attentions=True, output_hidden_states=True, use_cache=False)
    assert list(loud(ids()).keys()) == ["logits", "hidden_states", "attentions"]
    assert list(loud(ids(), output_attentions=False, output_hidden_states=False).keys()) == ["logits"]
    assert isinstance(tiny(return_dict=False)(ids()), tuple)


def test_attentions_under_sdpa_come_from_eager(model):
    """The fused kernel has none; the peers return an empty tuple."""
    assert model.config.attn_implementation == "sdpa"
    asked = model(ids(), output_attentions=True)
    eager = tiny(attn_implementation="eager")(ids(), output_attentions=True)
    assert len(asked.attentions) == 2
    for ours, theirs in zip(asked.attentions, eager.attentions):
        assert torch.equal(ours, theirs)
    assert model(ids()).attentions is None


def test_the_attention_implementation_can_be_chosen_later(model):
    changed = tiny().set_attn_implementation("eager")
    assert changed.model.config.attn_implementation == "eager"
    with pytest.raises(ValueError, match="flash_attention_2"):
        changed.set_attn_implementation("flash_attention_2")


def test_last_hidden_state_is_the_last_of_the_hidden_states():
    body = tiny(PersimmonModel)
    output = body(ids(), output_hidden_states=True)
    assert len(output.hidden_states) == 3
    assert output.hidden_states[-1] is output.last_hidden_state
    assert torch.equal(output.hidden_states[0], body.embed_tokens(ids()))


def test_a_row_does_not_depend_on_its_neighbours(model):
    both = model(ids()).logits
    # A matrix product of another height may sum in another order.
    assert torch.allclose(model(ids()[1:]).logits, both[1:], atol=TOLERANCE[torch.float32])


def test_an_odd_rotary_width_is_refused_at_once():
    with pytest.raises(ValueError, match=r"rotary width 5 is odd \(head_dim 10 x partial_rotary_factor 0.5\)"):
        PersimmonConfig.tiny(hidden_size=40)


# Numbers that mean something else than what they are taken for


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize("kept", [-1, -3, True, 2.0, None, "2", torch.tensor([0, 2])], ids=repr)
def test_a_number_of_logits_that_is_none_is_refused(model, kept):
    """-1 would be the last eight of nine."""
    with pytest.raises(ValueError, match="logits_to_keep is"):
        model(ids(), logits_to_keep=kept)


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize("hidden", [-1e9, -math.inf, math.nan, -1.0])
def test_a_mask_that_is_added_to_scores_is_refused(model, hidden):
    """Its 0 is what is seen, and ours is what is hidden."""
    mask = torch.zeros(2, 9)
    mask[0, :3] = hidden
    with pytest.raises(ValueError, match="attention_mask holds .*give 1 for text and 0 for padding"):
        model(ids(), attention_mask=mask)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.int8, torch.float16, torch.float32])
def test_a_mask_of_ones_and_zeros_may_be_of_any_dtype(model, dtype):
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[0, :3] = 0
    assert torch.equal(model(ids(), attention_mask=mask.to(dtype)).logits, model(ids(), attention_mask=mask).logits)


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_positions_that_are_no_whole_numbers_are_refused(model, dtype):
    with pytest.raises(TypeError, match=f"position_ids are {dtype}"):
        model(ids(), position_ids=torch.arange(9)[None].to(dtype))


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"input_ids": ids().tolist()}, TypeError, "input_ids is a list; give a tensor"),
        ({"input_ids": "text"}, TypeError, "input_ids is a str"),
        ({"input_ids": ids()[0]}, ValueError, r"input_ids has shape \(9,\); give \(batch, position\)"),
        ({"input_ids": ids()[None]}, ValueError, r"input_ids has shape \(1, 2, 9\)"),
        ({"inputs_embeds": torch.zeros(9, 64)}, ValueError, r"inputs_embeds has shape \(9, 64\); give \(.*64\)"),
        ({"inputs_embeds": torch.zeros(1, 9, 32)}, ValueError, r"inputs_embeds has shape \(1, 9, 32\)"),
        ({"input_ids": ids(), "attention_mask": [[1] * 9] * 2}, TypeError, "attention_mask is a list"),
        ({"input_ids": ids(), "attention_mask": torch.ones(9)}, ValueError, r"attention_mask has shape \(9,\)"),
        ({"input_ids": ids(), "position_ids": [[1] * 9]}, TypeError, "position_ids is a list"),
        ({"input_ids": ids(), "position_ids": torch.arange(9)}, ValueError, r"position_ids has shape \(9,\)"),
        (
            {"input_ids": ids(), "position_ids": torch.zeros(3, 9, dtype=torch.int64)},
            ValueError,
            r"position_ids has shape \(3, 9\)",
        ),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value),
)
def test_other_things_are_refused_by_name(model, given, error, told):
    with pytest.raises(error, match=told):
        model(**given)
