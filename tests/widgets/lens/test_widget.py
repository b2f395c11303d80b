"""The lens explorer shows what the model computes, sends little of it, and survives any text."""

import base64
import json
import re

import pytest
import torch
import traitlets

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM, load_mini
from persimmon_lab.trace.lens import logit_lens
from persimmon_lab.viz.html.lens_cell import Cell, cell_html, curve_svg, short_rank
from persimmon_lab.viz.lens import visible
from persimmon_lab.viz.lens_explorer import explorer as static_explorer
from persimmon_lab.widgets.lens.reading import CHUNK, read
from persimmon_lab.widgets.lens.widget import TEXT, LensExplorer
from tests.viz.drawing import drawn
from tests.viz.overlaps import overlapping

LONG = " ".join(["the cat sat on the mat and looked at a dog"] * 33)
PLACES = ("attention", "mlp")


@pytest.fixture(scope="module")
def mini():
    return load_mini()


@pytest.fixture(scope="module")
def reading(mini):
    return read(*mini, TEXT)


@pytest.fixture(scope="module")
def last(reading):
    """The place of the last token, after which nothing follows."""
    return reading.shape[1] - 1


@pytest.fixture(scope="module")
def shares(mini):
    """Every probability of the lens, at once and in float64."""
    ids = mini[1](TEXT, return_tensors="pt").input_ids
    return {after: logit_lens(mini[0], ids, after)[:, 0].double().softmax(dim=-1) for after in PLACES}


@pytest.fixture
def explorer(mini):
    return LensExplorer(TEXT, *mini)


def sent_by(explorer):
    """What the explorer sends from here on."""
    messages = []
    explorer.send = lambda content, buffers=None: messages.append(content)
    return messages


def ask(explorer, **question):
    explorer._handle_custom_msg(question, [])


def words(page):
    """HTML as the words a reader sees."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page))


def cell(**changes):
    values = {
        "read": "▁king",
        "position": 2,
        "place": "Layer 1, after MLP",
        "likeliest": (("▁gave", 0.5), ("▁of", 0.25)),
        "following": "▁of",
        "probabilities": (0.0, 0.125, 0.25),
        "ranks": (4000, 12, 2),
        "stream": 2,
    }
    return Cell(**values | changes)


# The numbers


@pytest.mark.parametrize("after", PLACES)
def test_a_window_is_that_part_of_the_model_s_lens(reading, last, shares, after):
    ids, expected = reading.ids, shares[after]
    for first, count in ((0, CHUNK), (CHUNK, CHUNK), (5, 3), (last, 1)):
        window = reading.window(after, first, count)
        here = expected[:, first : first + count]
        likeliest, best = here.topk(10)
        torch.testing.assert_close(window.likeliest.double(), likeliest, atol=1e-6, rtol=1e-4)
        assert torch.equal(window.best[..., 0], best[..., 0])
        for column in range(here.shape[1]):
            position = first + column
            if position == last:
                assert not window.rank[:, column].any() and not window.probability[:, column].any()
                continue
            follows = here[:, column, ids[position + 1]]
            torch.testing.assert_close(window.probability[:, column].double(), follows, atol=1e-6, rtol=1e-4)
            assert torch.equal(window.rank[:, column], (here[:, column] > follows[:, None]).sum(dim=-1) + 1)


def test_the_top_row_is_what_the_model_predicts(mini, reading, last):
    model, _ = mini
    with torch.no_grad():
        logits = model(reading.ids[None]).logits[0]
    window = reading.window("mlp", 0, last + 1)
    assert torch.equal(window.best[-1, :, 0], logits.argmax(dim=-1))
    torch.testing.assert_close(window.likeliest[-1, :, 0], logits.softmax(dim=-1).amax(dim=-1), atol=1e-5, rtol=1e-5)
    assert reading.shape == (9, len(reading.ids))


@pytest.mark.parametrize("after", PLACES)
def test_a_cell_is_its_ten_best_and_the_way_of_what_follows(mini, reading, last, shares, after):
    names = mini[1].convert_ids_to_tokens
    for stream, position in ((0, 3), (6, 21), (8, 16)):
        found, expected = reading.cell(after, stream, position), shares[after]
        best = expected[stream, position].topk(10)
        assert [piece for piece, _ in found.likeliest] == names(best.indices.tolist())
        assert [share for _, share in found.likeliest] == pytest.approx(best.values.tolist(), rel=1e-4)
        token = int(reading.ids[position + 1])
        assert (found.read, found.following) == tuple(names(reading.ids[position : position + 2].tolist()))
        assert found.probabilities == pytest.approx(expected[:, position, token].tolist(), rel=1e-3, abs=1e-7)
        assert found.ranks[stream] == int((expected[stream, position] > expected[stream, position, token]).sum()) + 1
        assert (found.stream, found.position) == (stream, position)
    assert reading.cell(after, 4, last).following is None
    assert reading.cell(after, 0, 1).place == "The embedding"
    assert reading.cell("attention", 3, 1).place == "Layer 2, after attention"
    assert reading.cell("mlp", 3, 1).place == "Layer 2, after MLP"


def test_it_begins_where_the_upper_layers_find_what_follows(reading, last, shares):
    stream, position = reading.discovery()
    gained = [
        float(shares["mlp"][-1, place, reading.ids[place + 1]] - shares["mlp"][4, place, reading.ids[place + 1]])
        for place in range(last)
    ]
    assert position == max(range(last), key=gained.__getitem__)
    ranks = reading.window("mlp", position, 1).rank[:, 0].tolist()
    assert set(ranks[stream:]) == {1}
    assert stream == 0 or ranks[stream - 1] != 1


def test_a_small_vocabulary_half_precision_and_a_text_of_one_token(tokenizer):
    config = PersimmonConfig.tiny(vocab_size=tokenizer.vocab_size)
    model = PersimmonForCausalLM(config, generator=torch.Generator().manual_seed(0)).bfloat16()
    explorer = LensExplorer("a", model, tokenizer)
    streams, positions = explorer.reading.shape
    assert streams == config.num_hidden_layers + 1
    for stream in range(streams):
        for position in range(positions):
            assert "rank" in explorer.details(stream, position) or position == positions - 1
    drawn(explorer.static())


# The side pane


def test_the_pane_tells_the_numbers():
    page = cell_html(cell(), 4096)
    said = words(page)
    assert "Layer 1, after MLP" in said
    assert "after ␣king 2" in said
    assert "follows ␣of: rank 2 of 4,096, 25.0 %" in said
    rows = [words(row).replace(" ", "") for row in re.findall(r"<tr.*?</tr>", page)]
    assert rows == ["1␣gave50.0%", "2␣of◂25.0%"]
    assert re.findall(r"font-weight: (\w+)\">", page)[:2] == ["normal", "bold"]
    assert "follows ␣of: rank 12 of 4,096, 12.5 %" in words(cell_html(cell(stream=1), 4096))
    end = words(cell_html(cell(following=None), 4096))
    assert "The text ends here" in end and "rank" not in end and "◂" not in end


def test_the_curve_goes_through_the_probabilities():
    page = curve_svg("▁of", (0.0, 0.125, 1.0), (4000, 12, 1), 1)
    points = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', page)]
    (top, bottom) = points[2][1], points[0][1]
    assert [round((bottom - y) / (bottom - top), 3) for _, y in points] == [0, 0.125, 1]
    assert points[1][0] - points[0][0] == points[2][0] - points[1][0] > 0
    sizes = [float(size) for size in re.findall(r'r="([\d.]+)"', page)]
    assert sizes[1] > sizes[0] == sizes[2]  # the ring
    label = re.search(r'aria-label="([^"]*)"', page).group(1)
    assert label == (
        "probability of ␣of: embedding &lt; 0.01 % rank 4,000, layer 0 12.5 % rank 12, layer 1 100 % rank 1"
    )
    below = re.findall(r"<text[^>]*>([^<]*)</text>", page)
    assert below == ["0 %", "50 %", "100 %", "emb", "4.0k", "0", "12", "1", "1", "rank"]


def test_many_layers_name_only_some():
    names = re.findall(r"<text[^>]*>([^<]*)</text>", curve_svg("a", [0.5] * 37, [262144] * 37, 36))
    assert names[3:-1:2] == ["emb", *map(str, range(3, 36, 4))]
    assert set(names[4:-1:2]) == {"262k"}
    assert [short_rank(rank) for rank in (1, 999, 1000, 9949, 9950, 26321)] == [
        "1", "999", "1.0k", "9.9k", "10k", "26k"
    ]  # fmt: skip


@pytest.mark.parametrize("token", ["<script>", '"><img src=x>', "</style>", "a\nb"])
def test_a_token_of_markup_stays_text(token):
    page = cell_html(cell(read=token, following=token, likeliest=((token, 0.5),)), 4096)
    assert not re.search(r"<(script|img|/style)", page)
    # Quotes and tags of the label do not end it.
    assert re.search(r'aria-label="([^"]*)"', page).group(1).startswith("probability of ")
    assert page.count("<svg") == page.count("</svg>") == 1


# The widget


def test_it_answers_the_page(explorer, reading, last, shares):
    messages = sent_by(explorer)
    ask(explorer, type="whole")
    ask(explorer, type="window", key="w", after="attention", first=16)
    ask(explorer, type="cell", key="c", after="attention", stream=5, position=20)
    whole, window, one = messages
    assert (whole["type"], whole["reading"], whole["text"], whole["chunk"]) == ("whole", 0, TEXT, CHUNK)
    assert whole["tokens"] == reading.pieces
    assert whole["streams"] == ["embedding", *(f"layer {layer}" for layer in range(8))]
    cells = window["cells"]
    assert (window["type"], window["key"], len(cells), len(cells[0])) == ("window", "w", 9, min(CHUNK, last - 15))
    for stream, position in ((0, 16), (8, 20), (4, min(last, 31))):
        piece, share, follows = window["cells"][stream][position - 16]
        best = shares["attention"][stream, position].max(dim=-1)
        assert piece == reading.piece(int(best.indices))
        assert share == pytest.approx(float(best.values), rel=1e-4)
        assert follows == (position < last and int(best.indices) == int(reading.ids[position + 1]))
    assert any(follows for row in window["cells"] for *_, follows in row)
    assert one["html"] == cell_html(reading.cell("attention", 5, 20), 4096)
    explorer.after = "attention"
    assert explorer.details(5, 20) == one["html"]


def test_a_long_text_travels_in_small_messages(mini):
    explorer = LensExplorer(LONG, *mini)
    messages = sent_by(explorer)
    assert 400 < explorer.reading.shape[1] < 512
    ask(explorer, type="window", key="w", after="mlp", first=384)
    ask(explorer, type="cell", key="c", after="mlp", stream=5, position=400)
    assert len(messages[0]["cells"][0]) == CHUNK
    assert all(len(json.dumps(message)) < 20_000 for message in messages)


def test_a_change_of_text_runs_the_model_again(explorer):
    messages = sent_by(explorer)
    explorer.text = "one two three one two three"
    assert explorer.reading.pieces[1:3] == ["▁one", "▁two"]
    assert explorer.error == ""
    assert (messages[-1]["type"], messages[-1]["reading"], messages[-1]["text"]) == ("whole", 1, explorer.text)
    assert (explorer.stream, explorer.position) == explorer.reading.discovery()


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "the text is empty"), (" \n ", "the text is empty"), ("word " * 600, "602 tokens, but at most 512 can be")],
)
def test_a_text_that_cannot_be_read_leaves_the_old_view_and_has_no_reading(explorer, text, said):
    before, place, messages = explorer.reading, (explorer.stream, explorer.position), sent_by(explorer)
    explorer.text = text
    assert said in explorer.error
    with pytest.raises(ValueError, match=said):
        _ = explorer.reading
    with pytest.raises(ValueError, match=said):
        explorer.static()
    assert "image/png" not in explorer._repr_mimebundle_()[0]
    assert (explorer.stream, explorer.position) == place
    assert not messages
    ask(explorer, type="whole")
    assert messages[0]["text"] == TEXT  # by which the page knows that what it shows is not of the text in the box
    explorer.text = "it works again"
    assert explorer.error == ""
    assert explorer.reading is not before
    assert "image/png" in explorer._repr_mimebundle_()[0]
    with pytest.raises(ValueError, match=said):
        LensExplorer(text, explorer._model, explorer._tokenizer)


def test_a_question_about_an_earlier_text_is_no_error(explorer):
    explorer.text = "one two three one two three"
    messages = sent_by(explorer)
    question = {"type": "cell", "key": "x", "after": "mlp", "stream": 5, "position": 27}
    ask(explorer, reading=0, **question)
    assert not messages
    assert explorer.error == ""
    ask(explorer, reading=1, **question)
    assert "Error" in explorer.error


def test_whatever_goes_wrong_is_shown(explorer, monkeypatch):
    messages = sent_by(explorer)
    ask(explorer, type="cell", key="x", after="mlp", stream=99, position=0)
    assert "IndexError" in explorer.error
    assert (messages[-1]["type"], messages[-1]["key"], messages[-1]["failed"]) == ("cell", "x", True)
    monkeypatch.setattr("persimmon_lab.widgets.lens.widget.read", lambda *_: 1 / 0)
    explorer.text = "anything"
    assert explorer.error == "ZeroDivisionError: division by zero"


def test_what_is_not_there_is_refused(explorer, last, mini):
    for name, size in (("stream", 9), ("position", last + 1)):
        for value in (-1, size):
            with pytest.raises(traitlets.TraitError, match=f"{name} is {value}, but must be from 0 to {size - 1} here"):
                setattr(explorer, name, value)
    with pytest.raises(traitlets.TraitError):
        explorer.after = "the end"
    with pytest.raises(ValueError, match="together with its tokenizer"):
        LensExplorer(TEXT, mini[0])
    explorer.position = last
    explorer.text = "short"
    assert explorer.position < explorer.reading.shape[1]


# Its picture


def test_its_picture_stands_for_it(explorer, reading, last):
    explorer.stream, explorer.position = 6, 21
    data, metadata = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert metadata["image/png"]["width"] == 900
    figure = drawn(explorer.static())
    grid, bars, curve = (axes for axes in figure.axes if axes.get_label() != "<colorbar>")
    assert [label.get_text() for label in grid.get_xticklabels()] == [
        piece if len(piece) < 7 else f"{piece[:5]}…" for piece in map(visible, reading.pieces[last - 15 :])
    ]
    ring = grid.patches[-1]
    assert (ring.get_x() + 0.5, ring.get_y() + 0.5) == (21 - (last - 15), 6)
    found = reading.cell("mlp", 6, 21)
    assert [bar.get_width() for bar in bars.patches] == pytest.approx([share for _, share in found.likeliest])
    names = [label.get_text() for label in bars.get_yticklabels()]
    assert names[found.ranks[6] - 1].endswith(" ◂") and sum(name.endswith("◂") for name in names) == 1
    read_there = visible(reading.pieces[21])
    assert bars.get_title(loc="left") == f"persimmon-mini · Layer 5, after MLP, after {read_there} (21)"
    assert list(curve.lines[0].get_ydata()) == pytest.approx(list(found.probabilities))
    assert curve.lines[1].get_xdata() == [6]
    assert not overlapping(figure)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_its_picture_shows_the_chosen_cell_wherever_it_is(explorer, last, share):
    position = round(share * last)
    explorer.position, explorer.stream = position, 3
    figure = drawn(explorer.static())
    ring = figure.axes[0].patches[-1]
    column = round(ring.get_x() + 0.5)
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert 0 <= column < 16 == len(names)
    assert names[column][:4] == visible(explorer.reading.pieces[position])[:4]
    assert figure.get_figwidth() <= 9


def test_a_text_that_ends_has_no_curve():
    best, shares = [["a", "b"], ["c", "d"]], torch.full((2, 2), 0.5)
    figure = drawn(static_explorer(best, shares, ["x", "y"], ["y", None], (1, 1), cell(following=None, stream=1)))
    assert any("The text ends here" in text.get_text() for axes in figure.axes for text in axes.texts)


def test_its_name_has_no_address(explorer, last):
    explorer.stream, explorer.position = 6, 21
    assert repr(explorer) == f"LensExplorer({last + 1} tokens, 8 layers, after mlp, layer 5, token 21)"
    explorer.stream, explorer.after = 0, "attention"
    assert repr(explorer) == f"LensExplorer({last + 1} tokens, 8 layers, after attention, embedding, token 21)"


def test_its_picture_follows_where_the_stream_is_read(explorer, last, shares):
    explorer.position, explorer.after = 21, "attention"
    image = drawn(explorer.static()).axes[0].images[0]
    best = shares["attention"][:, last - 15 :].amax(dim=-1)
    torch.testing.assert_close(torch.as_tensor(image.get_array().data).double(), best, atol=1e-5, rtol=1e-4)
