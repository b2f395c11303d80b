"""Nothing is allocated before it is asked for, and what is taken is what fits; free memory is a stand-in here."""

from dataclasses import replace

import pytest
import torch

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM, footprint, load_mini
from persimmon_lab.fitting import choosing
from persimmon_lab.fitting.choosing import (
    check_room_for_copies,
    choose,
    comparison_bytes,
    first_layers,
    how_many_fit,
    load_what_fits,
    positions_that_fit,
)
from persimmon_lab.fitting.memory import weight_bytes
from persimmon_lab.mini import REAL
from persimmon_lab.numerics.borrowing import computing_in
from persimmon_lab.numerics.compare import in_dtype
from persimmon_lab.numerics.formats import FORMATS
from persimmon_lab.numerics.islands import keep_in_float32
from persimmon_lab.numerics.noise import neighbour, noise
from persimmon_lab.numerics.recipes import FLOAT16, fine_tune
from persimmon_lab.numerics.stress import scale_mlp, scale_residual
from tests.models import ids, tiny

PERSIMMON_8B = PersimmonConfig.persimmon_8b()
BFLOAT16 = torch.bfloat16


@pytest.fixture
def free(monkeypatch):
    def set_free(size):
        monkeypatch.setattr(footprint, "free_memory", lambda: {"cpu": int(size)})

    return set_free


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A folder such as `convert` writes, of 4 layers, and the model in it; the variable names it."""
    shipped, tokenizer = load_mini()
    model = tiny(vocab_size=shipped.config.vocab_size, num_hidden_layers=4).to(BFLOAT16)
    folder = tmp_path / "persimmon-8b-chat"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    monkeypatch.setenv(REAL, str(folder))
    return folder, model


@pytest.mark.parametrize(
    ("gigabytes", "layers"),
    [(80, 36), (24, 36), (22, 36), (20, 34), (16, 24), (8, 5), (4, 0)],
)
def test_of_the_8b_as_many_layers_as_there_is_room_for(free, gigabytes, layers):
    free(gigabytes * 1e9)
    choice = choose(PERSIMMON_8B, BFLOAT16, "cpu", spare=1_000_000_000)
    assert choice.layers == layers
    assert not layers or choice.needed(layers) <= 0.95 * gigabytes * 1e9
    assert choice.is_whole or choice.needed(layers + 1) > 0.95 * gigabytes * 1e9
    assert choice.needed(36) == weight_bytes(PERSIMMON_8B, BFLOAT16) + 1_000_000_000


def test_a_choice_says_what_it_took_and_why(free):
    free(22e9)
    assert str(choose(PERSIMMON_8B, BFLOAT16)) == "all 36 layers, 18.8 GB in bfloat16; 22 GB are free on cpu"
    free(16e9)
    assert str(choose(PERSIMMON_8B, BFLOAT16)) == (
        "the first 27 of 36 layers, 15.2 GB; all would take 18.8 GB in bfloat16, and 16 GB are free on cpu"
    )
    free(1e9)
    assert str(choose(PERSIMMON_8B, BFLOAT16)) == (
        "none of 36 layers, persimmon-mini in their place: 18.8 GB in bfloat16, and 1 GB are free on cpu"
    )


def test_where_nobody_says_what_is_free_it_takes_all(monkeypatch):
    monkeypatch.setattr(footprint, "free_memory", dict)
    assert str(choose(PERSIMMON_8B, BFLOAT16)).endswith("what is free is not known")
    assert choose(PERSIMMON_8B, BFLOAT16).is_whole
    assert positions_that_fit(PERSIMMON_8B, BFLOAT16, "cpu", 2048) == 2048
    assert how_many_fit(10**12, "cpu", 36) == 36


def test_rounded_weights_are_taken_whole(free, stored, tmp_path, monkeypatch, capsys):
    folder, _ = stored
    model = PersimmonForCausalLM.from_pretrained(folder, quantize="int4")
    model.save_pretrained(tmp_path / "four bits")
    load_mini()[1].save_pretrained(tmp_path / "four bits")
    monkeypatch.setenv(REAL, str(tmp_path / "four bits"))
    free(1)
    loaded = load_what_fits(device="cpu")
    size = footprint.in_bytes(model.get_memory_footprint())
    assert capsys.readouterr().out == f"four bits: all 4 layers, {size} in int4\n"
    assert torch.equal(loaded.model(ids()).logits, model(ids()).logits)
    assert loaded.model.dtype == BFLOAT16


def test_what_fits_is_loaded_and_said(free, stored, capsys):
    folder, model = stored
    whole = load_what_fits(device="cpu")
    assert capsys.readouterr().out.startswith("persimmon-8b-chat: all 4 layers, ")
    assert torch.equal(whole.model(ids()).logits, model(ids()).logits)
    assert (whole.name, whole.is_real) == ("persimmon-8b-chat", True)

    room = weight_bytes(replace(model.config, num_hidden_layers=2), BFLOAT16) / 0.95 + 1000
    free(room)
    part = load_what_fits(device="cpu")
    assert "the first 2 of 4 layers" in capsys.readouterr().out
    assert part.name == "persimmon-8b-chat, first 2 of 4 layers"
    assert part.model.config.num_hidden_layers == 2
    states = [m(ids(), output_hidden_states=True).hidden_states for m in (model, part.model)]
    assert all(torch.equal(one, other) for one, other in zip(states[0][:2], states[1]))

    free(room)
    fewer = load_what_fits(
        device="cpu", spare=lambda config: weight_bytes(replace(config, num_hidden_layers=1), BFLOAT16)
    )
    assert (fewer.name, fewer.is_real) == ("persimmon-mini", False)
    assert "persimmon-mini in their place" in capsys.readouterr().out


def test_without_an_8b_nothing_is_said(monkeypatch, capsys):
    monkeypatch.delenv(REAL, raising=False)
    assert str(load_what_fits(device="cpu")) == "persimmon-mini, float32 on cpu"
    assert str(load_what_fits(torch_dtype=BFLOAT16, device="cpu")) == "persimmon-mini, bfloat16 on cpu"
    assert capsys.readouterr().out == ""


def test_first_layers_are_those_of_the_whole(stored):
    folder, model = stored
    part = first_layers(folder, 3, torch.float32)
    weights = model.state_dict()
    assert not part.training
    assert {name.split(".")[2] for name in part.state_dict() if ".layers." in name} == {"0", "1", "2"}
    assert all(torch.equal(tensor, weights[name].float()) for name, tensor in part.state_dict().items())
    for layers in (0, 5):
        with pytest.raises(ValueError, match=f"layers is {layers}; .* has 4"):
            first_layers(folder, layers, torch.float32)


COPIES = {
    "scale_mlp": lambda model: scale_mlp(model, 2.0),
    "scale_residual": lambda model: scale_residual(model, 2.0),
    "keep_in_float32": lambda model: keep_in_float32(model, torch.float16, ["*.mlp"]),
    "a neighbour": lambda model: neighbour(model, FORMATS["bfloat16"], torch.Generator()),
    "noise": lambda model: noise(model, model, ids()),
    "in_dtype": lambda model: in_dtype(model, torch.float64),
    "a step": lambda model: fine_tune(model, [ids()], replace(FLOAT16, steps=1)),
}


@pytest.mark.parametrize("what", COPIES)
def test_who_copies_a_model_asks_first(free, what):
    model = tiny()
    free(1000)
    with pytest.raises(MemoryError, match=rf"{what} copies the model: .* kB on cpu, where 1 kB are free.*first_layers"):
        COPIES[what](model)
    free(1e9)
    COPIES[what](model)


def test_the_8b_is_refused_by_its_numbers(monkeypatch):
    with torch.device("meta"):
        model = PersimmonForCausalLM(PERSIMMON_8B)
    check_room_for_copies(model, [torch.float32], "nobody says what is free on meta")
    monkeypatch.setattr(choosing, "free_on", lambda device: 5_000_000_000)
    for dtypes, size in (
        ([torch.float32], "37.6 GB"),
        ([torch.float64], "75.2 GB"),
        ([torch.float32, BFLOAT16], "56.4 GB"),
    ):
        with pytest.raises(MemoryError, match=f"it copies the model: {size} on meta, where 5 GB are free"):
            check_room_for_copies(model, dtypes, "it")


def test_a_row_is_as_long_as_its_logits_allow(free):
    """After the 8B has been loaded into 22 GB: 3 are left, and section 13 of notebook 04 asks for more than 256."""
    lengths = {}
    for gigabytes in (1.5, 3, 5, 20):
        free(gigabytes * 1e9)
        lengths[gigabytes] = positions_that_fit(PERSIMMON_8B, BFLOAT16, "cpu", 2048)
        longer = lengths[gigabytes] + 64
        assert comparison_bytes(PERSIMMON_8B, BFLOAT16, lengths[gigabytes]) <= 0.95 * gigabytes * 1e9
        assert longer > 2048 or comparison_bytes(PERSIMMON_8B, BFLOAT16, longer) > 0.95 * gigabytes * 1e9
    assert lengths[20] == 2048
    assert lengths[3] > 320
    assert list(lengths.values()) == sorted(lengths.values())
    free(1)
    assert positions_that_fit(PersimmonConfig.tiny(), BFLOAT16, "cpu", 40) == 40
    assert positions_that_fit(PersimmonConfig.tiny(), BFLOAT16, "cpu", 500) == 64


def test_how_many_fit_takes_half_of_what_is_free(free):
    free(1000)
    assert [how_many_fit(size, "cpu", 36) for size in (10, 100, 10_000)] == [36, 5, 1]
    assert [how_many_fit(100, "cpu", 36, spare) for spare in (0, 300, 5_000)] == [5, 3, 1]


def test_the_notebooks_have_room_on_24_gigabytes(free):
    """With 22 of them free: what notebooks 04, 10 and 11 ask to be spared, beside the whole 8B."""
    free(22e9)
    for positions, runs in ((320, 2), (64, 4), (256, 4)):
        spare = comparison_bytes(PERSIMMON_8B, BFLOAT16, positions, runs)
        assert choose(PERSIMMON_8B, BFLOAT16, "cpu", spare).is_whole, (positions, spare)


def test_a_twin_takes_no_memory(free):
    free(0)
    model = tiny()
    shared = {weight.data_ptr() for weight in model.parameters()}
    assert {weight.data_ptr() for weight in computing_in(model, torch.float64).parameters()} == shared
