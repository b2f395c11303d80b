"""Every release that cannot be converted is refused in words of its own, and leaves no trace."""

import re
from pathlib import Path

import pytest
import torch

from persimmon_lab.adept.convert import convert
from persimmon_lab.checkpoints.errors import CheckpointError
from tests.adept.conversions import TOKENIZER, release, snapshot
from tests.adept.releases import as_tar

FILE = Path("iter_0001000", "mp_rank_00", "model_optim_rng.pt")


def refused(folder: Path, *words: str, source: Path | None = None):
    """Conversion fails with all these words, and the disk is as it was: no folder, no staging, nothing half-written."""
    before = snapshot(folder)
    with pytest.raises(CheckpointError) as caught:
        convert(source or folder / "release", folder / "out")
    for word in words:
        assert word in str(caught.value)
    assert snapshot(folder) == before


def encoder(checkpoint: dict) -> dict:
    return checkpoint["model"]["language_model"]["encoder"]


# Tensors


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("options", [{}, {"tensor_parallel": 2}], ids=str)
def test_numbers_that_are_not_finite(tmp_path, value, options):
    """Found while the weights are written, after a shard was finished: it goes as well."""

    def spoil(checkpoint, stage, rank):
        if rank == options.get("tensor_parallel", 1) - 1:
            encoder(checkpoint)["layers.2.mlp.dense_4h_to_h.weight"][3, 5] = value

    release(tmp_path / "release", edit=spoil, **options)
    refused(tmp_path, "model.layers.2.mlp.dense_4h_to_h.weight holds numbers that are not finite")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: e.pop("layers.1.mlp.dense_h_to_4h.bias"), "1 missing: model.layers.1.mlp.dense_h_to_4h.bias"),
        (lambda e: e.pop("final_layernorm.weight"), "1 missing: model.final_layernorm.weight"),
        (
            lambda e: e.update({"layers.1.inter_attention.dense.bias": torch.ones(32)}),
            "1 unexpected: model.layers.1.inter_attention.dense.bias",
        ),
        (
            lambda e: e.update({"layers.1.mlp.dense_h_to_4h.bias": torch.ones(7)}),
            "1 of another shape: model.layers.1.mlp.dense_h_to_4h.bias is (7,), the model's is (128,)",
        ),
        (
            lambda e: e.update({"layers.1.mlp.dense_h_to_4h.bias": torch.ones(128, dtype=torch.int8)}),
            "1 not floating point (a quantised checkpoint?): model.layers.1.mlp.dense_h_to_4h.bias is torch.int8",
        ),
        (
            lambda e: [e.pop(name) for name in list(e) if name.startswith("layers.2.")],
            "num_layers: args say 3, the tensors 2",
        ),
        (
            lambda e: e.update({f"layers.3.{n[9:]}": t for n, t in list(e.items()) if n.startswith("layers.2.")}),
            "num_layers: args say 3, the tensors 4",
        ),
    ],
    ids=["missing", "missing norm", "extra", "shape", "integers", "missing layer", "extra layer"],
)
def test_other_tensors_than_the_model_has(tmp_path, change, words):
    release(tmp_path / "release", edit=lambda checkpoint, stage, rank: change(encoder(checkpoint)))
    refused(tmp_path, words)


def test_no_embedding(tmp_path):
    release(tmp_path / "release", edit=lambda c, stage, rank: c["model"]["language_model"].pop("embedding"))
    refused(tmp_path, "1 missing: model.embed_tokens.weight")


def test_no_model(tmp_path):
    release(tmp_path / "release", edit=lambda checkpoint, stage, rank: checkpoint.pop("model"))
    refused(
        tmp_path, "pipeline stage 0, tensor rank 0 holds no model, but checkpoint_version, iteration, rng_state, args"
    )


# Ranks


def test_copies_that_differ_between_ranks(tmp_path):
    def spoil(checkpoint, stage, rank):
        if rank == 3:
            encoder(checkpoint)["layers.1.post_attention_layernorm.weight"] += 1

    release(tmp_path / "release", tensor_parallel=4, edit=spoil)
    refused(
        tmp_path, "should be the same on every rank", "layers.1.post_attention_layernorm.weight (tensor ranks 0 and 3)"
    )


def test_parts_that_do_not_fit_together(tmp_path):
    def spoil(checkpoint, stage, rank):
        if rank == 1:
            encoder(checkpoint)["layers.0.mlp.dense_h_to_4h.weight"] = torch.ones(64, 33)

    release(tmp_path / "release", tensor_parallel=2, edit=spoil)
    refused(tmp_path, "the ranks' parts of model.layers.0.mlp.dense_h_to_4h.weight do not fit together", "(64, 33)")


@pytest.mark.parametrize(
    ("rank", "words"),
    [
        ("mp_rank_01", "there is no mp_rank_01"),
        ("mp_rank_03", "tensor_model_parallel_size: args say 4, but there are 3; files of other ranks are missing"),
    ],
)
def test_missing_ranks(tmp_path, rank, words):
    release(tmp_path / "release", tensor_parallel=4)
    (tmp_path / "release" / "iter_0001000" / rank / "model_optim_rng.pt").unlink()
    refused(tmp_path, words)


def test_missing_stages(tmp_path):
    release(tmp_path / "release", pipeline=3)
    (tmp_path / "release" / "iter_0001000" / "mp_rank_00_002" / "model_optim_rng.pt").unlink()
    refused(tmp_path, "pipeline_model_parallel_size: args say 3, but there are 2; files of other ranks are missing")


def test_a_missing_rank_shows_without_args(tmp_path):
    release(tmp_path / "release", tensor_parallel=2, args=False)
    (tmp_path / "release" / "iter_0001000" / "mp_rank_01" / "model_optim_rng.pt").unlink()
    refused(
        tmp_path,
        "of another shape",
        "model.layers.0.self_attn.query_key_value.weight is (48, 32), the model's is (96, 32)",
    )


def test_a_head_that_contradicts_its_tied_embedding(tmp_path):
    def spoil(checkpoint, stage, rank):
        if stage == 2:
            checkpoint["model"]["word_embeddings_for_head"]["weight"] = torch.ones(64, 32, dtype=torch.bfloat16)

    release(tmp_path / "release", tied=True, pipeline=3, edit=spoil)
    refused(tmp_path, "untie_embeddings is off, but lm_head.weight and model.embed_tokens.weight are two different")


# Other models


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"args": {"pos_emb": "learned"}}, "pos_emb is 'learned'"),
        ({"args": {"apply_residual_connection_post_layernorm": True}}, "Persimmon is pre-LayerNorm"),
        ({"args": {"sq_relu": None}}, "sq_relu is off"),
        ({"args": {"hidden_size": 64}}, "hidden_size: args say 64, the tensors 32"),
        ({"args": {"rotary_emb_base": 10000}}, "rotary_emb_base 10000 does not give the frequencies in"),
        ({"qk_layernorm": "weights_per_attention_head_and_layer"}, "one query and one key norm for all heads"),
        (
            {"qk_layernorm": "weights_per_tensor_parallel_rank_and_layer", "tensor_parallel": 2},
            "qk_layernorm is weights_per_tensor_parallel_rank_and_layer, and the ranks differ",
        ),
        ({"kv_channels": 16}, "kv_channels 16 x num_attention_heads 4 is not hidden_size 32"),
    ],
    ids=str,
)
def test_other_models(tmp_path, options, words):
    release(tmp_path / "release", **options)
    refused(tmp_path, words)


def test_norms_of_ranks_that_agree_are_the_layer_s(tmp_path):
    def agree(checkpoint, stage, rank):
        for name, tensor in encoder(checkpoint).items():
            if re.search("[qk]_layernorm", name):
                tensor.fill_(1.5)

    release(
        tmp_path / "release", qk_layernorm="weights_per_tensor_parallel_rank_and_layer", tensor_parallel=2, edit=agree
    )
    assert convert(tmp_path / "release", tmp_path / "out").config.qk_layernorm


def test_learned_positions_without_args(tmp_path):
    def add_positions(checkpoint, stage, rank):
        embedding = checkpoint["model"]["language_model"]["embedding"]
        embedding["position_embeddings"] = {"weight": torch.ones(48, 32)}

    release(tmp_path / "release", args=False, edit=add_positions)
    refused(tmp_path, "there is a table of learned positions")


# Files


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.99])
def test_files_that_are_cut_off(tmp_path, kept):
    release(tmp_path / "release")
    data = (tmp_path / "release" / FILE).read_bytes()
    (tmp_path / "release" / FILE).write_bytes(data[: int(kept * len(data))])
    refused(tmp_path, "model_optim_rng.pt", "truncated or damaged")


@pytest.mark.parametrize("options", [{}, {"tensor_parallel": 2}], ids=str)
def test_a_flipped_bit(tmp_path, options):
    """In the last tensor that is written: all that came before goes as well."""
    whole = release(tmp_path / "release", dtype=torch.float32, **options)
    data = bytearray((tmp_path / "release" / FILE).read_bytes())
    position = data.find(whole["lm_head.weight"][:4].numpy().tobytes())
    assert position > 0
    data[position] ^= 1
    (tmp_path / "release" / FILE).write_bytes(data)
    refused(tmp_path, "model_optim_rng.pt", "CRC-32 differs")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "The file is empty"), (b"<!DOCTYPE html>\n<title>404</title>", "It is text, such as the error page")],
)
def test_files_that_are_something_else(tmp_path, content, words):
    release(tmp_path / "release")
    (tmp_path / "release" / FILE).write_bytes(content)
    refused(tmp_path, words)
    refused(tmp_path, words, source=tmp_path / "release" / FILE)


class Canary:
    """Code in a pickle: it would leave a file behind."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_the_pickle_never_runs(tmp_path, legacy):
    def hide(checkpoint, stage, rank):
        checkpoint["args"].helper = Canary(tmp_path / "ran")

    release(tmp_path / "release", legacy=legacy, edit=hide)
    before = snapshot(tmp_path)
    with pytest.raises(CheckpointError):
        convert(tmp_path / "release", tmp_path / "out")
    assert snapshot(tmp_path) == before


def test_a_damaged_tar(tmp_path):
    release(tmp_path / "release")
    tar = as_tar(tmp_path / "release")
    tar.write_bytes(tar.read_bytes()[:100_000])
    refused(tmp_path, "release.tar", source=tar)


@pytest.mark.parametrize(
    ("tokenizer", "words"),
    [
        (TOKENIZER[:5000], "release holds no sentencepiece model (5,000 bytes)"),
        (TOKENIZER, "adept_vocab.model has 700 pieces, but the model has embeddings for 64 tokens"),
    ],
    ids=["damaged", "too large"],
)
def test_a_tokenizer_of_something_else(tmp_path, tokenizer, words):
    release(tmp_path / "release", tokenizer=tokenizer)
    refused(tmp_path, words)


def test_nothing_there(tmp_path):
    refused(tmp_path, "there is no", "give the folder of a release")
