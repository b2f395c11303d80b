"""What a widget reads: a model with its tokenizer, and a text as tokens, or the reason why it cannot be read."""

from jaxtyping import Int
from torch import Tensor

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.mini import load_mini
from persimmon_lab.tokenizer import PersimmonTokenizer

PHRASE = "the king gave seven golden rings to Hannah"
TEXT = f"{PHRASE}, {PHRASE}"
LONGEST = 2048  # tokens; the page keeps a box for each


def given_or_shipped(
    model: PersimmonForCausalLM | None, tokenizer: PersimmonTokenizer | None
) -> tuple[PersimmonForCausalLM, PersimmonTokenizer]:
    """A model with its tokenizer: these, or the shipped ones. ValueError for one without the other."""
    if model is not None and tokenizer is not None:
        return model, tokenizer
    if model is not None or tokenizer is not None:
        raise ValueError("give a model together with its tokenizer, or neither for the shipped ones")
    return load_mini()


def ids_to_read(model: PersimmonForCausalLM, tokenizer: PersimmonTokenizer, text: str) -> Int[Tensor, "1 position"]:
    """A text's tokens. ValueError for one that is empty, or longer than the model or the page can take."""
    if not text.strip():
        raise ValueError("there is nothing to read: the text is empty; write a few words")
    ids: Int[Tensor, "1 position"] = tokenizer(text, return_tensors="pt").input_ids
    longest = min(model.config.context_limit, LONGEST)
    if ids.shape[1] > longest:
        raise ValueError(
            f"the text has {ids.shape[1]:,} tokens, but at most {longest:,} can be read here; shorten it by "
            f"{ids.shape[1] - longest:,} tokens"
        )
    return ids
