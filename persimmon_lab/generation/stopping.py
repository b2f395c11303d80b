"""Where generation ends: end-of-text ids, and stop strings wherever the token boundaries fall."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from persimmon_lab.generation_config import GenerationConfig

# Of the ids so far and the scores that the last one was chosen from: whether all rows end there, or which ones do.
StoppingCriterion = Callable[[Tensor, Tensor | None], "bool | Tensor"]
REPLACEMENT_CHARACTER = "\ufffd"


class Ending:
    """Tells which rows end with their last token, by an end-of-text id, a stop string or one of `criteria`, for all who
    decode. `config` is the settled one (`prompts.settle`), since a model's generation_config may end its
    texts at other ids than its config.

    `filler` is the id that fills them while others go on: the pad id, else the first eos, else 0. Raises ValueError for
    stop strings without a tokenizer.
    """

    def __init__(
        self,
        config: GenerationConfig,
        tokenizer: Any,
        device: torch.device,
        criteria: Sequence[StoppingCriterion] | None = None,
    ) -> None:
        self.stop_strings = config.stop_string_list()
        self.tokenizer = tokenizer
        if self.stop_strings and tokenizer is None:
            raise ValueError("stop_strings are looked for in the text, so generate() needs tokenizer=... to make it")
        ids = config.eos_token_ids()
        self.token_ids = torch.tensor(ids, dtype=torch.int64, device=device)
        self.has_filler = config.pad_token_id is not None or bool(ids)
        self.filler = next((i for i in [config.pad_token_id, *ids] if i is not None), 0)
        self.criteria = criteria or ()
        self.possible = bool(ids or self.stop_strings or self.criteria)

    def __call__(
        self, sequences: Int[Tensor, "row position"], scores: Float[Tensor, "row_of_scores vocab"] | None = None
    ) -> Bool[Tensor, "row"]:
        ended = (sequences[:, -1:] == self.token_ids).any(dim=1)
        for criterion in self.criteria:
            ended = ended | _answer(criterion, sequences, scores, ended)
        if self.stop_strings:
            rows = [ends_with_stop_string(self.tokenizer, row, self.stop_strings) for row in sequences.tolist()]
            ended |= torch.tensor(rows, device=ended.device)
        return ended

    def until_end(self, token_ids: Sequence[int], start: int) -> list[int]:
        """What one row holds after its first `start` ids, the prompt: up to the token that ends it, that one included.

        What fills a row while others go on is none of it.
        """
        row = torch.tensor([token_ids], device=self.token_ids.device)
        ends = (end for end in range(start + 1, len(token_ids) + 1) if self(row[:, :end]))
        return list(token_ids[start : next(ends, None)])


def _answer(
    criterion: StoppingCriterion, sequences: Tensor, scores: Tensor | None, rows: Bool[Tensor, "row"]
) -> Bool[Tensor, "*row"]:
    """What a criterion says, as a bool or one for each of `rows`. Raises TypeError for anything else, by its name."""
    said: Any = criterion(sequences, scores)
    name = f"the stopping criterion {getattr(criterion, '__name__', type(criterion).__name__)}"
    try:
        answer = torch.as_tensor(said, dtype=torch.bool, device=rows.device)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} returned a {type(said).__name__}; it has to return True or False") from None
    if answer.numel() != 1 and answer.shape != rows.shape:
        raise ValueError(
            f"{name} returned shape {tuple(answer.shape)}; it has to return a bool, or one for each of {len(rows)} rows"
        )
    return answer.flatten().expand(rows.shape)


def ends_with_stop_string(tokenizer: Any, token_ids: Sequence[int], stop_strings: Sequence[str]) -> bool:
    """Whether the last token completes one of the stop strings in the text of `token_ids`.

    The string may begin many tokens back and end inside the last token, as in transformers; a stop string that was
    complete before the last token does not count.
    """
    if not stop_strings:
        return False
    # A token carries at least one byte, so the string spans at most its number of bytes in tokens. One token more on
    # the left keeps what a decoder does to the very first token (dropping its space) away from the string.
    reach = 1 + max(len(stop_string.encode("utf-8")) for stop_string in stop_strings)
    tail = list(token_ids[-reach:])
    text = tokenizer.decode(tail, skip_special_tokens=False)
    # Bytes of an unfinished character decode to replacement characters, which the last token may turn into a real one.
    before = tokenizer.decode(tail[:-1], skip_special_tokens=False).rstrip(REPLACEMENT_CHARACTER)
    return any(text.find(stop, max(0, len(before) - len(stop) + 1)) >= 0 for stop in stop_strings)


def split_at_stop_string(text: str, stop_strings: Sequence[str]) -> tuple[str, str]:
    """Split streamed text into what may be shown and what must wait because it is, or may become, a stop string.

    >>> split_at_stop_string("fine.\\n\\nhum", ["\\n\\nhuman:"])
    ('fine.', '\\n\\nhum')
    """
    starts = [text.find(stop) for stop in stop_strings if stop in text]
    if starts:
        return text[: min(starts)], text[min(starts) :]
    lengths_begun = (
        length
        for stop in stop_strings
        for length in range(min(len(stop) - 1, len(text)), 0, -1)
        if text.endswith(stop[:length])
    )
    waiting = max(lengths_begun, default=0)
    return text[: len(text) - waiting], text[len(text) - waiting :]
