"""`tokenizer.json`: a sentencepiece Unigram model in the form that the `tokenizers` library reads, to the same ids.

Written from the model file alone, without that library. Two things need care:

- `tokenizers` knows no types of pieces: whatever stands in its vocabulary may be matched in a text, `<s>` and `<0x0A>`
  included. sentencepiece gives those the score 0, the best there is; here they get one so low that spelling them out
  wins, and a text is cut at such of their characters as no ordinary piece has, which would cost even more to spell.
- A user-defined piece such as a newline is taken by sentencepiece at a score of its own making, not the stored one.
"""

import re
from collections.abc import Collection
from typing import Any

from persimmon_lab.tokenizer.sentencepiece_model import ModelFile, Piece, PieceType

Json = dict[str, Any]

SPACE = "\u2581"  # sentencepiece's visible space
UNKNOWN_PENALTY = 10.0  # an unknown character costs this much more than the worst piece: unigram_model.cc, kUnkPenalty


def tokenizer_json(
    model: ModelFile, special_ids: list[int], bos_id: int | None = None, eos_id: int | None = None
) -> Json:
    """The content of `tokenizer.json`; `bos_id` and `eos_id` are put around a text where they are given.

    ValueError for a model that `tokenizers` cannot follow to the same ids: not Unigram, or one that rewrites the
    characters of the text.

    Trap: `tokenizers` finds special tokens in any text, unless its `encode_special_tokens` is set to True.
    """
    if not model.is_unigram:
        raise ValueError("tokenizer.json can only be written for a Unigram model, as Persimmon's is")
    if model.has_character_map or model.remove_extra_whitespaces or not model.escape_whitespaces:
        raise ValueError(
            "tokenizer.json can only be written for a model that keeps every character of the text: train it with "
            "normalization_rule_name='identity' and remove_extra_whitespaces=False"
        )
    unknown_id = next(index for index, piece in enumerate(model.pieces) if piece.type == PieceType.UNKNOWN)
    prefix = [{"type": "Prepend", "prepend": SPACE}] if model.add_dummy_prefix else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if model.add_dummy_prefix else []
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(model.pieces[index], index) for index in special_ids],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [*prefix, {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}],
        },
        "pre_tokenizer": cut_at_strange_characters(model.pieces, special_ids),
        "post_processor": around(model.pieces, bos_id, eos_id),
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *strip,
            ],
        },
        "model": {
            "type": "Unigram",
            "unk_id": unknown_id,
            "vocab": lattice_scores(model.pieces, special_ids),
            "byte_fallback": True,  # and to the unknown piece where the vocabulary has no bytes
        },
    }


def is_matched(index: int, piece: Piece, special_ids: Collection[int]) -> bool:
    return piece.type in (PieceType.NORMAL, PieceType.USER_DEFINED) and index not in special_ids


def lattice_scores(pieces: list[Piece], special_ids: Collection[int]) -> list[list[Any]]:
    """`[text, score]` of every piece, with scores under which a plain Viterbi search does what sentencepiece does."""
    normal = [piece.score for piece in pieces if piece.type == PieceType.NORMAL]
    best, worst = max(normal, default=0.0), min(normal, default=0.0)
    rows = []
    for index, piece in enumerate(pieces):
        length = len(piece.text.encode("utf-8"))
        if not is_matched(index, piece, special_ids):
            score = length * (worst - UNKNOWN_PENALTY) - 1
        elif piece.type == PieceType.USER_DEFINED:
            score = length * best - 0.1  # unigram_model.cc, EncodeOptimized
        else:
            score = piece.score
        rows.append([piece.text, score])
    return rows


def cut_at_strange_characters(pieces: list[Piece], special_ids: Collection[int]) -> Json | None:
    """The pre-tokenizer that keeps `<0x0A>` from being matched by a vocabulary in which no ordinary piece has a `<`.

    Only with byte fallback, where unknown characters do not join into one unknown piece across the cut.
    """
    known: set[str] = set()
    reserved: set[str] = set()
    for index, piece in enumerate(pieces):
        (known if is_matched(index, piece, special_ids) else reserved).update(piece.text)
    strange = "|".join(re.escape(character) for character in sorted(reserved - known))
    if not strange or not any(piece.type == PieceType.BYTE for piece in pieces):
        return None
    return {"type": "Split", "pattern": {"Regex": strange}, "behavior": "Isolated", "invert": False}


def added_token(piece: Piece, index: int) -> Json:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": index, "content": piece.text, **flags}


def around(pieces: list[Piece], bos_id: int | None, eos_id: int | None) -> Json | None:
    """The post-processor that sets bos before a text and eos after it."""
    ids = {pieces[index].text: index for index in (bos_id, eos_id) if index is not None}
    if not ids:
        return None

    def template(*names: str) -> list[Json]:
        row: list[Json | None] = []
        for type_id, name in enumerate(names):
            row += [special(bos_id, type_id), {"Sequence": {"id": name, "type_id": type_id}}, special(eos_id, type_id)]
        return [part for part in row if part]

    def special(index: int | None, type_id: int) -> Json | None:
        return None if index is None else {"SpecialToken": {"id": pieces[index].text, "type_id": type_id}}

    return {
        "type": "TemplateProcessing",
        "single": template("A"),
        "pair": template("A", "B"),
        "special_tokens": {text: {"id": text, "ids": [index], "tokens": [text]} for text, index in ids.items()},
    }
