"""`convert` and `export`, run as a user runs them."""

import contextlib
import hashlib
import json

import pytest
import torch
from typer.testing import CliRunner

from persimmon_lab.adept import known_tars
from persimmon_lab.cli import app, convert
from persimmon_lab.mini import MINI
from tests.adept.conversions import SILENT, WITH_TOKENIZER, release, same_tensors, snapshot, stored
from tests.adept.releases import as_tar


@pytest.fixture
def run():
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def bars(monkeypatch):
    """The bars that were shown: what for, how many bytes were announced, and how many were told."""
    shown = []

    @contextlib.contextmanager
    def bar(what, total):
        shown.append([what, total, 0])

        def count(bytes_done):
            shown[-1][2] += bytes_done

        yield count

    monkeypatch.setattr(convert, "bar", bar)
    return shown


def test_convert_says_what_it_did(run, tmp_path):
    whole = release(tmp_path / "release", tensor_parallel=2, args=SILENT, **WITH_TOKENIZER)
    result = run("convert", tmp_path / "release", tmp_path / "out", "--verify")
    parameters = sum(tensor.numel() for tensor in whole.values())
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        f"{tmp_path / 'out'}: {parameters:,} parameters, bfloat16, 167 kB",
        "3 layers, 4 heads of 8, hidden 32, MLP 128, vocabulary 704, context 48, theta 25000",
        "texts begin with token 3 and end with 3",
        "every tensor is equal to the bit, and the logits of a forward pass are finite and equal",
    ]
    same_tensors(stored(tmp_path / "out"), whole)


def test_convert_says_what_it_assumed(run, tmp_path):
    release(tmp_path / "release", args=False)
    lines = run("convert", tmp_path / "release", tmp_path / "out").stdout.splitlines()
    assert [line for line in lines if line.startswith("note: ")] == [
        "note: there are no args: sizes are those of the tensors",
        "note: not in the release, so assumed as in Persimmon-8B: seq_length 16384, layernorm_epsilon 1e-05, pos_emb "
        "rotary, sq_relu True, apply_residual_connection_post_layernorm False",
        "note: there is no adept_vocab.model, so no token is known to begin or end a text",
    ]


def test_convert_takes_a_dtype_and_a_shard_size(run, tmp_path):
    whole = release(tmp_path / "release")
    run("convert", tmp_path / "release", tmp_path / "out", "--dtype", "float32", "--max-shard-size", "60KB")
    assert len(list((tmp_path / "out").glob("model-*"))) > 2
    same_tensors(stored(tmp_path / "out"), {name: tensor.float() for name, tensor in whole.items()})


def test_a_published_tar_is_recognised(run, tmp_path, monkeypatch):
    release(tmp_path / "release")
    tar = as_tar(tmp_path / "release")
    digest = hashlib.md5(tar.read_bytes()).hexdigest()
    monkeypatch.setattr(known_tars, "PUBLISHED", {digest: "8b_base_model_release.tar"})
    result = run("convert", tar, tmp_path / "out")
    assert f"{tar} has the md5 of 8b_base_model_release.tar, as Adept published it" in result.stdout
    monkeypatch.undo()
    damaged = tar.rename(tmp_path / "8b_chat_model_release.tar")
    before = snapshot(tmp_path)
    result = run("convert", damaged, tmp_path / "other")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"its md5 is {digest} and not 663aeace07269c44e90f4e8bcd07f32a" in result.stderr
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["there/is/none", "out"], "there is no there/is/none; give the folder of a release"),
        (["{release}", "{release}"], "is no Persimmon checkpoint that could be replaced"),
        (["{release}", "out", "--dtype", "int8"], "dtype is 'int8'; choose one of"),
        (["{release}", "out", "--max-shard-size", "5XB"], "max_shard_size is '5XB'"),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    release(tmp_path / "release")
    before = snapshot(tmp_path)
    result = run("convert", *(argument.format(release=tmp_path / "release") for argument in arguments))
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert result.stderr.startswith("persimmon-lab: ") and message in result.stderr
    assert snapshot(tmp_path) == before


def test_the_bars_come_to_their_ends(run, tmp_path, bars):
    release(tmp_path / "release", tensor_parallel=2)
    tar = as_tar(tmp_path / "release")
    run("convert", tar, tmp_path / "out", "--verify", "--dtype", "float32")
    run("export", tmp_path / "out", tmp_path / "hf", "--format", "hf", "--dtype", "bfloat16")
    run("export", tmp_path / "out", tmp_path / "adept", "--format", "adept")
    assert [what for what, _, _ in bars] == ["Recognising", "Converting", "Comparing", "Writing", "Writing"]
    assert all(announced == told > 50_000 for _, announced, told in bars)
    assert bars[1][1] == 2 * bars[3][1]


def test_export_there_and_back(run, tmp_path):
    """The shipped model as a release for two ranks, converted again; only the padding token is not in a release."""
    result = run("export", "mini", tmp_path / "adept", "--format", "adept", "--tensor-parallel", 2)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{tmp_path / 'adept'}\n", "")
    run("convert", tmp_path / "adept", tmp_path / "out")
    same_tensors(stored(tmp_path / "out"), stored(MINI))
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "out", MINI))
    assert ours == theirs | {"pad_token_id": None}


def test_export_in_another_dtype(run, tmp_path):
    result = run("export", "mini", tmp_path / "hf", "--format", "hf", "--dtype", "float32", "--max-shard-size", "10MB")
    assert result.exit_code == 0
    assert len(list((tmp_path / "hf").glob("model-*"))) > 2
    same_tensors(stored(tmp_path / "hf"), {name: tensor.to(torch.float32) for name, tensor in stored(MINI).items()})


@pytest.mark.parametrize("arguments", [["export", "mini", "out"], ["export", "mini", "out", "--format", "gguf"],
                                       ["convert", "release"], ["export", "mini", "o", "--format", "adept",
                                                                "--tensor-parallel", "0"]])  # fmt: skip
def test_command_lines_without_sense_exit_with_2(run, arguments):
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_convert_rounds(run, bars, tmp_path, quantize):
    release(tmp_path / "release", args=SILENT, **WITH_TOKENIZER)
    result = run("convert", tmp_path / "release", tmp_path / "out", "--quantize", quantize, "--verify")
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"parameters, {quantize} and bfloat16" in result.stdout
    assert "every tensor, rounded once more, is equal to the bit" in result.stdout
    converting, comparing = bars[1:]
    assert converting[1] == converting[2] == comparing[2]
    shown = run("inspect", tmp_path / "out", "--json")
    report = json.loads(shown.stdout)
    assert report["parameters"] == report["expected_parameters"]
    assert report["dtypes"] == ["bfloat16", quantize]
    assert sum(tensor["bytes"] for tensor in report["tensors"]) == converting[2]
