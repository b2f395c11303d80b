"""What the benchmark of rounded weights writes down: bytes that it counts, and the relations of its figures."""

import json

import pytest
import torch

from benchmarks import quantisation
from persimmon_lab import load_mini


def test_rows_predict_the_bytes_that_are_counted():
    tokenizer = load_mini()[1]
    text = "human: Hello, how are you?\n\nadept: Fine, thank you. " * 40
    rows, size = quantisation.cut(tokenizer, text, 1)
    assert rows.shape == (1, 513)
    assert torch.equal(rows[0], torch.tensor(tokenizer.encode(text, add_special_tokens=False))[:513])
    assert size == len(tokenizer.decode(rows[0, 1:]).encode())


def test_the_price_is_written_down(tmp_path, monkeypatch):
    monkeypatch.setattr(quantisation, "LENGTH", 16)
    (tmp_path / "verse.txt").write_text("Shall I compare thee to a summer's day? Thou art more lovely.")
    out = tmp_path / "results.json"
    quantisation.main(["price", "--held-out", str(tmp_path), "--rows", "1", "--out", str(out)])
    formats = json.loads(out.read_text())["price"]["formats"]
    assert list(formats) == ["float32", "bfloat16", "int8", "int4"]
    assert formats["bfloat16"]["agreement"]["verse"] == 1
    assert formats["bfloat16"]["kl"]["verse"] == 0
    assert 0 < formats["int8"]["kl"]["verse"] < formats["int4"]["kl"]["verse"]
    for entry in formats.values():
        assert entry["bits_per_byte"]["verse"] == pytest.approx(formats["float32"]["bits_per_byte"]["verse"], rel=0.1)


def test_random_tensors_are_streams():
    source = quantisation.Drawn((5, 64), seed=3)
    pieces = list(source.pieces(2))
    assert [piece.shape for piece in pieces] == [(2, 64), (2, 64), (1, 64)]
    assert sum(piece.nbytes for piece in pieces) == source.nbytes
    assert not torch.equal(pieces[0], pieces[1])
    assert all(torch.equal(one, other) for one, other in zip(pieces, source.pieces(2), strict=True))
    assert torch.cat(pieces).float().std() == pytest.approx(0.02, rel=0.3)
    [vector] = quantisation.Drawn((64,), seed=3).pieces(100)
    assert vector.float().mean() == pytest.approx(1, abs=0.02)
