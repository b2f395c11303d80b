"""An example as ids and labels: what the model reads, and which of it the model is taught to say."""

from collections.abc import Sequence
from dataclasses import dataclass

from persimmon_lab.finetuning.examples import Example, Messages
from persimmon_lab.losses import IGNORED
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.tokenizer.chat import render_chat


@dataclass(frozen=True)
class Encoded:
    """One document. `labels` stand at their own positions, as `causal_lm_loss` takes them, -100 where nothing is
    learned, and first of all at position 0, which nothing stands before.

    `cut` counts the tokens that did not fit the row and were left out.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    cut: int = 0

    @property
    def target_count(self) -> int:
        """How many labels count."""
        return sum(label != IGNORED for label in self.labels)


def encode(example: Example, tokenizer: PersimmonTokenizer, max_length: int) -> Encoded:
    """The ids of an example and their labels, at most `max_length` of each.

    Of a conversation, in Adept's format, the answers are learned and the end token after each. In the text the end
    token stands once, after the last answer, since no prompt has it after earlier ones; there it is the label of the
    line break with which the next question begins, so that the model learns to stop in the very place where it will
    be asked to. Of a text everything is learned, with its end.

    The conversation is tokenised whole, as a prompt is; the mask is cut from the characters that each token stands for.
    One that is too long is cut after the last answer that fits; where the first one does not, within it, and then its
    end is not learned. A text is cut where the row ends.

    Raises ValueError, with the example's name, where nothing is left to learn, and for a tokenizer without eos_token.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise ValueError("the tokenizer has no eos_token, and nothing would teach the model where to stop; set one")
    if example.messages is None:
        whole = _encode_text(example.rendered(), tokenizer, end)
    else:
        whole = _encode_chat(example.messages, tokenizer, end)
    encoded = whole if len(whole.input_ids) <= max_length else _cut(whole, max_length, end)
    if not encoded.target_count:
        why = "its first question fills the row" if encoded.cut else "its labels are all masked"
        raise ValueError(
            f"{example.name}: nothing to learn within {max_length} tokens of {len(whole.input_ids)} ({why}); make it "
            "shorter, or the rows longer"
        )
    return encoded


def encode_all(examples: Sequence[Example], tokenizer: PersimmonTokenizer, max_length: int) -> list[Encoded]:
    """`encode` of each."""
    return [encode(example, tokenizer, max_length) for example in examples]


def _encode_text(text: str, tokenizer: PersimmonTokenizer, end: int) -> Encoded:
    before, _ = tokenizer.special_tokens_around()
    ids = [*before, *tokenizer(text, add_special_tokens=False).input_ids, end]
    return Encoded(tuple(ids), (IGNORED, *ids[1:]))


def _encode_chat(messages: Messages, tokenizer: PersimmonTokenizer, end: int) -> Encoded:
    before, _ = tokenizer.special_tokens_around()
    text = render_chat(messages, add_generation_prompt=False)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = [*before, *encoding.input_ids, end]
    spans = [*[(0, 0)] * len(before), *encoding.offset_mapping, (len(text), len(text))]
    labels = [IGNORED] * len(ids)
    for turn in range(1, len(messages), 2):
        start = len(render_chat(messages[:turn]))  # after "adept:", where a prompt ends
        stop = len(render_chat(messages[: turn + 1], add_generation_prompt=False))
        for place, (first, last) in enumerate(spans):
            if start <= first and last <= stop and first < last:
                labels[place] = ids[place]
        after = next(place for place, (first, _) in enumerate(spans) if first >= stop)
        if spans[after - 1][1] <= stop:  # else a token holds the answer's last character and more
            labels[after] = end
    return Encoded(tuple(ids), tuple(labels))


def _cut(whole: Encoded, max_length: int, end: int) -> Encoded:
    """The document up to the last end of an answer that fits, or, where none does, its first `max_length` tokens."""
    ends = [place for place in range(max_length) if whole.labels[place] == end != whole.input_ids[place]]
    if not ends:
        ids, labels = whole.input_ids[:max_length], whole.labels[:max_length]
    else:
        ids, labels = (*whole.input_ids[: ends[-1]], end), whole.labels[: ends[-1] + 1]
    return Encoded(ids, labels, cut=len(whole.input_ids) - len(ids))
