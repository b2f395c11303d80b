"""Inputs that once went wrong in silence, and what is right."""

import math
import re

import pytest
import torch

from persimmon_lab import PersimmonConfig
from persimmon_lab.cache import DynamicCache, StaticCache
from persimmon_lab.generation import score_tokens
from tests.models import ids, tiny

SCALED = {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 16}
ENGINES = ["plain", "fast"]


# Chunks


def unremembering():
    """In training mode a model that recomputes its layers keeps no cache."""
    model = tiny(eos_token_id=None)
    model.gradient_checkpointing_enable()
    return model.train()


@pytest.mark.filterwarnings("ignore:gradient checkpointing keeps no cache")
def test_chunks_of_a_model_that_keeps_no_cache_are_refused():
    with pytest.raises(ValueError, match="before position 4 would be forgotten.*gradient_checkpointing_disable"):
        unremembering().generate(ids(), max_new_tokens=3, prefill_chunk_size=4, engine="plain")
    scores = score_tokens(unremembering(), ids(), chunk_size=4, engine="plain").tokens  # in evaluation mode
    torch.testing.assert_close(scores, score_tokens(unremembering(), ids(), engine="plain").tokens)
    whole = unremembering().generate(ids(), max_new_tokens=3, engine="plain")
    assert torch.equal(whole, unremembering().eval().generate(ids(), max_new_tokens=3))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("length", [9, 16, 25])
def test_dynamic_scaling_has_one_base_for_the_whole_prompt(engine, length):
    model, text = tiny(eos_token_id=None, **SCALED), ids(2, length)
    whole = score_tokens(model, text, engine=engine).tokens
    assert (score_tokens(model, text, engine=engine, chunk_size=4).tokens - whole).abs().max() < 2e-5
    log_probs = model(text).logits.log_softmax(dim=-1)[:, :-1]
    assert (whole - log_probs.gather(2, text[:, 1:, None])[..., 0]).abs().max() < 2e-5
    written = model.generate(text, max_new_tokens=4, engine=engine)
    assert torch.equal(model.generate(text, max_new_tokens=4, engine=engine, prefill_chunk_size=4), written)


# Windows


@pytest.mark.parametrize(("window", "stride"), [(10, None), (10, 3), (10, 9), (2, 1), (50, 7)])
@pytest.mark.parametrize("length", [1, 2, 10, 11, 37])
def test_a_window_is_read_as_a_text_of_its_own(window, stride, length):
    model, text = tiny(), ids(2, length)
    scores = score_tokens(model, text, token_set=[5, 6], window=window, stride=stride)
    assert scores.tokens.shape == (2, length - 1)
    assert scores.token_set.shape == (2, length, 2)
    step = window // 2 if stride is None else stride
    for column in range(length):
        start = step * max(0, math.ceil((column + 2 - window) / step))  # of the first window with what follows in it
        if column < length - 1:
            alone = score_tokens(model, text[:, start : column + 2]).tokens[:, -1]
            assert (scores.tokens[:, column] - alone).abs().max() < 2e-5
        start = step * max(0, math.ceil((column + 1 - window) / step))
        alone = score_tokens(model, text[:, start : column + 1], token_set=[5, 6]).token_set[:, -1]
        assert (scores.token_set[:, column] - alone).abs().max() < 2e-5


def test_windows_of_padded_rows_count_nothing_at_padding():
    model, text = tiny(), ids(1, 20)
    padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), text], dim=1)
    mask = (torch.arange(25) >= 5).long()[None]
    scores = score_tokens(model, padded, mask, window=8, stride=7).tokens
    assert torch.equal(scores[:, :5], torch.zeros(1, 5))
    assert scores[:, 5:].lt(0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"window": 1}, "window=1"), ({"window": 8, "stride": 8}, "stride=8"), ({"window": 8, "stride": 0}, "stride=0"),
     ({"stride": 3}, "pass window=")],
)  # fmt: skip
def test_windows_that_leave_something_out_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        score_tokens(tiny(), ids(), **options)


def test_a_text_beyond_the_context_is_read_with_a_warning():
    model = tiny()
    with pytest.warns(UserWarning, match="pass window=64"):
        score_tokens(model, ids(1, 70))
    with pytest.warns(UserWarning, match="longer than the 64 positions"):
        model(ids(1, 70))


# Settings and rows


@pytest.mark.parametrize("top_k", [-1, -50])
def test_a_negative_top_k_is_no_greedy_decoding(top_k):
    with pytest.raises(ValueError, match=f"top_k={top_k}"):
        tiny().generate(ids(), do_sample=True, top_k=top_k)


def test_no_rows_are_told():
    with pytest.raises(ValueError, match=r"shape \(0, 9\): give at least one row"):
        tiny().generate(ids()[:0])
    with pytest.raises(ValueError, match=r"shape \(0, 9\): give at least one row"):
        score_tokens(tiny(), ids()[:0])


@pytest.mark.parametrize(("bos", "warns"), [(7, True), (1, True), (None, True)])
def test_padding_that_also_means_something_else_wants_a_mask(bos, warns):
    model = tiny(bos_token_id=bos, eos_token_id=7, pad_token_id=7)
    padded = torch.cat([torch.full((2, 3), 7), ids()], dim=1)
    with pytest.warns(UserWarning, match="begins with pad_token_id 7"):
        model.generate(padded, max_new_tokens=1)


@pytest.mark.filterwarnings("error")
def test_one_bos_before_the_text_is_no_padding():
    model = tiny(bos_token_id=7, eos_token_id=7, pad_token_id=7)
    model.generate(torch.cat([torch.full((2, 1), 7), ids()], dim=1), max_new_tokens=1)
    model.generate(torch.full((1, 1), 7), max_new_tokens=1)
    padded = torch.cat([torch.full((2, 3), 7), ids()], dim=1)
    model.generate(padded, attention_mask=(torch.arange(12) >= 3).long().expand(2, -1), max_new_tokens=1)


# What the caller brings


def nothing_left(token_ids, scores):
    return torch.full_like(scores, -math.inf)


def not_a_number(token_ids, scores):
    return scores.masked_fill(torch.arange(scores.shape[1]) == 3, math.nan)


def of_another_shape(token_ids, scores):
    return scores[:, :5]


@pytest.mark.parametrize("settings", [{}, {"do_sample": True, "seed": 0}, {"num_beams": 2}])
@pytest.mark.parametrize(
    ("processor", "error", "message"),
    [(nothing_left, ValueError, "nothing_left removed every token of row 0"),
     (not_a_number, FloatingPointError, "not_a_number gave nan or infinity in row 0"),
     (of_another_shape, ValueError, r"of_another_shape returned \(\d, 5\)")],
)  # fmt: skip
def test_a_processor_that_breaks_the_scores_is_named(processor, error, message, settings):
    with pytest.raises(error, match=message):
        tiny().generate(ids(), logits_processor=[processor], max_new_tokens=2, **settings)


def test_ngrams_that_leave_nothing_are_told():
    with pytest.raises(ValueError, match="no_repeat_ngram_size=1 removed every token"):
        tiny(vocab_size=12, eos_token_id=None).generate(
            torch.arange(3, 12)[None], max_new_tokens=9, no_repeat_ngram_size=1
        )


def test_criteria_end_rows():
    model = tiny(eos_token_id=None, pad_token_id=0)
    free = model.generate(ids(), max_new_tokens=6)
    all_at_once = model.generate(ids(), max_new_tokens=6, stopping_criteria=[lambda text, scores: text.shape[1] == 11])
    assert torch.equal(all_at_once, free[:, :11])
    first_row = [lambda text, scores: torch.tensor([text.shape[1] >= 11, False])]
    one_by_one = model.generate(ids(), max_new_tokens=6, stopping_criteria=first_row)
    assert torch.equal(one_by_one[1], free[1])
    assert one_by_one[0].tolist() == [*free[0, :11].tolist(), 0, 0, 0, 0]
    chosen = []
    model.generate(ids(), max_new_tokens=2, stopping_criteria=[lambda text, scores: chosen.append(scores) or False])
    assert [scores.shape for scores in chosen] == [(2, 128)] * 2


class Recorder:
    def __init__(self):
        self.calls = []

    def put(self, value):
        self.calls.append(value.tolist())

    def end(self):
        self.calls.append("end")


def test_a_streamer_is_told_everything_in_order():
    model, recorder = tiny(eos_token_id=None), Recorder()
    written = model.generate(ids(1), max_new_tokens=3, streamer=recorder)
    assert recorder.calls == [ids(1).tolist(), *written[0, 9:, None].tolist(), "end"]
    stopped = Recorder()
    model.generate(ids(1), max_new_tokens=3, streamer=stopped, on_token=lambda step: True)
    assert stopped.calls == [*recorder.calls[:2], "end"]
    with pytest.raises(ValueError, match="num_beams=2"):
        model.generate(ids(1), max_new_tokens=3, streamer=Recorder(), num_beams=2)


def test_the_prompt_by_either_name():
    model = tiny()
    written = model.generate(ids(), max_new_tokens=2)
    assert torch.equal(model.generate(inputs=ids(), max_new_tokens=2), written)
    assert torch.equal(model.generate(input_ids=ids(), max_new_tokens=2), written)
    with pytest.raises(ValueError, match="two names of the prompt"):
        model.generate(ids(), input_ids=ids())


# The end


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}, {"do_sample": True, "seed": 0}])
def test_no_end_before_the_least_new_tokens(settings):
    """Every id but one ends the text."""
    model = tiny(vocab_size=12, eos_token_id=None)
    ends = list(range(3, 12))
    first = {"max_new_tokens": 6, "eos_token_id": ends, **settings}
    assert model.generate(torch.arange(3, 9)[None], **first).shape[1] <= 7 + 5
    longer = model.generate(torch.arange(3, 9)[None], min_new_tokens=4, **first)
    assert not set(longer[0, 6:10].tolist()) & set(ends)
    by_length = model.generate(torch.arange(3, 9)[None], min_length=10, **first)
    assert torch.equal(by_length, longer), "min_length counts the prompt"


def test_the_least_is_as_in_the_peer(twins):
    ours, theirs = twins(eos_token_id=list(range(3, 90)), pad_token_id=0)
    text = torch.randint(3, 128, (2, 7), generator=torch.Generator().manual_seed(5))
    settings = {"max_new_tokens": 8, "min_new_tokens": 5, "attention_mask": torch.ones_like(text)}
    assert torch.equal(ours.generate(text, **settings), theirs.generate(text, do_sample=False, **settings))


# Caches of other rows and other numbers


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "kind", [lambda: None, DynamicCache, lambda: StaticCache(40)], ids=["own", "dynamic", "static"]
)
def test_a_cache_of_other_rows_is_refused_and_stays_as_it_was(engine, kind):
    """The rows of a StaticCache would all be given the keys of a single one."""
    model = tiny(eos_token_id=None)
    given = kind()
    wanted = model.generate(ids(3), max_new_tokens=6, engine=engine)
    first = model.generate(
        ids(3), max_new_tokens=2, past_key_values=given, return_dict_in_generate=True, engine=engine
    )  # fmt: skip
    cache = first.past_key_values
    with pytest.raises(ValueError, match="past_key_values hold 3 rows and the input has 1"):
        model.generate(first.sequences[:1], max_new_tokens=2, past_key_values=cache, engine=engine)
    with pytest.raises(ValueError, match="past_key_values hold 3 rows and the input has 1"):
        model(first.sequences[:1, -1:], past_key_values=cache)
    going_on = model.generate(first.sequences, max_new_tokens=4, past_key_values=cache, engine=engine)
    assert torch.equal(going_on, wanted)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("theirs", "ours"), [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)])
def test_a_cache_of_another_dtype_is_refused(engine, theirs, ours):
    """The fast engine would round the new keys to bfloat16 in silence."""
    first = tiny().to(theirs).generate(ids(), max_new_tokens=2, return_dict_in_generate=True, engine=engine)
    with pytest.raises(ValueError, match=f"past_key_values are {theirs} and the model is {ours}"):
        tiny().to(ours).generate(
            first.sequences, max_new_tokens=2, past_key_values=first.past_key_values, engine=engine
        )  # fmt: skip


# Scores


@pytest.mark.usefixtures("unchecked_annotations")
def test_a_mask_says_what_counts_whatever_its_numbers_are():
    """A 2 was counted as two positions: other rotations, other scores."""
    mask = torch.ones_like(ids())
    mask[0, :3] = 0
    wanted = score_tokens(tiny(), ids(), mask).tokens
    for given in (mask * 2, mask.bool(), mask.float(), mask.tolist()):
        assert torch.equal(score_tokens(tiny(), ids(), given).tokens, wanted)
    with pytest.raises(ValueError, match="attention_mask holds -1000000000.0"):
        score_tokens(tiny(), ids(), (1.0 - mask) * -1e9)
    with pytest.raises(ValueError, match=r"attention_mask is \(2, 3\) but the ids are \(2, 9\)"):
        score_tokens(tiny(), ids(), mask[:, :3])


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize(
    ("token_set", "error", "told"),
    [
        ([-1], IndexError, "token id of token_set -1"),  # the last one of the vocabulary
        ([128], IndexError, "token id of token_set 128"),
        (5, ValueError, "token_set is 5; give one row of ids"),  # one id at each position, spread over all positions
        ([[1, 2]], ValueError, "give one row of ids"),
        ([], ValueError, "give one row of ids"),
        ([1.5], TypeError, "give the ids as whole numbers"),
        (["a"], TypeError, "token_set is"),
    ],
    ids=str,
)
def test_choices_that_are_no_ids_are_refused(token_set, error, told, window):
    with pytest.raises(error, match=told):
        score_tokens(tiny(), ids(), token_set=token_set, window=window)


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize("given", [{"window": 2.5}, {"window": "4"}, {"window": 4, "stride": 1.5}, {"chunk_size": 2.5}])
def test_windows_are_whole_numbers(given):
    with pytest.raises(ValueError, match="give a whole number of positions"):
        score_tokens(tiny(), ids(), **given)


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        (ids().tolist(), TypeError, "input_ids is a list"),
        (ids().numpy(), TypeError, "input_ids is a ndarray"),
        (ids()[0], ValueError, r"input_ids has shape \(9,\).*ids\[None\]"),
        (ids().float(), TypeError, "input_ids are torch.float32"),
    ],
    ids=["list", "array", "one row", "floats"],
)
def test_texts_that_are_no_rows_of_ids_are_refused(given, error, told):
    with pytest.raises(error, match=told):
        score_tokens(tiny(), given)


# What an error advises is right


@pytest.mark.parametrize(("prompt", "new"), [(64, 1), (300, 1), (60, 5), (60, 140), (129, 64)])
def test_the_factor_that_an_error_names_is_enough_and_none_smaller(prompt, new):
    with pytest.raises(ValueError, match="give the model rope_scaling") as refused:
        tiny().generate(ids(1, prompt), max_new_tokens=new)
    told = str(refused.value)
    factor = float(re.search(r'"factor": ([\d.]+)', told)[1])
    assert ("ask for at most" in told) == (prompt < 64), "no advice to ask for 0 tokens"
    limits = [
        PersimmonConfig.tiny(rope_scaling={"type": "dynamic", "factor": each}).context_limit
        for each in (factor, factor - 1)
        if each > 1
    ]
    assert limits[0] >= prompt + new
    assert all(limit < prompt + new for limit in limits[1:])
