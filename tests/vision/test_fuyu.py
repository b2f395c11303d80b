"""A Fuyu of transformers' and ours: its folder, its processor's patches and ids, its numbers, its text."""

import json

import numpy as np
import pytest
import torch

from persimmon_lab import PersimmonTokenizer
from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.vision import cut, lay_out
from persimmon_lab.vision.fuyu import fuyu_prompt, load_fuyu, save_fuyu
from persimmon_lab.vision.fuyu_config import FuyuConfig
from persimmon_lab.vision.preparation import prepare

transformers = pytest.importorskip("transformers", minversion="5.23", reason="its Fuyu took other arguments before")
from tests.vision import fuyu  # noqa: E402

TEXTS = ["What is it?", "Name the thing over there."]
SIZES = [(70, 71), (30, 95)]  # both are made smaller, to 60 x 60 (60.86, cut off) and 28 x 90


def pictures(sizes=SIZES):
    generator = np.random.default_rng(0)
    return [torch.from_numpy(generator.integers(0, 256, (3, *size), dtype=np.uint8)) for size in sizes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuyu")
    fuyu.their_model().save_pretrained(folder)
    fuyu.write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return load_fuyu(folder)


@pytest.fixture(scope="module")
def tokenizer(folder):
    return PersimmonTokenizer.from_pretrained(folder)


def theirs_of(folder, given, texts):
    return fuyu.their_processor(folder)(
        images=[picture.permute(1, 2, 0).numpy() for picture in given], text=texts, return_legacy_image_output=False
    )


def ours_of(model, tokenizer, given, texts):
    prepared = [prepare(picture, most=(60, 90)) for picture in given]
    rows = [fuyu_prompt(picture, text, tokenizer) for picture, text in zip(prepared, texts)]
    return lay_out(rows, model.layout, pad_id=0, tokenizer=tokenizer)


def test_patches_ids_and_mask_are_their_processors(folder, model, tokenizer):
    """Two pictures of a batch, unlike in size, padded with black below and on the right, on the left of the ids."""
    given = pictures([(50, 40), (30, 90)])
    theirs, ours = theirs_of(folder, given, TEXTS), ours_of(model, tokenizer, given, TEXTS)
    assert torch.equal(ours.input_ids, theirs["input_ids"])
    assert torch.equal(ours.attention_mask, theirs["attention_mask"])
    assert torch.equal(ours.patches, theirs["pixel_values"])
    assert (ours.attention_mask == 0).any() and ours.patches.min() < -0.99


def test_a_picture_that_is_made_smaller_is_a_step_of_255_away_at_most(folder, model, tokenizer):
    given = pictures()
    theirs, ours = theirs_of(folder, given, TEXTS), ours_of(model, tokenizer, given, TEXTS)
    assert torch.equal(ours.input_ids, theirs["input_ids"])
    assert (ours.patches - theirs["pixel_values"]).abs().max() <= 1.01 * 2 / 255


@torch.no_grad()
def test_logits_and_text_are_theirs(folder, model, tokenizer, report_table):
    ours = ours_of(model, tokenizer, pictures(), TEXTS)
    them = fuyu.their_model()
    given = {"input_ids": ours.input_ids, "pixel_values": ours.patches, "attention_mask": ours.attention_mask}
    theirs = them(**given, position_ids=ours.position_ids).logits
    mine = model.read(ours).logits
    seen = ours.attention_mask.bool()
    difference = float((theirs - mine)[seen].abs().max())
    row = {"logits up to": float(theirs.abs().max()), "differ by": difference, "transformers": transformers.__version__}
    report_table("A Fuyu of random weights, two pictures in a batch", [row])
    assert difference < 1e-5 and theirs[seen].std() > 0.1
    settings = {"max_new_tokens": 12, "do_sample": False}
    whole = them.generate(**given, **settings)
    assert torch.equal(model.generate(ours, **settings), whole[:, ours.input_ids.shape[1] :])


@torch.no_grad()
def test_several_pictures_in_one_text(model):
    """Their processor takes one; their model reads as many as have places."""
    first, second = (prepare(picture, most=(60, 90)) for picture in pictures([(30, 60), (60, 30)]))
    ours = lay_out([[[11, 12], second, [13], first, [14, 15]], [first, [16], second]], model.layout, pad_id=0)
    them = fuyu.their_model()
    given = {"input_ids": ours.input_ids, "pixel_values": ours.patches, "attention_mask": ours.attention_mask}
    theirs = them(**given, position_ids=ours.position_ids).logits
    seen = ours.attention_mask.bool()
    torch.testing.assert_close(model.read(ours).logits[seen], theirs[seen], atol=1e-5, rtol=0)
    assert torch.equal(ours.patches[:2], cut(second, 30))


def test_every_tensor_is_where_it_belongs(model):
    theirs = dict(fuyu.their_model().named_parameters())
    ours = dict(model.named_parameters())
    assert len(theirs) == len(ours)
    for name, weight in theirs.items():
        renamed = name.removeprefix("model.").replace("language_model.", "language_model.model.", 1)
        assert torch.equal(ours["language_model.lm_head.weight" if name == "lm_head.weight" else renamed], weight)


def test_names_of_transformers_memory_are_read_as_well(folder, model, tmp_path):
    """Older files have the names of files, and some tools write a state_dict as it is."""
    from safetensors.torch import save_file

    save_file(fuyu.their_model().state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    other = load_fuyu(tmp_path, row_end_id=fuyu.ROW_END)
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), model.parameters(), strict=True))


def test_what_is_written_is_read_by_transformers(model, tmp_path):
    from transformers import FuyuForCausalLM

    save_fuyu(model, tmp_path / "saved")
    theirs = FuyuForCausalLM.from_pretrained(tmp_path / "saved").eval()
    again = load_fuyu(tmp_path / "saved", row_end_id=fuyu.ROW_END)
    ours = lay_out([[torch.zeros(3, 30, 60), [7, 8, 9]]], model.layout, pad_id=0)
    with torch.no_grad():
        expected = model.read(ours).logits
        found = theirs(input_ids=ours.input_ids, pixel_values=ours.patches).logits
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        assert torch.equal(again.read(ours).logits, expected)


def test_a_tied_head(tmp_path):
    from transformers import FuyuConfig as Theirs
    from transformers import FuyuForCausalLM

    values = fuyu.their_model().config.to_dict() | {"tie_word_embeddings": True}
    them = FuyuForCausalLM(Theirs(**values)).eval()
    them.save_pretrained(tmp_path)
    model = load_fuyu(tmp_path, row_end_id=fuyu.ROW_END)
    assert model.language_model.lm_head.weight is model.language_model.model.embed_tokens.weight
    prompt = lay_out([[torch.ones(3, 30, 30), [7, 8]]], model.layout, pad_id=0)
    with torch.no_grad():
        theirs = them(input_ids=prompt.input_ids, pixel_values=prompt.patches).logits
        torch.testing.assert_close(model.read(prompt).logits, theirs, atol=1e-5, rtol=0)


FLAT = {
    "model_type": "fuyu", "vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "rope_theta": 25000.0, "image_token_id": 5, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "patch_size": 30, "num_channels": 3, "image_size": 300,
}  # fmt: skip


def test_a_flat_config_is_read_as_adept_wrote_it():
    config = FuyuConfig.from_dict(FLAT)
    assert (config.patch_size, config.channels, config.place_id) == (30, 3, 5)
    assert (config.text.hidden_size, config.text.rope_theta, config.text.torch_dtype) == (64, 25000.0, "bfloat16")
    assert FuyuConfig.from_dict(config.to_dict("bfloat16")).text.rotary_dim == config.text.rotary_dim == 8
    without = {name: value for name, value in FLAT.items() if name != "rope_theta"}
    with pytest.warns(UserWarning, match="no rope_theta: 25000"):
        assert FuyuConfig.from_dict(without).text.rope_theta == 25000.0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model_type": "persimmon"}, "model_type is 'persimmon', not 'fuyu'"),
        ({"patch_size": 0}, "patch_size is 0"),
        ({"num_channels": 2.5}, "num_channels is 2.5"),
        ({"image_token_id": 128}, "image_token_id is 128, and there are 128 ids"),
        ({"text_config": {"tie_word_embeddings": True}}, "contradictory: tie_word_embeddings"),
        ({"hidden_size": 63}, "hidden_size 63"),
    ],
)
def test_configs_that_are_none(change, told):
    with pytest.raises(ValueError, match=told):
        FuyuConfig.from_dict(FLAT | change)


def test_folders_that_are_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="does not say which token ends a row"):
        load_fuyu(tmp_path)
    fuyu.write_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"image_token_id": 7}))
    with pytest.raises(CheckpointError, match="contradicts itself: a patch's place is 7"):
        load_fuyu(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"patch_size": 20}))
    with pytest.raises(
        CheckpointError, match=r"vision_embed_tokens.weight is \(64, 2700\), the model's is \(64, 1200\)"
    ):
        load_fuyu(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    del tensors["vision_embed_tokens.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="1 missing: vision_embed_tokens.bias"):
        load_fuyu(tmp_path)


def test_prompts_that_are_refused(tokenizer):
    with pytest.raises(NotImplementedError, match="<box>"):
        fuyu_prompt(torch.zeros(3, 30, 30), "Read <box>1, 2, 3, 4</box>", tokenizer)
    with pytest.raises(ValueError, match=r"no \|NEWLINE\|"):
        from persimmon_lab import load_mini
        from persimmon_lab.vision import fuyu as module

        module._id_of("|NEWLINE|", load_mini()[1])
