"""What is said of neurons equals what counting by hand says."""

import itertools
from math import comb

import pytest
import torch

from persimmon_lab import load_mini
from persimmon_lab.trace import neurons
from persimmon_lab.trace.neurons import Recording

TEXTS = {"first": "human: Hello, how are you?", "second": "the king gave\n", "third": "a"}


@pytest.fixture(scope="module")
def mini():
    return load_mini()


@pytest.fixture(scope="module")
def recording(mini):
    return neurons.record(*mini, TEXTS)


def layer_by_layer(model, ids):
    """Pre-activations and activations without hooks: the layers run one by one on the model's own hidden states."""
    with torch.no_grad():
        states = model(ids, output_hidden_states=True, output_attentions=True)
    before = []
    for layer, hidden, pattern in zip(model.body.layers, states.hidden_states, states.attentions):
        attention = layer.self_attn
        with torch.no_grad():
            fused = attention.query_key_value(layer.input_layernorm(hidden))[0]
            value = fused.unflatten(-1, (-1, 3, attention.head_dim))[:, :, 2].transpose(0, 1)
            mixed = (pattern[0] @ value).transpose(0, 1).flatten(1)
            middle = hidden[0] + attention.dense(mixed)
            before.append(layer.mlp.dense_h_to_4h(layer.post_attention_layernorm(middle)))
    before = torch.stack(before)
    return before, torch.where(before > 0, before**2, 0)


def test_every_text_is_read_by_itself(mini, recording):
    model, tokenizer = mini
    for source, text in TEXTS.items():
        ids = tokenizer(text, return_tensors="pt").input_ids
        here = recording.tokens_of(source)
        assert list(recording.pieces[here]) == tokenizer.convert_ids_to_tokens(ids[0].tolist())
        assert set(recording.sources[here]) == {source}
        before, activations = layer_by_layer(model, ids)
        torch.testing.assert_close(recording.before[:, here], before, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(recording.activations[:, here], activations, rtol=1e-4, atol=1e-4)
    assert len(recording.pieces) == len(recording.sources) == recording.before.shape[1]
    assert recording.before.dtype == recording.activations.dtype == torch.float32
    assert torch.equal(recording.awake, recording.before > 0)


def test_a_text_that_was_not_read_and_no_text_at_all(mini, recording):
    with pytest.raises(KeyError, match="no text is called 'fourth'; there are first, second, third"):
        recording.tokens_of("fourth")
    with pytest.raises(ValueError, match="texts is empty"):
        neurons.record(*mini, {})


def test_the_share_of_zeros_of_each_text(recording):
    shares = neurons.silent_by_text(recording)
    assert list(shares) == list(TEXTS)
    start = 0
    for source in TEXTS:
        count = recording.sources.count(source)
        for layer in range(8):
            zeros = sum(int((recording.activations[layer, token] == 0).sum()) for token in range(start, start + count))
            assert float(shares[source][layer]) == pytest.approx(zeros / (count * 1024))
        start += count


def test_the_mass_of_the_strongest_by_hand():
    activations = torch.tensor([[1.0, 0.0, 6.0, 3.0], [5.0, 5.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    # The silent token does not count: the mean is of 6/10 and 5/10, then of 9/10 and 10/10.
    carried = neurons.mass_of_strongest(activations, [0.0, 0.25, 0.5, 1.0])
    assert carried.tolist() == pytest.approx([0, 0.55, 0.95, 1])
    by_layer = neurons.mass_of_strongest(torch.stack((activations, 7 * activations.flip(1))), [0.25])
    assert by_layer.shape == (2, 1) and by_layer.flatten().tolist() == pytest.approx([0.55, 0.55])
    with pytest.raises(ValueError, match="1.5 is no share of the neurons"):
        neurons.mass_of_strongest(activations, [0.5, 1.5])


@pytest.mark.parametrize("batch", [0, 1, 2, 3, 6, 7])
def test_the_rows_needed_are_the_mean_over_every_batch_there_is(batch):
    awake = torch.rand(2, 7, 30, generator=torch.Generator().manual_seed(0)) < torch.linspace(0, 1, 30)
    every = list(itertools.combinations(range(7), batch))
    assert len(every) == comb(7, batch)
    mean = sum(awake[:, list(chosen)].any(dim=1).double().mean(dim=1) for chosen in every) / len(every)
    assert neurons.rows_needed(awake, [batch])[:, 0].tolist() == pytest.approx(mean.tolist())


def test_rows_needed_of_all_tokens_and_of_too_many(recording):
    tokens = recording.awake.shape[1]
    one, two, every = neurons.rows_needed(recording.awake, [1, 2, tokens]).T
    torch.testing.assert_close(one, recording.awake.float().mean(dim=(1, 2)))
    torch.testing.assert_close(every, recording.awake.any(dim=1).float().mean(dim=1))
    assert (one < two).all() and (two < every).all()
    # Concave: the mean rate of all neurons promises too much.
    assert (two < 1 - (1 - one) ** 2).all()
    with pytest.raises(ValueError, match=f"a batch of {tokens + 1} cannot be drawn from {tokens} tokens"):
        neurons.rows_needed(recording.awake, [tokens + 1])


def a_recording():
    """One layer, two neurons, two texts; neuron 1 is awake at all tokens but two."""
    heard = torch.tensor([[0, 0, 0, 0, 0, 0, 0], [3.0, 0, 1.0, 2.0, 0, 3.0, 5.0]]).T[None]
    pieces = ("▁the", "▁", "king", "▁the", "s", "\n", "▁king")
    return Recording(heard, heard, pieces, ("one",) * 4 + ("two",) * 3)


def test_the_strongest_contexts_of_a_neuron():
    contexts = neurons.strongest_contexts(a_recording(), 0, 1, count=4, window=2)
    assert contexts == [
        (5.0, "two", "s\n", " king", ""),
        (3.0, "one", "", " the", " king"),  # of two equals the first
        (3.0, "two", "s", "\n", " king"),
        (2.0, "one", " king", " the", ""),  # the next text is another one
    ]
    assert len(neurons.strongest_contexts(a_recording(), 0, 1)) == 5  # two tokens at which it is silent
    assert neurons.strongest_contexts(a_recording(), 0, 0) == []


def test_the_strongest_context_of_each_piece():
    contexts = neurons.strongest_contexts(a_recording(), 0, 1, window=0, once=True)
    assert [(context.token, context.activation) for context in contexts] == [
        (" king", 5.0),
        (" the", 3.0),
        ("\n", 3.0),
        ("king", 1.0),
    ]


def test_texts_have_names_and_a_recording_shows_itself_in_a_line(mini, recording, unchecked_annotations):
    with pytest.raises(TypeError, match=r"texts is a str; give them by name"):
        neurons.record(*mini, "once upon a time")
    assert repr(recording).startswith("<Recording of 8 layers of 1,024 neurons at ")
    assert repr(recording).endswith(" tokens of 3 texts>")
