"""A model that has looked everything up: it says what it was told to say, and prefers the choices that it was told."""

from collections.abc import Iterable
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from persimmon_lab.config import PersimmonConfig
from persimmon_lab.evaluation import Item
from persimmon_lab.mini import MINI
from persimmon_lab.tokenizer import PersimmonTokenizer

SURE = 50.0  # logit of a token that it prefers


class Lookup(nn.Module):
    """`right`: each item's own answer and choice; else the answer "wrong" and every choice but that."""

    def __init__(self, items: Iterable[Item], *, right: bool, stop_after: int | None = None) -> None:
        super().__init__()
        self.tokenizer = PersimmonTokenizer.from_pretrained(MINI)
        self.config = PersimmonConfig.from_json_file(MINI / "config.json")
        self.weight = nn.Parameter(torch.zeros(3))  # for its checksum alone
        self.device = torch.device("cpu")
        self.stop_after = stop_after  # calls of generate, and then it is interrupted
        self.said, self.preferred = {}, set()
        for item in items:
            whole = item.text + (item.said + item.after if right else " wrong")
            self.said[self._ids(item.text)] = self._ids(whole)
            for number, choice in enumerate(item.choices):
                if (number == item.correct) == right:
                    self.preferred.add(self._ids(item.text + choice))

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text))

    def generate(self, ids, attention_mask, **settings):
        if self.stop_after is not None:
            if self.stop_after == 0:
                raise KeyboardInterrupt
            self.stop_after -= 1
        rows = [tuple(row[mask.bool()].tolist()) for row, mask in zip(ids, attention_mask)]
        new = [self.said[row][len(row) :] for row in rows]
        width = max(map(len, new))
        pad = self.tokenizer.pad_token_id
        return torch.cat([ids, torch.tensor([[*row, *[pad] * (width - len(row))] for row in new])], dim=1)

    def forward(self, input_ids, attention_mask=None, past_key_values=None, **settings):
        logits = torch.zeros(*input_ids.shape, self.config.vocab_size)
        for row, ids in enumerate(input_ids):
            visible = ids if attention_mask is None else ids[attention_mask[row].bool()]
            if tuple(visible.tolist()) in self.preferred:
                logits[row, :-1] = SURE * F.one_hot(ids[1:], self.config.vocab_size)
        return SimpleNamespace(logits=logits, past_key_values=past_key_values)
