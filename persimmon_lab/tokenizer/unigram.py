"""The pieces of a Unigram model with their log-probabilities, and the lattice of a text."""

from collections.abc import Collection

from persimmon_lab.tokenizer.lattice import Arc, Lattice
from persimmon_lab.tokenizer.segmentation import check_characters
from persimmon_lab.tokenizer.sentencepiece_model import ModelFile, PieceType, read_model
from persimmon_lab.tokenizer.tokenizer_json import SPACE, UNKNOWN_PENALTY, is_matched, lattice_scores
from persimmon_lab.tokenizer.vocabulary import Vocabulary


class Unigram:
    """The pieces that a text may be cut into, and a lattice for every text.

    `special_ids` are pieces that are never matched, `|ENDOFTEXT|` among them, so that a typed one is spelt out.
    ValueError for a model whose segmentations this cannot follow: not Unigram, without bytes, or one that rewrites the
    characters of the text.
    """

    def __init__(self, model: ModelFile, special_ids: Collection[int] = ()) -> None:
        if not model.is_unigram:
            raise ValueError("a lattice of log-probabilities needs a Unigram model, as Persimmon's is")
        if model.has_character_map or model.remove_extra_whitespaces or not model.escape_whitespaces:
            raise ValueError("this model rewrites the text before it cuts it; Persimmon's keeps every character")
        self._bytes = {piece.text: index for index, piece in enumerate(model.pieces) if piece.type == PieceType.BYTE}
        if len(self._bytes) < 256:
            raise ValueError(f"byte fallback needs 256 byte pieces, and this model has {len(self._bytes)}")
        self._prefix = SPACE if model.add_dummy_prefix else ""
        scores = lattice_scores(model.pieces, special_ids)
        self.pieces: dict[str, tuple[int, float]] = {
            text: (index, score)
            for index, (text, score) in enumerate(scores)
            if is_matched(index, model.pieces[index], special_ids)
        }
        self._longest = max(map(len, self.pieces), default=0)
        normal = [piece.score for piece in model.pieces if piece.type == PieceType.NORMAL]
        self.unknown_score = min(normal, default=0.0) - UNKNOWN_PENALTY

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> "Unigram":
        """The pieces of a tokenizer, its special tokens left out."""
        return cls(read_model(vocabulary.sp_model.serialized_model_proto()), vocabulary.all_special_ids)

    def lattice(self, text: str) -> Lattice:
        """All arcs over a text, in which a space is `▁` and the first one, put before the text, stands for nothing.

        So character `n` of the lattice is character `n - 1` of the text, where the model puts that space before it.
        TypeError for what is no str, ValueError for half a surrogate pair.
        """
        check_characters(text)
        visible = (self._prefix + text).replace(" ", SPACE) if text else ""
        arcs = []
        for start, character in enumerate(visible):
            for end in range(start + 1, min(start + self._longest, len(visible)) + 1):
                if (piece := visible[start:end]) in self.pieces:
                    token_id, score = self.pieces[piece]
                    arcs.append(Arc(start, end, piece, score, (token_id,)))
            if character not in self.pieces:
                ids = tuple(self._bytes[f"<0x{byte:02X}>"] for byte in character.encode("utf-8"))
                arcs.append(Arc(start, start + 1, character, self.unknown_score, ids))
        return Lattice(visible, arcs)
