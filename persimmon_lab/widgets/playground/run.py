"""One generation at work: a branch that grows until it ends, is stopped, or fails."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from persimmon_lab.generation.engines.decodable import Decodable
from persimmon_lab.generation.prompts import settle
from persimmon_lab.generation.stopping import Ending
from persimmon_lab.modes import evaluating
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.viz.html.tokens import Token
from persimmon_lab.widgets.playground.nucleus import KeptLogits
from persimmon_lab.widgets.playground.text import encode_prompt, stream_tokens
from persimmon_lab.widgets.playground.tree import Branch
from persimmon_lab.widgets.playground.tree_code import capped


@dataclass(eq=False)
class Run:
    """A branch and what became of writing it."""

    branch: Branch
    cancel: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None
    is_over: bool = False

    @property
    def tokens(self) -> list[Token]:
        return self.branch.tokens

    @property
    def stopped(self) -> bool:
        return self.cancel.is_set()

    def write(
        self,
        model: Decodable,
        tokenizer: PersimmonTokenizer,
        logits: KeptLogits,
        on_token: Callable[[], None] = lambda: None,
    ) -> None:
        """Let the model write the branch from where it stands. Raises what `generate` raises."""
        branch = self.branch
        started = time.perf_counter()
        ids = path_ids(tokenizer, branch)
        room = model.config.context_limit - ids.shape[1]
        settings = capped(branch, room)
        if branch.parent is not None and (settings.max_new_tokens < 1 or ended(model, tokenizer, branch, ids)):
            return
        position = len(branch.inherited) + len(branch.tokens)

        def keep(step: Tensor) -> None:
            logits.keep(branch, position, step)

        with evaluating(model):
            for token in stream_tokens(model, tokenizer, settings, self.cancel, ids, keep):
                branch.tokens.append(token)
                position += 1
                branch.seconds = max(time.perf_counter() - started, 1e-9)  # a coarse clock may not have moved
                on_token()


def path_ids(tokenizer: PersimmonTokenizer, branch: Branch, length: int | None = None) -> Int[Tensor, "1 position"]:
    """The prompt's ids and those of the first `length` tokens of the branch's path, by default all of them."""
    prompt = encode_prompt(tokenizer, branch.settings)
    own = prompt.new_tensor([[token.token_id for token in branch.path[:length]]])
    return prompt if own.numel() == 0 else torch.cat([prompt, own], dim=1)


def ended(model: Decodable, tokenizer: PersimmonTokenizer, branch: Branch, ids: Int[Tensor, "1 position"]) -> bool:
    """Whether the last token of a path is an end to `generate` too, so that nothing may follow."""
    arguments = {name: value for name, value in branch.settings.generate_arguments().items() if name != "seed"}
    return bool(Ending(settle(model, None, arguments), tokenizer, ids.device)(ids))
