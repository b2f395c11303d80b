"""The order of the data and the copying drills."""

import numpy as np
import pytest
import torch

from persimmon_lab.losses import IGNORED
from persimmon_lab.training.batches import (
    DRILLS,
    UNTAUGHT,
    batch_at,
    drills,
    excerpts,
    load_streams,
    plain,
    stretches,
    whole_documents,
)
from persimmon_lab.training.drills import drill, quotation, repetition

STREAMS = {"low": np.arange(0, 5000, dtype=np.uint16), "high": np.arange(10000, 15000, dtype=np.uint16)}


SOURCES = {name: stretches(stream) for name, stream in STREAMS.items()}
SOURCES[DRILLS] = drills(list(SOURCES.values()), 261, 300)


def rows_and_labels(step: int, seed: int = 1, rows: int = 8, length: int = 32, **weights: float):
    weights = weights or {"low": 0.5, "high": 0.3, DRILLS: 0.2}
    return batch_at(step, seed=seed, sources=SOURCES, weights=weights, rows=rows, length=length)


def a_batch(step: int, **settings) -> torch.Tensor:
    """The rows with the one token more that is only predicted."""
    tokens, following = rows_and_labels(step, **settings)
    return torch.cat([tokens, following[:, -1:]], dim=1)


def test_a_batch_depends_on_seed_and_step_alone():
    first = a_batch(7)
    a_batch(8)
    assert torch.equal(a_batch(7), first)
    assert not torch.equal(a_batch(8), first)
    assert not torch.equal(a_batch(7, seed=2), first)


def test_rows_are_stretches_of_their_streams_with_one_token_more():
    batch = a_batch(3, rows=50, low=0.5, high=0.5)
    assert batch.shape == (50, 33) and batch.dtype == torch.int64
    assert torch.equal(batch.diff(dim=1), torch.ones(50, 32, dtype=torch.int64))


def test_each_token_is_followed_by_the_next_one():
    tokens, following = rows_and_labels(3)
    assert tokens.shape == following.shape == (8, 32)
    assert torch.equal(tokens[:, 1:], following[:, :-1])


def test_what_is_not_taught_is_read_and_has_no_label():
    stream = np.arange(100, dtype=np.uint16)
    stream[::7] |= UNTAUGHT
    tokens, following = batch_at(
        0, seed=0, sources={"text": stretches(stream)}, weights={"text": 1.0}, rows=50, length=20
    )
    assert torch.equal(tokens.diff(dim=1), torch.ones(50, 19, dtype=torch.int64))
    marked = (tokens + 1) % 7 == 0
    assert (following[marked] == IGNORED).all() and torch.equal(following[~marked], (tokens + 1)[~marked])
    assert np.array_equal(plain(stream), np.arange(100))


def test_rows_of_whole_documents_begin_with_one_and_are_full():
    documents = {"a": [5, 6, 3], "b": [7, 8, 9, 10, 3]}
    source = whole_documents(
        lambda generator: str(generator.choice(["a", "b"])), lambda text: np.array(documents[text], dtype=np.uint16), 3
    )
    row = source(np.random.default_rng(0), 40)
    assert row.shape == (40,) and row[0] == 3
    pieces = [piece.tolist() for piece in np.split(row, np.flatnonzero(row == 3) + 1)]
    assert pieces[0] == [3] and {tuple(p) for p in pieces[1:-1]} == {(5, 6, 3), (7, 8, 9, 10, 3)}
    assert any(pieces[-1] == document[: len(pieces[-1])] for document in documents.values())


def test_every_other_excerpt_begins_a_line_as_a_text_of_its_own():
    newline, end = 7, 3
    stream = np.where(np.arange(6000) % 40 == 0, newline, np.arange(6000) % 5000 + 10).astype(np.uint16)
    stream[120] |= UNTAUGHT  # a line break that is not taught is one all the same
    draw, generator = excerpts(stream, end, newline), np.random.default_rng(0)
    rows = [draw(generator, 64) for _ in range(400)]
    assert all(len(row) == 64 and row.dtype == np.uint16 for row in rows)
    begun = [row for row in rows if row[0] == end]
    assert 0.4 < len(begun) / len(rows) < 0.6
    assert all(row[1] % 40 == 11 and (row[1:20] == row[1] + np.arange(19)).all() for row in begun)
    assert not any((row == end).any() for row in rows if row[0] != end)
    unbroken = excerpts(np.full(100, 9, dtype=np.uint16), end, newline)
    assert all((unbroken(generator, 20) == 9).all() for _ in range(20))


def test_domains_come_in_their_shares():
    batch = torch.cat([a_batch(step, rows=100, low=3.0, high=1.0) for step in range(20)])
    assert (batch[:, 0] < 10000).float().mean().item() == pytest.approx(0.75, abs=0.03)


def test_every_place_of_a_stream_can_be_drawn():
    tokens = torch.cat([a_batch(step, rows=200, low=1.0).flatten() for step in range(20)])
    assert tokens.min() < 30 and tokens.max() > 4970


def test_drills_are_of_four_kinds():
    text = np.arange(1000, 1129)
    rows = [drill(np.random.default_rng(seed), 129, text, 2000, 3000) for seed in range(400)]
    assert all(row.shape == (129,) for row in rows)
    random = [row for row in rows if (row >= 2000).all()]
    assert 110 < len(random) < 170 and np.concatenate(random).max() > 2950
    known = [row for row in rows if (row < 2000).all()]
    assert len(random) + len(known) == 400
    plain = [row for row in known if np.array_equal(row[:3], text[:3])]
    assert 110 < len(plain) < 170  # the text itself, repeated or quoting itself
    assert 90 < len(known) - len(plain) < 150  # shuffled
    assert np.array_equal(text, np.arange(1000, 1129))


def test_batches_take_their_drills_from_text_and_from_pieces():
    batch = a_batch(0, rows=200, **{"low": 1e-9, DRILLS: 1.0})
    random_pieces = ((batch >= 261) & (batch < 300)).all(dim=1)
    assert 50 < random_pieces.sum() < 90
    assert (batch[~random_pieces].diff(dim=1) != 1).any(dim=1).all()


def test_a_repetition_says_a_block_until_the_row_is_full():
    periods, with_gap = [], 0
    source = np.random.default_rng(0).integers(261, 4096, 128)
    for seed in range(300):
        row = repetition(np.random.default_rng(seed), 128, source)
        assert row.shape == (128,)
        period = next(p for p in range(3, 65) if np.array_equal(row[:3], row[p : p + 3]))
        same = row[period:] == row[:-period]
        with_gap += not same.all()
        assert same.mean() > 0.6
        periods.append(period)
    assert min(periods) == 3 and max(periods) > 42 and np.median(periods) < 20
    assert 60 < with_gap < 150


def test_a_quotation_repeats_an_earlier_passage_and_leaves_the_rest():
    source = np.arange(128)
    for seed in range(50):
        row = quotation(np.random.default_rng(seed), 128, source)
        changed = np.flatnonzero(row != source)
        passage = row[changed]
        assert len(changed) >= 128 // 8
        assert np.array_equal(changed, np.arange(changed[0], changed[-1] + 1))
        assert np.array_equal(passage, np.arange(passage[0], passage[-1] + 1))
        assert passage[-1] < changed[0]
    assert np.array_equal(source, np.arange(128))


def test_streams_are_read_by_name(tmp_path):
    STREAMS["low"].tofile(tmp_path / "low.bin")
    (tmp_path / "note.txt").write_text("no stream")
    streams = load_streams(tmp_path)
    assert list(streams) == ["low"]
    assert np.array_equal(streams["low"], STREAMS["low"])


def test_a_stream_too_short_for_a_row():
    draw = stretches(np.arange(8, dtype=np.uint16))
    assert draw(np.random.default_rng(0), 8).tolist() == list(range(8))
    with pytest.raises(ValueError, match="a row of 8 tokens and the one after does not fit a stream of 8"):
        draw(np.random.default_rng(0), 9)
