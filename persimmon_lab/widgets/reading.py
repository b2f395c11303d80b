"""What a widget reads: a model with its tokenizer, and a text as tokens, or the reason why it cannot be read."""

from pathlib import Path

from jaxtyping import Int
from torch import Tensor

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.mini import MINI, load_mini
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.viz.signs import counted

PHRASE = "the king gave seven golden rings to Hannah"
TEXT = f"{PHRASE}, {PHRASE}"
LONGEST = 2048  # tokens; the page keeps a box for each
SHIPPED = "persimmon-mini"


def given_or_shipped(
    model: PersimmonForCausalLM | None, tokenizer: PersimmonTokenizer | None
) -> tuple[PersimmonForCausalLM, PersimmonTokenizer]:
    """A model with its tokenizer: these, or the shipped ones. ValueError for one alone, or without weights."""
    if model is not None and tokenizer is not None:
        if model.device.type == "meta":
            raise ValueError("the model is on the meta device: it has shapes and no numbers; load its weights first")
        return model, tokenizer
    if model is not None or tokenizer is not None:
        raise ValueError("give a model together with its tokenizer, or neither for the shipped ones")
    return load_mini()


def name_of(model: PersimmonForCausalLM | None) -> str:
    """What figures call a model: the name of the folder or hub id that it was loaded from; "" of one that was not."""
    origin = str(getattr(model, "name_or_path", None) or "")
    return SHIPPED if model is None or origin == str(MINI) else Path(origin).name


def title(name: str, said: str, joint: str = ", ") -> str:
    """What a figure of a model says on top: its name, if it has one, and what is shown."""
    return f"{name}{joint}{said}" if name else f"{said[:1].upper()}{said[1:]}"


def ids_to_read(model: PersimmonForCausalLM, tokenizer: PersimmonTokenizer, text: str) -> Int[Tensor, "1 position"]:
    """A text's tokens. ValueError for one that is empty, or longer than the model or the page can take."""
    if not text.strip():
        raise ValueError("there is nothing to read: the text is empty; write a few words")
    ids: Int[Tensor, "1 position"] = tokenizer(text, return_tensors="pt").input_ids
    longest = min(model.config.context_limit, LONGEST)
    if ids.shape[1] > longest:
        raise ValueError(
            f"the text has {counted(ids.shape[1], 'token')}, but at most {longest:,} can be read here; shorten it by "
            f"{counted(ids.shape[1] - longest, 'token')}"
        )
    return ids
