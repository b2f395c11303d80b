"""Which rows of the tables nothing uses, and that a model says the same without them."""

from pathlib import Path

import pytest
import torch

from persimmon_lab import PersimmonForCausalLM, PersimmonTokenizer, load_mini
from persimmon_lab.fitting.vocabulary_rows import alignment, drop_rows, never_produced
from persimmon_lab.mini import MINI
from persimmon_lab.tokenizer.sentencepiece_model import PieceType, retype
from tests.models import ids, tiny
from tests.tolerances import TOLERANCE

OTHER_VOCABULARY = Path(__file__).parents[1] / "fixtures" / "tokenizer" / "tokenizer.model"
CHARACTERS = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]


@pytest.fixture(scope="module")
def mini():
    return load_mini()


@pytest.mark.parametrize("path", [MINI / "tokenizer.model", OTHER_VOCABULARY], ids=["mini", "other"])
def test_every_character_there_is(path):
    """No text makes one of them, and every other byte piece is made by some text: there is none to add."""
    tokenizer = PersimmonTokenizer(path)
    never = set(never_produced(tokenizer, len(tokenizer)).tolist())
    made = set()
    for start in range(0, len(CHARACTERS), 20_000):
        made |= set(tokenizer("".join(CHARACTERS[start : start + 20_000])).input_ids)
    byte_pieces = {token for token in range(len(tokenizer)) if tokenizer.sp_model.is_byte(token)}
    assert made & never == set()
    assert byte_pieces - made == never & byte_pieces
    assert never - byte_pieces == {tokenizer.unk_token_id}


def test_pieces_marked_as_unused_and_rows_beyond_the_vocabulary(tmp_path, mini):
    """An unused letter is written in bytes again; an unused word is only gone."""
    tokenizer = mini[1]
    letter, word = tokenizer.convert_tokens_to_ids(["B", "▁king"])
    letter_byte = tokenizer.convert_tokens_to_ids("<0x42>")
    proto = retype((MINI / "tokenizer.model").read_bytes(), [letter, word], PieceType.UNUSED)
    (tmp_path / "tokenizer.model").write_bytes(proto)
    changed = PersimmonTokenizer.from_pretrained(tmp_path)
    assert letter_byte in changed("\nB").input_ids
    before, after = (set(never_produced(t, 4100).tolist()) for t in (tokenizer, changed))
    assert after - before == {letter, word}
    assert before - after == {letter_byte}
    assert {4096, 4097, 4098, 4099} < before
    assert never_produced(tokenizer, 100).tolist() == sorted(token for token in before if token < 100)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [False, True])
def test_what_is_kept_is_as_it_was(dtype, tied):
    """Logits of kept tokens, the loss over them, and the text that is generated."""
    whole = tiny(tie_word_embeddings=tied).to(dtype)
    fewer = tiny(tie_word_embeddings=tied).to(dtype)
    dropped = torch.tensor([0, 2, 127, *range(60, 100)])
    kept = [token for token in range(128) if token not in dropped]
    text = torch.tensor(kept)[ids(3, 20) % len(kept)]
    assert drop_rows(fewer, dropped) is fewer
    assert whole.num_parameters() - fewer.num_parameters() == (1 if tied else 2) * len(dropped) * 64
    assert (fewer.lm_head.weight is fewer.model.embed_tokens.weight) == tied
    with torch.no_grad():
        expected, found = whole(text).logits, fewer(text).logits
    torch.testing.assert_close(found[..., kept], expected[..., kept], rtol=0, atol=TOLERANCE[dtype] / 10)
    assert (found[..., dropped] == torch.finfo(dtype).min).all()
    whole_but = expected.float().index_fill(-1, dropped, -torch.inf)
    torch.testing.assert_close(found.float().softmax(-1), whole_but.softmax(-1), rtol=0, atol=TOLERANCE[dtype] / 10)
    written = text
    for _ in range(6):
        with torch.no_grad():
            allowed = whole(written).logits[:, -1].float().index_fill(-1, dropped, -torch.inf)
        written = torch.cat([written, allowed.argmax(dim=-1, keepdim=True)], dim=1)
    assert torch.equal(fewer.generate(text, max_new_tokens=6, eos_token_id=None), written)
    assert not torch.isin(fewer.generate(text, max_new_tokens=12, do_sample=True, seed=0), dropped).any()


def test_the_shipped_model_says_the_same_without_them(mini):
    """And its tables are smaller by the rows' bytes."""
    model, tokenizer = load_mini("auto")
    never = never_produced(tokenizer, model.config.vocab_size)
    prompt = tokenizer("human: What is your name?\n\nadept:", return_tensors="pt").input_ids
    with torch.no_grad():
        before, answer = model(prompt).logits, model.generate(prompt, max_new_tokens=24)
        held = sum(parameter.untyped_storage().nbytes() for parameter in model.parameters())
        drop_rows(model, never)
        after, again = model(prompt).logits, model.generate(prompt, max_new_tokens=24)
    kept = torch.ones(len(before[0, 0]), dtype=torch.bool)
    kept[never] = False
    torch.testing.assert_close(after[..., kept], before[..., kept], rtol=0, atol=TOLERANCE[torch.bfloat16])
    assert torch.equal(again, answer)
    left = sum(parameter.untyped_storage().nbytes() for parameter in model.parameters())
    assert held - left == 2 * 110 * 256 * 2


def test_what_cannot_be_done_is_said(tmp_path):
    model = drop_rows(tiny(), torch.tensor([5, 70]))
    with pytest.raises(IndexError, match="token id 70 was dropped"):
        model(torch.tensor([[4, 6, 70]]))
    with pytest.raises(ValueError, match="dropped before"):
        drop_rows(model, torch.tensor([6]))
    with pytest.raises(ValueError, match=r"embedding has 126 rows and config\.vocab_size is 128"):
        model.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []
    for wrong in ([128], [-1, 3]):
        with pytest.raises(IndexError, match="there are 128 rows"):
            drop_rows(tiny(), torch.tensor(wrong))
    whole = drop_rows(tiny(), torch.tensor([], dtype=torch.int64))
    assert torch.equal(whole(ids()).logits, tiny()(ids()).logits)


def test_rows_that_were_never_a_target_point_the_same_way(mini):
    """In persimmon-mini those are the bytes and marks: the rows that no text makes, and bytes that its training text
    made never or seldom. Every other piece has its place in the vocabulary because that text had it."""
    model, tokenizer = mini
    never = never_produced(tokenizer, model.config.vocab_size)
    cosines = alignment(model.lm_head.weight, never)
    assert cosines[never].min() > 0.99
    aligned = set((cosines > 0.9).nonzero()[:, 0].tolist())
    assert set(never.tolist()) < aligned
    sp = tokenizer.sp_model
    pieces = {token for token in aligned if not (sp.is_byte(token) or sp.is_control(token) or sp.is_unknown(token))}
    assert len(pieces) < 0.01 * model.config.vocab_size


def test_alignment_follows_from_training():
    """A head trained on half of its tokens, its hidden states given: the other half's rows turn against their mean."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(4000, 16, generator=generator) + 2.0
    targets = torch.randint(0, 20, (4000,), generator=generator)
    head = (0.1 * torch.randn(40, 16, generator=generator)).requires_grad_()
    optimiser = torch.optim.Adam([head], lr=0.3)
    for _ in range(200):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(hidden @ head.T, targets).backward()
        optimiser.step()
    cosines = alignment(head, torch.arange(20, 25))
    assert cosines[20:].min() > 0.9 > cosines[:20].max()
    against = -torch.nn.functional.cosine_similarity(head.detach()[20:], hidden.mean(dim=0), dim=-1)
    assert against.min() > 0.5


def test_what_was_dropped_cannot_be_resized():
    model = drop_rows(tiny(PersimmonForCausalLM), torch.tensor([5]))
    with pytest.raises(ValueError, match="the embedding is a KeptEmbedding, .* load the model again to resize it"):
        model.resize_token_embeddings(100)


@pytest.mark.gpu
def test_memory_of_dropped_rows_is_given_back_on_the_gpu():
    model = tiny(PersimmonForCausalLM, vocab_size=100_000).cuda()
    before = torch.cuda.memory_allocated()
    drop_rows(model, torch.arange(1000, 91_000))
    assert before - torch.cuda.memory_allocated() > 0.99 * 2 * 90_000 * 64 * 4
    assert model.generate(torch.ones(1, 3, dtype=torch.long, device="cuda"), max_new_tokens=3).max() < 100_000
