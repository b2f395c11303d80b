"""A sentencepiece model made from `tokenizer.json`, where a folder has nothing else: transformers saves no other file.

`tokenizer_json` is the way there. What it leaves out is told from what it writes: byte pieces by their names, special
tokens by their entries in `added_tokens`, user-defined pieces by their scores. Ids and segmentations are the same.
"""

import struct
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor

from persimmon_lab.checkpoints.errors import CheckpointNotFoundError
from persimmon_lab.field_checks import shown
from persimmon_lab.tokenizer.files import VOCAB_FILE, read_json
from persimmon_lab.tokenizer.segmentation import BYTE_PIECE
from persimmon_lab.tokenizer.sentencepiece_model import Piece, PieceType, load_sentencepiece, write_varint
from persimmon_lab.tokenizer.tokenizer_json import SPACE, Json

PREPEND = {"type": "Prepend", "prepend": SPACE}
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}


def load_vocabulary(path: Path) -> SentencePieceProcessor:
    """The model in a tokenizer.model, or one made from a tokenizer.json.

    CheckpointNotFoundError for a tokenizer.json that says something else than a model of Persimmon's kind would.
    """
    if path.suffix != ".json":
        return load_sentencepiece(path)
    try:
        proto = sentencepiece_model(read_json(path))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, struct.error) as error:
        reason = str(error) if isinstance(error, ValueError) else f"it is not of the form that is known ({error!r})"
        names = sorted(name.name for name in path.parent.iterdir())
        raise CheckpointNotFoundError(
            f"{path.parent} has no {VOCAB_FILE}, and {path.name} cannot stand for it: {reason}. Copy {VOCAB_FILE} from "
            "the folder that the model was made from (Adept's own is in adept/persimmon-8b-base and "
            f"adept/persimmon-8b-chat on the hub); it has {names}"
        ) from None
    return SentencePieceProcessor(model_proto=proto)


def sentencepiece_model(content: Json) -> bytes:
    """The serialized ModelProto that says what the content of a tokenizer.json says.

    ValueError where no Unigram model that keeps every character of the text does the same.
    """
    if content.get("model", {}).get("type") != "Unigram":
        raise ValueError(f"its model is {content.get('model', {}).get('type')!r}, and Persimmon's is 'Unigram'")
    normalizer = content["normalizer"] or {}
    steps = normalizer.get("normalizers", [normalizer])
    if steps not in ([PREPEND, REPLACE], [REPLACE]):
        raise ValueError(f"its normalizer does more than write spaces as {SPACE}")
    cut = content.get("pre_tokenizer") or {"type": "Split", "behavior": "Isolated"}
    if (cut["type"], cut.get("behavior")) != ("Split", "Isolated"):
        raise ValueError(f"its pre_tokenizer {cut['type']!r} cuts texts before the model does")
    pieces = read_pieces(content)
    rows = [write_field(1, piece_message(piece)) for piece in pieces]
    has_bytes = sum(piece.type == PieceType.BYTE for piece in pieces) == 256
    trainer = write_field(3, 1) + write_field(4, len(pieces)) + write_field(35, int(has_bytes))
    settings = write_field(1, b"identity") + write_field(3, int(PREPEND in steps)) + write_field(4, 0)
    return b"".join([*rows, write_field(2, trainer), write_field(3, settings + write_field(5, 1))])


def ends_of_a_text(content: Json, where: str = "tokenizer.json") -> dict[str, bool]:
    """Whether the post-processor sets a special token before a text, and after it, as the constructor's options.

    ValueError, naming `where` it stands, for a post-processor of another form.
    """
    processor = content.get("post_processor") or {}
    single = (processor.get("single") or [{"Sequence": {}}]) if isinstance(processor, dict) else None
    if not isinstance(single, list) or not all(isinstance(part, dict) for part in single):
        raise ValueError(f"{where}: post_processor is {shown(processor)}, which is not of the form that is known")
    return {"add_bos_token": "SpecialToken" in single[0], "add_eos_token": "SpecialToken" in single[-1]}


def read_pieces(content: Json) -> list[Piece]:
    """The pieces in the order of their ids. Tokens that were added behind the vocabulary become pieces too."""
    rows: list[list[Any]] = [*content["model"]["vocab"]]
    added = {token["id"]: token for token in sorted(content.get("added_tokens", []), key=lambda token: token["id"])}
    for index, token in added.items():
        if index == len(rows):
            rows.append([token["content"], 0.0])
        if index > len(rows) or rows[index][0] != token["content"]:
            raise ValueError(f"its added token {token['content']!r} has id {index}, which is not the next one")
    types = [type_of(index, text, content["model"]["unk_id"], added) for index, (text, _) in enumerate(rows)]
    best = max((score for (_, score), kind in zip(rows, types) if kind == PieceType.NORMAL), default=0.0)
    pieces = []
    for (text, score), kind in zip(rows, types):
        if kind == PieceType.NORMAL and score == len(text.encode("utf-8")) * best - 0.1:  # see `lattice_scores`
            kind = PieceType.USER_DEFINED
        pieces.append(Piece(text, score if kind == PieceType.NORMAL else 0.0, kind))
    return pieces


def type_of(index: int, text: str, unknown: int, added: dict[int, Json]) -> PieceType:
    if index == unknown:
        return PieceType.UNKNOWN
    if BYTE_PIECE.fullmatch(text):
        return PieceType.BYTE
    if index in added:
        return PieceType.CONTROL if added[index]["special"] else PieceType.USER_DEFINED
    return PieceType.NORMAL


def piece_message(piece: Piece) -> bytes:
    score = write_varint(2 << 3 | 5) + struct.pack("<f", piece.score)
    return write_field(1, piece.text.encode("utf-8")) + score + write_field(3, piece.type)


def write_field(number: int, value: int | bytes) -> bytes:
    """A field of a protobuf message."""
    if isinstance(value, int):
        return write_varint(number << 3) + write_varint(value)
    return write_varint(number << 3 | 2) + write_varint(len(value)) + value
