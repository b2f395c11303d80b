"""The loss mask on the tokens of an example: what the model is taught to say, and what it only reads."""

import sys

from persimmon_lab.finetuning.encoding import encode
from persimmon_lab.finetuning.examples import Example
from persimmon_lab.finetuning.packing import pack
from persimmon_lab.losses import IGNORED
from persimmon_lab.tokenizer import PersimmonTokenizer, StreamingDecoder
from persimmon_lab.viz.html.loss_mask import loss_mask_html
from persimmon_lab.viz.html.tokens import Token


def show_loss_mask(example: Example, tokenizer: PersimmonTokenizer, max_length: int | None = None) -> str:
    """HTML of the example as training reads it: `encode` and `pack` make its labels, the same that the loss takes.

        HTML(show_loss_mask(conversation("Hello!", "Hi there."), tokenizer))

    `max_length` is that of a row, and None one that fits all; what is cut off is counted below the text. Needs
    matplotlib, which all of `viz` brings along. Raises ValueError where `encode` does.
    """
    encoded = encode(example, tokenizer, sys.maxsize if max_length is None else max_length)
    row = pack([encoded], len(encoded.input_ids))
    ids: list[int] = row.input_ids[0].tolist()
    labels: list[int] = row.labels[0].tolist()
    decoder = StreamingDecoder(tokenizer, skip_special_tokens=True)
    pieces = tokenizer.convert_ids_to_tokens(ids)
    tokens = [Token(decoder.push(index), piece, token_id=index) for index, piece in zip(ids, pieces)]
    taught = [None if label == IGNORED else tokenizer.convert_ids_to_tokens(label) for label in labels]
    return loss_mask_html(tokens, taught, left_out=encoded.cut)
