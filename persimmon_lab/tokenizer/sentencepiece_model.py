"""A sentencepiece model file as data: its pieces and settings, and a way to change them.

sentencepiece shows neither which pieces are user-defined nor how it normalises, and it cannot be told to leave a
user-defined piece alone. The file itself says all that: it is one protobuf message (sentencepiece_model.proto), a row
of fields, each a varint key `number << 3 | wire type` and a value. Reading it here spares the core a protobuf library.
"""

import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import sentencepiece


class PieceType(IntEnum):
    """What sentencepiece may do with a piece. Only NORMAL and USER_DEFINED ones are ever matched in a text."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Piece:
    text: str
    score: float
    type: PieceType


@dataclass(frozen=True)
class ModelFile:
    """The parts of a model file that decide how a text is cut. Defaults are those of sentencepiece_model.proto."""

    pieces: list[Piece]
    is_unigram: bool
    has_character_map: bool
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    escape_whitespaces: bool


def load_sentencepiece(path: Path) -> sentencepiece.SentencePieceProcessor:
    """The model in a file. FileNotFoundError, or ValueError for a file that holds none."""
    proto = path.read_bytes()
    model = sentencepiece.SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto(proto)
    except RuntimeError:
        raise ValueError(
            f"{path} is not a sentencepiece model ({len(proto)} bytes, beginning with {proto[:24]!r}): "
            "the download may have stopped early, or left a git-lfs pointer in its place"
        ) from None
    return model


def read_varint(message: bytes, position: int) -> tuple[int, int]:
    """The integer at `position` (seven bits a byte, low ones first, high bit = more follow) and where it ends."""
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def write_varint(value: int) -> bytes:
    """The inverse of `read_varint`."""
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def fields(message: bytes) -> Iterator[tuple[int, Any, bytes]]:
    """Each field of a protobuf message: its number, its value, and all its raw bytes.

    A value is an int or bytes (of a float32 its four), as the message's own definition has it for that number.
    """
    position = 0
    value: int | bytes
    while position < len(message):
        start = position
        key, position = read_varint(message, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, position = read_varint(message, position)
        elif wire_type in (1, 2, 5):
            length, position = read_varint(message, position) if wire_type == 2 else ({1: 8, 5: 4}[wire_type], position)
            value, position = message[position : position + length], position + length
        else:
            raise ValueError(f"byte {start} of this message starts a field of wire type {wire_type}, not 0, 1, 2 or 5")
        yield number, value, message[start:position]


def read_piece(message: bytes) -> Piece:
    values = {number: value for number, value, _ in fields(message)}
    (score,) = struct.unpack("<f", values.get(2, bytes(4)))
    return Piece(values.get(1, b"").decode("utf-8"), score, PieceType(values.get(3, PieceType.NORMAL)))


def read_model(proto: bytes) -> ModelFile:
    """The pieces (in the order of their ids) and the settings of a serialized ModelProto."""
    pieces: list[Piece] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, value, _ in fields(proto):
        if number == 1:
            pieces.append(read_piece(value))
        elif number == 2:
            trainer |= {number: value for number, value, _ in fields(value)}
        elif number == 3:
            normalizer |= {number: value for number, value, _ in fields(value)}
    return ModelFile(
        pieces=pieces,
        is_unigram=trainer.get(3, 1) == 1,
        has_character_map=bool(normalizer.get(2)),
        add_dummy_prefix=bool(normalizer.get(3, True)),
        remove_extra_whitespaces=bool(normalizer.get(4, True)),
        escape_whitespaces=bool(normalizer.get(5, True)),
    )


def change_pieces(proto: bytes, change: Callable[[int, bytes], bytes]) -> bytes:
    """The same model with the message of each piece put through `change(id, message)`; the rest byte for byte."""
    parts: list[bytes] = []
    piece_id = 0
    for number, value, raw in fields(proto):
        if number == 1:
            value, piece_id = change(piece_id, value), piece_id + 1
            raw = write_varint(1 << 3 | 2) + write_varint(len(value)) + value
        parts.append(raw)
    return b"".join(parts)


def with_field(message: bytes, number: int, raw: bytes) -> bytes:
    """A message with `raw`, a key and a value, in place of its field `number`, or at its end."""
    rows = {other: row for other, _, row in fields(message)} | {number: raw}
    return b"".join(rows.values())


def retype(proto: bytes, ids: Collection[int], piece_type: PieceType) -> bytes:
    """The same model with the pieces `ids` given another type."""
    raw = write_varint(3 << 3) + write_varint(piece_type)
    return change_pieces(proto, lambda index, piece: with_field(piece, 3, raw) if index in ids else piece)


def round_scores(proto: bytes, step: float = 2**-8) -> bytes:
    """The same model with the scores of its pieces rounded to multiples of `step`, a power of two.

    Segmentations often tie (`a aa` and `aa a`). sentencepiece adds scores in float32 and `tokenizers` in float64, and
    each breaks ties by its own rounding errors. Multiples of 1/256 add up exactly in both, over texts of some thousand
    pieces, so that both see the tie and keep the segmentation found first. No score moves by more than 1/512.
    """

    def rounded(_: int, message: bytes) -> bytes:
        score = struct.pack("<f", round(read_piece(message).score / step) * step)
        return with_field(message, 2, write_varint(2 << 3 | 5) + score)

    return change_pieces(proto, rounded)
