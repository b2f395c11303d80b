"""Teaching a model something: examples in, a model out that has learned them, with a loss on others that it never saw.

`examples` reads and parts what is taught, `encoding` makes ids and labels of it, `packing` rows; `settings` says how,
`loop` does it. `lora` trains thin matrices beside frozen ones, `classifier` a head for labels; `shown.show_loss_mask`
shows what of an example is taught.
"""

from persimmon_lab.finetuning.encoding import Encoded, encode, encode_all
from persimmon_lab.finetuning.examples import Example, conversation, read_examples, split
from persimmon_lab.finetuning.loop import Outcome, finetune
from persimmon_lab.finetuning.packing import Packed, pack
from persimmon_lab.finetuning.settings import Settings

__all__ = [
    "Encoded",
    "Example",
    "Outcome",
    "Packed",
    "Settings",
    "conversation",
    "encode",
    "encode_all",
    "finetune",
    "pack",
    "read_examples",
    "split",
]
