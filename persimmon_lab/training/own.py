"""A small Persimmon on anybody's text: tokenizer, model, loss curve and a sample, in one folder."""

import hashlib
import json
import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import sentencepiece
import torch

from persimmon_lab.atomic import write_atomically
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.field_checks import parsed
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.training.batches import DRILLS, RowSource, drills, stretches
from persimmon_lab.training.corpus import END, encode, train_tokenizer
from persimmon_lab.training.curves import loss_svg
from persimmon_lab.training.drills import Stream
from persimmon_lab.training.readers import Document
from persimmon_lab.training.recipe import Recipe
from persimmon_lab.training.trainer import read_metrics, train

TOKENIZER = "tokenizer.model"
HELD_OUT = 0.05  # of the paragraphs
CHANNELS = 32  # of a head, as in the shipped model


def train_on(
    texts: Sequence[Path],
    out: Path,
    *,
    layers: int = 2,
    hidden: int = 128,
    context: int = 128,
    vocabulary: int = 2048,
    steps: int = 200,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    progress: bool | None = None,
) -> str:
    """Train on the paragraphs of `texts` (parted by empty lines), a twentieth of which is held out; returns a sample.

    `out` gets model.safetensors, config, tokenizer and loss.svg, so that `from_pretrained(out)` reads it, and in run/
    the checkpoint from which a stopped run goes on.

    Raises ValueError for a file that is not UTF-8, for text too short to cut a row of `context` from, and for sizes
    that make no model.
    """
    training, held_out = split_paragraphs(texts, seed)
    check_same_run(out, training, held_out, vocabulary)
    path = tokenizer_file(training, out, vocabulary)
    own = set_up(training, held_out, path, layers=layers, hidden=hidden, context=context, steps=steps, seed=seed)
    model = train(
        own.config,
        own.recipe,
        own.sources,
        own.held_out,
        out / "run",
        dtype=dtype,
        device=device,
        progress=progress,
        evaluate_every=own.evaluate_every,
        checkpoint_every=min(100, own.evaluate_every),
    )
    model.save_pretrained(out)
    return finish(model, path, out, own)


def check_same_run(out: Path, training: list[Document], held_out: list[Document], vocabulary: int) -> None:
    """Leave a note in `out` of what its run is made of, or compare it where there is a checkpoint to go on from.

    ValueError for a folder that holds something else, or a run of other texts or of a tokenizer of another size.
    """
    texts = "".join(document.text for document in (*training, *held_out))
    mine = {"texts": hashlib.sha256(texts.encode()).hexdigest(), "vocabulary": vocabulary}
    note = out / "run" / "made_of.json"
    before = parsed(note.read_bytes()) if note.exists() else {}
    if not before and out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} holds something that is no run of train text; give a new folder or an empty one")
    other = [name for name, value in mine.items() if before.get(name) != value]
    if before and other and any(note.parent.glob("checkpoint*")):
        raise ValueError(f"{out} holds a run with another {other[0]}; give a new folder, or what that run was given")
    if other:
        note.parent.mkdir(parents=True, exist_ok=True)
        (out / TOKENIZER).unlink(missing_ok=True)
        write_atomically(note, json.dumps(mine).encode())


class SetUp(NamedTuple):
    """What a small model of its own text is trained with."""

    config: PersimmonConfig
    recipe: Recipe
    sources: dict[str, RowSource]
    held_out: dict[str, Stream]
    evaluate_every: int


def tokenizer_file(training: Sequence[Document], out: Path, vocabulary: int) -> Path:
    """The tokenizer's file in `out`, made of the texts where there is none."""
    path = out / TOKENIZER
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        try:
            tokenizer = train_tokenizer((document.text for document in training), vocabulary, exact=False)
        except RuntimeError as error:  # sentencepiece's
            raise ValueError(f"these texts make no tokenizer of {vocabulary} pieces: {error}") from error
        write_atomically(path, tokenizer)
    return path


def set_up(
    training: list[Document], held_out: list[Document], path: Path, *,
    layers: int, hidden: int, context: int, steps: int, seed: int,
) -> SetUp:  # fmt: skip
    """The sizes, the recipe and the rows; `path` is the tokenizer's. Errors as `train_on`."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    end, pieces = processor.piece_to_id(END), processor.get_piece_size()
    config = PersimmonConfig(
        vocab_size=pieces,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // CHANNELS),
        max_position_embeddings=context,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    stream = encode(training, processor, seed)
    held_out_stream = encode(held_out, processor, None)
    if len(stream) <= context:
        raise ValueError(
            f"the texts give {len(stream)} tokens, too few for rows of {context} and the token after; give more text "
            "or a shorter --context"
        )
    recipe = Recipe(
        steps=steps,
        warmup_steps=max(1, min(100, steps // 10)),
        lengths=((0.0, context),),
        weights={"text": 0.95, DRILLS: 0.05},
        seed=seed,
    )
    rows = stretches(stream)
    sources = {"text": rows, DRILLS: drills([rows], recipe.first_piece, pieces)}
    return SetUp(config, recipe, sources, {"held out": held_out_stream}, max(1, steps // 10))


def finish(model: PersimmonForCausalLM, path: Path, out: Path, own: SetUp) -> str:
    """Write tokenizer and curve beside the weights; returns the sample."""
    tokenizer = PersimmonTokenizer(path)
    tokenizer.save_pretrained(out)
    entries = read_metrics(out / "run" / "metrics.jsonl")
    curve = loss_svg(entries, own.recipe.tokens, "training batches and held-out text")
    write_atomically(out / "loss.svg", curve.encode())
    return sample(model, tokenizer, own.held_out["held out"], own.recipe.seed)


def split_paragraphs(texts: Sequence[Path], seed: int) -> tuple[list[Document], list[Document]]:
    """(training, held out) paragraphs of the files, joined to documents of about 2,000 characters.

    A paragraph that was met before, in any of the files and whatever its white space, is left out: else the held-out
    part could say what the model is taught, and its loss would measure memory. A warning counts them.

    Raises ValueError for a file that is not UTF-8, and where fewer than two documents are left.
    """
    documents: list[Document] = []
    met: set[str] = set()
    repeated = 0
    for path in texts:
        try:
            content = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
        for paragraph in content.replace("\r\n", "\n").split("\n\n"):
            if not paragraph.strip():
                continue
            words = " ".join(paragraph.split())
            if words in met:
                repeated += 1
                continue
            met.add(words)
            if documents and documents[-1].work == str(path) and len(documents[-1].text) < 2000:
                documents[-1] = Document(str(path), f"{documents[-1].text}\n\n{paragraph}")
            else:
                documents.append(Document(str(path), paragraph))
    if len(documents) < 2:
        without = f" without the {repeated} paragraphs said before" if repeated else ""
        raise ValueError(f"{', '.join(map(str, texts))}: too little text{without} to hold a part of it out; give more")
    if repeated:
        warnings.warn(
            f"{repeated} of {repeated + len(met)} paragraphs were said before and are left out, so that no held-out "
            "paragraph is also taught",
            stacklevel=3,
        )
    order = random.Random(seed).sample(documents, len(documents))
    count = max(1, round(HELD_OUT * len(order)))
    return order[count:], order[:count]


def sample(model: PersimmonForCausalLM, tokenizer: PersimmonTokenizer, held_out: Stream, seed: int) -> str:
    """What the model says after the first words of the held-out text."""
    prompt = torch.tensor([held_out[:6].tolist()], device=model.device)
    room = model.config.max_position_embeddings - prompt.shape[1]
    output = model.generate(
        prompt, max_new_tokens=min(80, room), do_sample=True, temperature=0.8, top_p=0.95, seed=seed
    )
    return tokenizer.decode(output[0], skip_special_tokens=True)
