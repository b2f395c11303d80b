"""Whether a test was in the training text: runs of words that a prompt and the text share.

As Llama 2 measured it (Touvron et al. 2023, appendix A.6), with words in place of tokens: a word of a prompt is covered
if it stands in a run of `width` words that the text has too, whatever their case and punctuation. The text is read
once, document by document, and never held: what grows with it is time alone.

What this cannot see is told by `CANNOT_SEE`, which belongs beside every number from here.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

WIDTH = 8  # words; below six or so, ordinary phrases are found, and above thirteen, only long quotations
SEEN = 0.8  # share of covered words from which Llama 2 calls a prompt dirty

CANNOT_SEE = (
    "It compares words, with the text that it was given. A paraphrase, a translation or another number in the same "
    "question passes unseen, and so does whatever a model was trained on and this text is not; a fact can be known "
    "from sentences that share no run of words with the question. And a run may be shared by accident: the wording "
    "that all questions of a task have in common says nothing about the one that is asked."
)

Words = tuple[str, ...]


@dataclass(frozen=True)
class Overlap:
    """What the training text has of one prompt: for each of its words, whether a run that is there covers it."""

    words: Words
    covered: tuple[bool, ...] = field(repr=False)

    @property
    def share(self) -> float:
        """Of the prompt's words that are covered; 0 for a prompt without words."""
        return sum(self.covered) / len(self.covered) if self.covered else 0.0

    @property
    def is_seen(self) -> bool:
        """Whether so much of the prompt is there that an answer may be a memory."""
        return self.share >= SEEN

    @property
    def passages(self) -> tuple[str, ...]:
        """The covered stretches, in the order of the prompt."""
        spans = re.finditer("1+", "".join("01"[covered] for covered in self.covered))
        return tuple(" ".join(self.words[span.start() : span.end()]) for span in spans)


def words_of(text: str) -> Words:
    """Its words in one case, without punctuation, and without the names of the speakers of a chat."""
    return tuple(re.findall(r"\w+", re.sub(r"^(human|adept):", "", text, flags=re.MULTILINE).casefold()))


def overlaps(prompts: Sequence[str], training: Iterable[str], *, width: int = WIDTH) -> list[Overlap]:
    """What the documents of `training` have of each prompt, in the order of the prompts.

    A prompt of fewer words than `width` is looked for as a whole. To ask whether questions stand there with their
    answers, give prompts that end with them. A run does not go on from one document into the next.

    ValueError for a width below 1, and for `training` that is one string: its letters would be the documents.
    """
    if isinstance(training, str):
        raise ValueError("training is one string; give a list of documents, or [text] for a single one")
    if width < 1:
        raise ValueError(f"width is {width}; a run has at least 1 word, and fewer than about 6 are found by accident")
    asked = [words_of(prompt) for prompt in prompts]
    wanted = {run for words in asked for run, _ in _runs(words, width)}
    known = {word for run in wanted for word in run}
    widths = sorted({len(run) for run in wanted})
    found: set[Words] = set()
    for document in training:
        found.update(run for run in _candidates(words_of(document), known, widths) if run in wanted)
    return [Overlap(words, _covered(words, width, found)) for words in asked]


def _runs(words: Words, width: int) -> Iterator[tuple[Words, int]]:
    """Every run of `width` words and where it starts; the whole where there are fewer."""
    width = min(width, len(words))
    for start in range(len(words) - width + 1 if words else 0):
        yield words[start : start + width], start


def _candidates(document: Words, known: Collection[str], widths: Sequence[int]) -> Iterator[Words]:
    """Every run of one of the widths, of known words alone: most stretches of a text end at a word that is none."""
    length = 0  # of the stretch of known words that ends here
    for end, word in enumerate(document, start=1):
        length = length + 1 if word in known else 0
        for width in widths:
            if width > length:
                break
            yield document[end - width : end]


def _covered(words: Words, width: int, found: set[Words]) -> tuple[bool, ...]:
    covered = [False] * len(words)
    for run, start in _runs(words, width):
        if run in found:
            covered[start : start + len(run)] = [True] * len(run)
    return tuple(covered)
