"""Pictures and texts in one row: what stands where, what is computed of it, and what is refused."""

import pytest
import torch

from persimmon_lab import load_mini
from persimmon_lab.vision import Layout, PersimmonWithPictures, cut, joined, lay_out
from persimmon_lab.vision.preparation import prepare
from tests.models import tiny
from tests.parity.cases import fill, uniform

LAYOUT = Layout(patch_size=2, channels=3, place_id=5, row_end_id=6)
WIDE = uniform("wide", 3, 4, 6)  # 2 rows of 3 patches
SMALL = uniform("small", 3, 2, 2)


def reader(**overrides):
    return fill(PersimmonWithPictures(tiny(**overrides), LAYOUT)).eval()


def by_hand(model, parts):
    """The embeddings of a prompt, position by position."""
    rows = []
    for part in parts:
        if isinstance(part, list):
            rows += [model.language_model.model.embed_tokens.weight[token] for token in part]
            continue
        for top in range(0, part.shape[1], 2):
            for left in range(0, part.shape[2], 2):
                pixels = [part[:, top + down, left + right] for down in (0, 1) for right in (0, 1)]
                rows.append(model.vision_embed_tokens.weight @ torch.cat(pixels) + model.vision_embed_tokens.bias)
            rows.append(model.language_model.model.embed_tokens.weight[6])
    return torch.stack(rows)


PROMPTS = [[WIDE, [7, 8, 9]], [[7], SMALL, [9, 10], WIDE, SMALL], [[11, 12]]]


@torch.no_grad()
def test_a_batch_in_any_order_is_what_each_prompt_is_alone():
    model = reader()
    prompts = lay_out(PROMPTS, LAYOUT, pad_id=0)
    output = model.read(prompts)
    for row, parts in enumerate(PROMPTS):
        embeds = by_hand(model, parts)
        alone = model.language_model(inputs_embeds=embeds[None]).logits[0]
        assert int(prompts.attention_mask[row].sum()) == len(embeds)
        assert prompts.position_ids[row, -len(embeds) :].tolist() == list(range(len(embeds)))
        torch.testing.assert_close(output.logits[row, -len(embeds) :], alone, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("engine", [None, "plain"])
def test_generation_is_that_of_each_prompt_alone_without_a_cache(engine):
    model = reader(eos_token_id=None)
    together = model.generate(lay_out(PROMPTS, LAYOUT, pad_id=0), max_new_tokens=6, engine=engine, do_sample=False)
    for row, parts in enumerate(PROMPTS):
        embeds = by_hand(model, parts)[None].detach()
        for token in together[row].tolist():
            with torch.no_grad():
                assert int(model.language_model(inputs_embeds=embeds).logits[0, -1].argmax()) == token
            embeds = torch.cat([embeds, model.language_model.model.embed_tokens.weight[None, token][None]], dim=1)


def test_patches_are_in_reading_order_with_the_channel_running_fastest():
    patches = cut(WIDE, 2)
    assert patches.shape == (6, 12)
    for index, (top, left) in enumerate((top, left) for top in (0, 2) for left in (0, 2, 4)):
        pixels = [WIDE[channel, top + d, left + r] for d in (0, 1) for r in (0, 1) for channel in range(3)]
        assert patches[index].tolist() == [float(pixel) for pixel in pixels]
    assert torch.equal(joined(patches, rows=2, patch_size=2), WIDE)


def test_a_layout_without_ends_of_rows():
    assert Layout(2, 3, 5, 6).ids_of(2, 3) == [5, 5, 5, 6, 5, 5, 5, 6]
    assert Layout(2, 3, 5, None).ids_of(2, 3) == [5] * 6


@pytest.mark.parametrize("place_id", [0, 1, 3])
def test_padding_is_no_place(place_id):
    """Whatever id the places have, and the tokenizer pads with: there are as many places as patches."""
    layout = Layout(2, 3, place_id, 6)
    for tokenizer in (None, load_mini()[1]):  # which pads with 3
        prompts = lay_out([[WIDE, [7, 8, 9]], [[7]]], layout, tokenizer)
        assert int((prompts.input_ids == place_id).sum()) == len(prompts.patches) == 6


def test_gradients_reach_the_projection_and_a_frozen_language_stays():
    model = PersimmonWithPictures(tiny(), LAYOUT, torch.Generator().manual_seed(0)).freeze_language()
    before = {name: weight.clone() for name, weight in model.language_model.state_dict().items()}
    prompts = lay_out([[WIDE, [7, 8]]], LAYOUT, pad_id=0)
    labels = torch.where(prompts.input_ids > 6, prompts.input_ids, -100)
    optimiser = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=1.0)
    losses = []
    for _ in range(3):
        loss = model.read(prompts, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    assert {name for name, weight in model.named_parameters() if weight.grad is not None} == {
        "vision_embed_tokens.weight",
        "vision_embed_tokens.bias",
    }
    assert all(torch.equal(weight, before[name]) for name, weight in model.language_model.state_dict().items())


def test_the_projection_is_drawn_from_the_generator():
    one, same = (PersimmonWithPictures(tiny(), LAYOUT, torch.Generator().manual_seed(1)) for _ in range(2))
    other = PersimmonWithPictures(tiny(), LAYOUT, torch.Generator().manual_seed(2))
    weights = [model.vision_embed_tokens.weight for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert 0.01 < float(weights[0].detach().std()) < 0.03 and not one.vision_embed_tokens.bias.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_takes_pictures_of_float32(dtype):
    model = reader()
    prompts = lay_out([[WIDE, [7, 8]]], LAYOUT, pad_id=0)
    with torch.no_grad():
        whole = model.read(prompts).logits
        half = model.to(dtype).read(prompts).logits
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), whole, atol=0.1, rtol=0.05)


BROKEN = WIDE.clone()
BROKEN[1, 2, 3] = float("nan")
PARTS = {
    "5 high and 6 wide, which patches of 2 x 2 do not fill": torch.zeros(3, 5, 6),
    "4 high and 7 wide, which patches of 2 x 2 do not fill": torch.zeros(3, 4, 7),
    r"the picture is empty, \(3, 0, 6\)": torch.zeros(3, 0, 6),
    r"has shape \(1, 4, 6\), .* with 3 channels": torch.zeros(1, 4, 6),
    r"has shape \(4, 6\)": torch.zeros(4, 6),
    "holds nan or infinity": BROKEN,
    "no tokenizer to read it": "a text",
    "id 5 stands among the ids": [7, 5],
}


@pytest.mark.parametrize("told", PARTS)
def test_parts_that_are_refused(told):
    with pytest.raises(ValueError, match=told):
        lay_out([[[7], PARTS[told]]], LAYOUT)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (torch.zeros(3, 4, 6, dtype=torch.uint8), "a picture is torch.uint8.*prepare"),
        ([7, 1.5], r"a part of the prompt is \[7, 1.5\]"),
        ([], r"a part of the prompt is \[\]"),
    ],
)
def test_parts_of_another_kind(part, told):
    with pytest.raises(TypeError, match=told):
        lay_out([[part]], LAYOUT)


def test_prompts_that_are_none():
    with pytest.raises(ValueError, match="there are no prompts"):
        lay_out([], LAYOUT)
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        lay_out([[[7]], []], LAYOUT)
    with pytest.raises(TypeError, match="prompt 0 is a Tensor"):
        lay_out([WIDE], LAYOUT)
    with pytest.raises(ValueError, match="pad_id is 5, which is place_id"):
        lay_out([[[7]]], LAYOUT, pad_id=5)


def test_patches_and_places_that_do_not_fit():
    model = reader()
    prompts = lay_out([[WIDE, [7]]], LAYOUT, pad_id=0)
    with pytest.raises(ValueError, match="more patches than places: 8 patches, and 6 places"):
        model(prompts.input_ids, torch.cat([prompts.patches, prompts.patches[:2]]))
    with pytest.raises(ValueError, match="fewer patches than places: 0 patches, and 6 places"):
        model(prompts.input_ids)
    with pytest.raises(ValueError, match="patches have 11 numbers; this model reads 12"):
        model(prompts.input_ids, prompts.patches[:, :11])
    with pytest.raises(IndexError, match=r"token id 128 at index \[0, 8\] is outside 0 … 127"):
        model(torch.where(prompts.input_ids == 7, 128, prompts.input_ids), prompts.patches)


def test_more_than_the_model_has_positions_for():
    model = reader()  # 64 positions
    long = lay_out([[uniform("long", 3, 14, 16), [7]]], LAYOUT, pad_id=0)  # 7 rows of 8 patches and an end: 63, and one
    with pytest.raises(ValueError, match="a prompt of 64 tokens and 1 new ones"):
        model.generate(long, max_new_tokens=1)


def test_layouts_that_are_refused():
    with pytest.raises(ValueError, match="both 5"):
        Layout(2, 3, 5, 5)
    with pytest.raises(ValueError, match="patch_size 0"):
        Layout(0, 3, 5, 6)
    with pytest.raises(ValueError, match="row_end_id is 128, and the model's ids are 0 … 127"):
        PersimmonWithPictures(tiny(), Layout(2, 3, 5, 128))
    with pytest.raises(ValueError, match="make no 4 rows"):
        joined(cut(WIDE, 2), rows=4, patch_size=2)


def test_preparations_that_are_refused():
    bytes_of = torch.zeros(3, 30, 30, dtype=torch.uint8)
    with pytest.raises(TypeError, match="the picture is torch.int32"):
        prepare(bytes_of.int())
    with pytest.raises(ValueError, match="the picture is empty"):
        prepare(bytes_of[:, :0])
    with pytest.raises(ValueError, match="patches of 30 do not fill 60 x 100"):
        prepare(bytes_of, most=(60, 100))
    with pytest.raises(ValueError, match="a picture 1 high and 200 wide would be 0 x 90"):
        prepare(torch.zeros(3, 1, 200, dtype=torch.uint8), most=(60, 90))
