"""Pictures as tokens, Fuyu's way: no image encoder; patches go through one linear layer to where embeddings stand.

`patches` cuts a picture, `layout` lays pictures and texts out in a row of ids, `reader` is the model that reads them.
"""

from persimmon_lab.vision.layout import Layout, Prompts, lay_out
from persimmon_lab.vision.patches import cut, joined
from persimmon_lab.vision.reader import PersimmonWithPictures

__all__ = [
    "Layout",
    "PersimmonWithPictures",
    "Prompts",
    "cut",
    "joined",
    "lay_out",
]
