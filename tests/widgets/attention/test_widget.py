"""The attention explorer shows what the model computes, sends little of it, and survives any text."""

import base64
import math
import re

import numpy as np
import pytest
import torch
import traitlets

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM, load_mini
from persimmon_lab.trace.capture import capture
from persimmon_lab.viz.html.links import Link, links_html
from persimmon_lab.widgets.attention.answers import ORDERS, answer, strongest_in_block
from persimmon_lab.widgets.attention.reading import in_blocks, in_bytes, kinds_of_key, read
from persimmon_lab.widgets.attention.widget import TEXT, AttentionExplorer
from tests.viz.drawing import drawn

VIEWS = ("pattern", "score", "rotated", "passed")
LONG = " ".join(["the cat sat on the mat and looked at a dog"] * 33)
MARKS = {(3, 7): "previous token", (6, 3): "induction", (6, 4): "induction"}


@pytest.fixture(scope="session")
def mini():
    return load_mini()


@pytest.fixture(scope="session")
def reading(mini):
    return read(*mini, TEXT)


@pytest.fixture(scope="session")
def size(reading):
    """Tokens of the text."""
    return reading.shape[2]


@pytest.fixture
def explorer(mini):
    return AttentionExplorer(TEXT, *mini, layer=6, head=3, marks=MARKS)


def all_heads(reading, view):
    layers, heads, _ = reading.shape
    return torch.stack(
        [torch.stack([reading.matrix(layer, head, view) for head in range(heads)]) for layer in range(layers)]
    )


def sent_by(explorer):
    """What the explorer sends from here on: (content, bytes) each."""
    messages = []
    explorer.send = lambda content, buffers=None: messages.append((content, buffers or []))
    return messages


def ask(explorer, **question):
    explorer._handle_custom_msg(question, [])


# The numbers


def test_the_patterns_are_the_model_s_own(mini, reading):
    attentions = mini[0](reading.ids[None], output_attentions=True).attentions
    torch.testing.assert_close(all_heads(reading, "pattern"), torch.stack(attentions)[:, 0].detach(), atol=1e-5, rtol=0)


def test_the_scores_are_the_model_s_own_and_the_sum_of_their_parts(mini, reading):
    scores = capture(mini[0], reading.ids[None], only=["scores"]).stacked("scores")[:, 0].tril()
    torch.testing.assert_close(all_heads(reading, "score"), scores, atol=1e-4, rtol=1e-5)
    assert torch.equal(all_heads(reading, "rotated") + all_heads(reading, "passed"), all_heads(reading, "score"))


def test_the_passed_part_is_what_the_channels_say_that_do_not_turn(mini, reading):
    names = ["q_layernorm", "k_layernorm"]
    trace = capture(mini[0], reading.ids[None], only=names)
    query, key = (trace.stacked(name)[:, 0, :, :, 16:].double() for name in names)  # before rotation
    expected = torch.einsum("lhqc,lhkc->lhqk", query, key).tril() / math.sqrt(32)
    torch.testing.assert_close(all_heads(reading, "passed").double(), expected, atol=1e-4, rtol=1e-5)
    assert all_heads(reading, "rotated").abs().max() > 1


@pytest.mark.parametrize("view", VIEWS)
def test_rows_are_those_of_the_matrix(reading, size, view):
    matrices = all_heads(reading, view)
    for token in (0, 13, size - 1):
        torch.testing.assert_close(reading.rows(token, "from", view), matrices[:, :, token], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(reading.rows(token, "to", view), matrices[..., token], atol=1e-5, rtol=1e-5)
        row = reading.row(5, 2, view, token, "to")
        torch.testing.assert_close(row, matrices[5, 2, :, token], atol=1e-5, rtol=1e-5)


def test_the_colours_of_a_head_s_scores_have_one_limit(reading):
    for layer, head in np.ndindex(8, 8):
        largest = max(reading.matrix(layer, head, view).abs().max() for view in ("score", "rotated", "passed"))
        assert reading.largest(layer, head) == pytest.approx(float(largest))


def test_entropy_is_in_bits(reading):
    pattern = all_heads(reading, "pattern")[:, :, 20].double().numpy()
    expected = -np.where(pattern > 0, pattern * np.log2(np.maximum(pattern, 1e-300)), 0).sum(axis=-1)
    np.testing.assert_allclose(reading.entropy(20), expected, atol=1e-4)


def test_kinds_of_key_count_as_one_would_by_hand():
    ids = torch.tensor([7, 1, 2, 1, 1, 2])
    allowed = {
        "previous token": lambda query, key: key == query - 1,
        "induction": lambda query, key: 0 < key <= query and ids[key - 1] == ids[query],
        "same token": lambda query, key: key < query and ids[key] == ids[query],
        "first token": lambda query, key: key == 0 < query,
    }
    pattern = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)).tril()
    pattern /= pattern.sum(dim=-1, keepdim=True)
    for name, weights in kinds_of_key(ids).items():
        keys = {query: [key for key in range(query + 1) if allowed[name](query, key)] for query in range(6)}
        means = [sum(float(pattern[query, key]) for key in seen) for query, seen in keys.items() if seen]
        assert float((pattern * weights).sum()) == pytest.approx(np.mean(means), abs=1e-6), name


def test_a_text_in_which_nothing_comes_twice_has_no_induction(mini):
    means = read(*mini, "one two three").means
    assert not means["induction"].any()
    assert means["previous token"].max() > 0.5


def test_the_known_heads_of_the_shipped_model_stand_out(mini, reading):
    assert reading.means["previous token"].max() > 0.7
    assert reading.means["induction"].max() > max(0.4, float(reading.means["same token"].max()))
    pattern = all_heads(reading, "pattern")
    before = pattern.diagonal(offset=-1, dim1=-2, dim2=-1).mean(dim=-1)
    torch.testing.assert_close(reading.means["previous token"], before, atol=1e-5, rtol=0)


def test_a_model_in_half_precision_can_be_read(model, tokenizer):
    exact, half = read(model, tokenizer, "Once upon a time"), read(model.bfloat16(), tokenizer, "Once upon a time")
    torch.testing.assert_close(all_heads(half, "pattern"), all_heads(exact, "pattern"), atol=0.05, rtol=0)


@pytest.mark.parametrize("factor", [0.25, 1.0])
def test_the_split_follows_the_rotated_part_of_the_model(tokenizer, factor):
    config = PersimmonConfig.tiny(vocab_size=tokenizer.vocab_size, partial_rotary_factor=factor)
    model = PersimmonForCausalLM(config, generator=torch.Generator().manual_seed(0))
    found = read(model, tokenizer, "Once upon")
    query, key, width = found.query.double(), found.key.double(), int(factor * config.head_dim)
    turned = torch.einsum("lhqc,lhkc->lhqk", query[..., :width], key[..., :width]).tril() / math.sqrt(config.head_dim)
    torch.testing.assert_close(all_heads(found, "rotated").double(), turned, atol=1e-5, rtol=1e-5)
    assert all_heads(found, "passed").any() == (factor < 1)


def test_the_strongest_link_is_neither_to_the_first_token_nor_to_itself(reading, size):
    for layer, head in np.ndindex(8, 8):
        matrix = reading.matrix(layer, head, "pattern")
        query, key = reading.strongest_link(layer, head)
        assert 0 < key < query
        assert matrix[query, key] == max(matrix[q, k] for q in range(size) for k in range(1, q))


# Pictures in bytes


def test_a_block_becomes_its_number_farthest_from_zero():
    matrix = torch.tensor([[0.1, 0.0, 0.0], [0.3, -0.9, 0.0], [0.2, 0.5, -0.4]])
    assert torch.equal(in_blocks(matrix, 3), matrix)
    torch.testing.assert_close(in_blocks(matrix, 2), torch.tensor([[-0.9, 0.0], [0.5, -0.4]]))
    assert in_blocks(torch.rand(33, 33), 32).shape == (17, 17)


def test_bytes_keep_the_sign_and_lift_what_is_faint():
    values = torch.tensor([-2.0, -0.02, 0.0, 0.02, 1.0, 2.0])
    assert in_bytes(values, 2.0).tolist() == [-127, -1, 0, 1, 64, 127]
    assert in_bytes(values, 2.0, 0.5).tolist() == [-127, -13, 0, 13, 90, 127]
    assert in_bytes(torch.zeros(3), 0.0).tolist() == [0, 0, 0]


# Answers


def test_a_long_text_travels_in_small_messages(mini):
    found = read(*mini, LONG)
    *heads, size = found.shape
    assert heads == [8, 8] and 400 < size < 512
    here = {"layer": 6, "head": 3}
    sizes = {
        name: sum(tensor.numel() * tensor.element_size() for tensor in answer(found, question)[1])
        for name, question in {
            "whole": {"type": "whole"},
            "row": {"type": "row", **here, "view": "pattern", "token": 400, "direction": "from"},
            "two rows": {"type": "row", **here, "view": "score", "token": 400, "direction": "to"},
            "head": {"type": "head", **here, "view": "rotated"},
            "heads": {"type": "heads", "token": 400, "other": 3, "direction": "from", "order": "focus"},
        }.items()
    }
    thumbnail, picture = (math.ceil(size / math.ceil(size / most)) for most in (32, 128))
    assert sizes == {
        "whole": 64 * thumbnail**2,
        "row": 4 * size,
        "two rows": 8 * size,
        "head": picture**2,
        "heads": 64 * (4 + thumbnail),
    }


def test_the_whole_is_tokens_and_thumbnails(reading, size):
    content, (pictures,) = answer(reading, {"type": "whole"})
    assert (content["layers"], content["heads"], content["size"]) == (8, 8, size)
    assert content["tokens"][:4] == [
        ("|ENDOFTEXT|", False, False),
        ("the", True, False),
        ("king", True, False),
        ("gave", True, False),
    ]
    assert [name for name, *_ in content["tokens"]] == reading.labels
    expected = (127 * all_heads(reading, "pattern").sqrt()).round()
    assert (pictures - expected).abs().max() <= 1


def test_a_row_comes_with_its_attention(reading):
    question = {"type": "row", "key": "k", "layer": 6, "head": 3, "view": "rotated", "token": 16, "direction": "from"}
    content, (values, attention) = answer(reading, question)
    assert content["key"] == "k"
    assert content["limit"] == reading.largest(6, 3)
    torch.testing.assert_close(values, reading.matrix(6, 3, "rotated")[16], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attention, reading.matrix(6, 3, "pattern")[16], atol=1e-5, rtol=1e-5)
    content, rows = answer(reading, question | {"view": "pattern"})
    assert content["limit"] == 1.0
    assert len(rows) == 1


def test_a_head_s_picture_is_its_matrix(reading, size):
    layer, head = min(np.ndindex(8, 8), key=lambda place: reading.matrix(*place, "rotated").min())
    content, (picture,) = answer(reading, {"type": "head", "layer": layer, "head": head, "view": "rotated"})
    limit = reading.largest(layer, head)
    assert content | {"type": "head"} == {
        "type": "head",
        "layer": layer,
        "head": head,
        "view": "rotated",
        "size": size,
        "block": 1,
        "limit": limit,
    }
    assert (picture - 127 * reading.matrix(layer, head, "rotated") / limit).abs().max() <= 0.51
    assert (picture < 0).any()
    content, (picture,) = answer(reading, {"type": "head", "layer": layer, "head": head, "view": "pattern"})
    assert content["limit"] == 1.0
    assert (picture - 127 * reading.matrix(layer, head, "pattern").sqrt()).abs().max() <= 0.51


def test_heads_are_scored_by_the_link_that_is_asked_for(reading):
    pattern = all_heads(reading, "pattern")
    asked = {"type": "heads", "token": 16, "other": 3, "direction": "from", "order": "this link"}
    content, (scores, strips) = answer(reading, asked)
    assert (content["unit"], content["lowest_first"]) == ("%", False)
    torch.testing.assert_close(scores, pattern[:, :, 16, 3], atol=1e-5, rtol=1e-5)
    assert (strips - (127 * pattern[:, :, 16].sqrt()).round()).abs().max() <= 1
    _, (scores, strips) = answer(reading, asked | {"token": 3, "other": 16, "direction": "to"})
    torch.testing.assert_close(scores, pattern[:, :, 16, 3], atol=1e-5, rtol=1e-5)
    assert (strips - (127 * pattern[..., 3].sqrt()).round()).abs().max() <= 1
    content, (scores, _) = answer(reading, asked | {"order": "focus"})
    assert torch.equal(scores, reading.entropy(16))
    assert (content["unit"], content["lowest_first"]) == ("bits", True)
    for order in set(ORDERS) - {"layer", "this link", "focus"}:
        assert torch.equal(answer(reading, asked | {"order": order})[1][0], reading.means[order])


def test_the_strongest_of_a_block_is_found(reading):
    matrix = reading.matrix(6, 3, "rotated")
    query, key = strongest_in_block(reading, 6, 3, "rotated", 20, 8, 4)
    assert 20 <= query < 24 and 8 <= key < 12
    assert matrix[query, key].abs() == matrix[20:24, 8:12].abs().max()


# The details


def test_a_table_of_links_says_the_parts_and_their_sum():
    links = [Link("<i>", 3, 0.75, 1.25, -0.5), Link("b", 12, 0.25, -2.0, 0.125)]
    page = links_html(links, "a <head>", ("</style>", 16), "looks at", other=12)
    assert "<i>" not in page and "</style>" not in page and "a &lt;head&gt;" in page
    rows = [re.sub(r"<[^>]*>", " ", row).split() for row in re.findall(r"<tr style.*?</tr>", page)]
    assert rows == [
        ["&lt;i&gt;", "3", "75.0", "%", "+1.25", "−0.50", "+0.75"],
        ["b", "12", "◂", "25.0", "%", "−2.00", "+0.12", "−1.88"],
    ]
    assert re.findall(r"<tr style=\"background-color: transparent; font-weight: (\w+)\"", page) == ["normal", "bold"]
    assert "width: 75.0%" in page


def listed(explorer):
    """(position, per cent) of each row of the details."""
    text = re.sub(r"<[^>]*>", " ", explorer.details)
    return [(int(place), float(share)) for place, share in re.findall(r" ([\d,]+) +(?:◂ +)?(?:&lt; )?([\d.]+) %", text)]


def test_the_details_are_the_strongest_links(explorer):
    best = explorer.reading.matrix(6, 3, "pattern")[16].topk(6)
    explorer.token, explorer.other = 16, int(best.indices[1])
    assert [place for place, _ in listed(explorer)] == best.indices.tolist()
    assert [share for _, share in listed(explorer)] == pytest.approx((100 * best.values).tolist(), abs=0.06)
    assert "Layer 6, head 3 (induction)" in explorer.details
    weakest = explorer.other = int(explorer.reading.matrix(6, 3, "pattern")[16, :16].argmin())  # it joins them
    assert [place for place, _ in listed(explorer)] == [*best.indices.tolist(), weakest]
    explorer.other = 20  # the future
    assert [place for place, _ in listed(explorer)] == best.indices.tolist()
    explorer.direction, explorer.token = "to", 3
    column = explorer.reading.matrix(6, 3, "pattern")[:, 3]
    assert [place for place, _ in listed(explorer)][:6] == column.topk(6).indices.tolist()
    assert "is looked at by" in explorer.details
    explorer.head = 4
    assert "Layer 6, head 4 (induction)" in explorer.details


# The widget


def test_it_begins_with_something_to_see(mini):
    explorer = AttentionExplorer()
    assert explorer.text == "the king gave seven golden rings to Hannah, the king gave seven golden rings to Hannah"
    means = explorer.reading.means["induction"]
    assert means[explorer.layer, explorer.head] == means.max()
    assert (explorer.token, explorer.other) == explorer.reading.strongest_link(explorer.layer, explorer.head)
    assert AttentionExplorer(TEXT, *mini, layer=3).layer == 3


def test_it_answers_the_page(explorer):
    messages = sent_by(explorer)
    ask(explorer, type="whole")
    ask(explorer, type="row", key="x", layer=6, head=3, view="pattern", token=16, direction="from")
    (whole, _), (row, buffers) = messages
    assert (whole["type"], whole["reading"], whole["text"]) == ("whole", 0, TEXT)
    assert (row["type"], row["key"], row["reading"]) == ("row", "x", 0)
    np.testing.assert_allclose(
        np.frombuffer(buffers[0], np.float32), explorer.reading.matrix(6, 3, "pattern")[16], atol=1e-5
    )


def test_a_cell_of_the_picture_chooses_both_ends(explorer):
    pick = {"type": "pick", "layer": 6, "head": 3, "view": "pattern", "query": 16, "key": 3, "block": 1}
    ask(explorer, **pick)
    assert (explorer.token, explorer.other) == (16, 3)
    explorer.direction = "to"
    ask(explorer, **pick)
    assert (explorer.token, explorer.other) == (3, 16)


def test_a_change_of_text_runs_the_model_again(explorer):
    messages = sent_by(explorer)
    explorer.text = "one two three one two three"
    assert explorer.reading.labels[1:3] == ["one", "two"]
    assert explorer.error == ""
    content, _ = messages[-1]
    assert (content["type"], content["reading"], content["text"]) == ("whole", 1, explorer.text)
    assert (explorer.token, explorer.other) == explorer.reading.strongest_link(6, 3)
    assert "Layer 6" in explorer.details


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "the text is empty"), (" \n ", "the text is empty"), ("word " * 600, "602 tokens, but at most 512 can be")],
)
def test_a_text_that_cannot_be_read_leaves_the_old_view_and_has_no_reading(explorer, text, said):
    before, details, messages = explorer.reading, explorer.details, sent_by(explorer)
    explorer.text = text
    assert said in explorer.error
    with pytest.raises(ValueError, match=said):
        _ = explorer.reading
    with pytest.raises(ValueError, match=said):
        explorer.static()
    assert "image/png" not in explorer._repr_mimebundle_()[0]
    assert explorer.details == details
    assert not messages
    ask(explorer, type="whole")
    assert messages[0][0]["text"] == TEXT  # by which the page knows that what it shows is not of the text in the box
    explorer.text = "it works again"
    assert explorer.error == ""
    assert explorer.reading is not before
    assert "image/png" in explorer._repr_mimebundle_()[0]
    with pytest.raises(ValueError, match=said):
        AttentionExplorer(text, explorer._model, explorer._tokenizer)


def test_a_question_about_an_earlier_text_is_no_error(explorer):
    explorer.text = "one two three one two three"
    messages = sent_by(explorer)
    question = {"type": "heads", "key": "x", "token": 6, "other": 27, "direction": "from", "order": "this link"}
    ask(explorer, reading=0, **question)
    assert not messages
    assert explorer.error == ""
    ask(explorer, reading=1, **question)
    assert "Error" in explorer.error


def test_whatever_goes_wrong_is_shown(explorer, monkeypatch):
    messages = sent_by(explorer)
    ask(explorer, type="row", key="x", layer=99, head=0, view="pattern", token=0, direction="from")
    assert "IndexError" in explorer.error
    content, _ = messages[-1]
    assert (content["type"], content["key"], content["failed"]) == ("row", "x", True)
    monkeypatch.setattr("persimmon_lab.widgets.attention.widget.read", lambda *_: 1 / 0)
    explorer.text = "anything"
    assert explorer.error == "ZeroDivisionError: division by zero"


def test_positions_out_of_range_are_refused(explorer, size):
    for name, count in (("layer", 8), ("head", 8), ("token", size), ("other", size)):
        for value in (-1, count):
            with pytest.raises(traitlets.TraitError, match=f"{name} is {value}, .* from 0 to {count - 1} here"):
                setattr(explorer, name, value)
    explorer.text = "short"
    assert explorer.token < explorer.reading.shape[2]


def test_heads_and_models_that_are_not_there_are_refused(mini):
    with pytest.raises(ValueError, match="no head 8 in layer 0: the model has 8 layers of 8 heads"):
        AttentionExplorer(TEXT, *mini, layer=0, head=8)
    with pytest.raises(ValueError, match="no head 0 in layer 9"):
        AttentionExplorer(TEXT, *mini, marks={(9, 0): "x"})
    with pytest.raises(ValueError, match="together with its tokenizer"):
        AttentionExplorer(TEXT, mini[0])


def test_a_text_of_markup_stays_text(mini):
    explorer = AttentionExplorer("<script>alert(1)</script></style> <script>", *mini)
    for token in range(explorer.reading.shape[2]):
        explorer.token = token
        assert "<script" not in explorer.details and "</style" not in explorer.details
    names = [label.get_text() for label in drawn(explorer.static()).axes[1].get_xticklabels()]
    assert names == explorer.reading.labels


def test_its_picture_stands_for_it(explorer):
    explorer.token, explorer.other = 16, 3
    data, metadata = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert metadata["image/png"]["width"] == 900
    left, right = explorer.static().axes
    assert len(left.images) == 1 and len(left.patches) == 64
    read_there = explorer.reading.labels[16]
    assert right.get_title(loc="left") == f"persimmon-mini · Layer 6, head 3 (induction): {read_there} looks at"
    row = explorer.reading.matrix(6, 3, "pattern")[16]
    shown = [f"{weight:.0%}" for weight in row[:16] if weight >= 0.05]
    assert sorted(text.get_text() for text in right.texts) == sorted(shown)
    explorer.direction, explorer.token = "to", 3
    right = explorer.static().axes[1]
    assert right.get_title(loc="left") == "persimmon-mini · Layer 6, head 3 (induction): gave is looked at by"
    column = explorer.reading.matrix(6, 3, "pattern")[:, 3]
    assert len(right.collections[0].get_segments()) == int((column[4:] >= 0.05).sum())


def test_its_name_has_no_address(explorer, size):
    explorer.token = 16
    assert repr(explorer) == f"AttentionExplorer({size} tokens, 8 layers of 8 heads, layer 6 head 3, token 16)"
