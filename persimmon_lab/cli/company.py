"""The commands under torchrun: several processes run the same line, and the first one speaks for them."""

import contextlib
import os
import secrets
from collections.abc import Iterator

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.distributed.loading import load_sharded
from persimmon_lab.distributed.world import World, is_launched, joined, shared
from persimmon_lab.mini import MINI
from persimmon_lab.tokenizer import PersimmonTokenizer

KNOWN = ("generate", "train", "finetune")


def require_known(command: str | None) -> None:
    """Raises ValueError for a command that several processes would each run for themselves, over the same files."""
    if is_launched() and command is not None and command not in KNOWN:
        raise ValueError(
            f"torchrun started {command} in several processes, which would all do the same; only {', '.join(KNOWN)} "
            f"share their work. Run it without torchrun: persimmon-lab {command}"
        )


@contextlib.contextmanager
def company(device: str) -> Iterator[World | None]:
    """The processes that torchrun started for this command, joined until the block ends; None where it did not. What
    others than the first write to the standard output goes nowhere."""
    if not is_launched():
        yield None
        return
    with joined(device) as world, contextlib.ExitStack() as stack:
        if not world.is_first:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        yield world


def load_together(name: str, dtype: str, world: World) -> tuple[PersimmonForCausalLM, PersimmonTokenizer]:
    """The model, of which each process has a part, and its tokenizer."""
    path = MINI if name == "mini" else name
    return load_sharded(path, world, torch_dtype=dtype), PersimmonTokenizer.from_pretrained(path)


def load_everywhere(name: str, dtype: str, world: World) -> tuple[PersimmonForCausalLM, PersimmonTokenizer]:
    """The model, which each process has whole, and its tokenizer; the first one downloads what has to be."""
    path = MINI if name == "mini" else name
    if world.is_first:
        PersimmonTokenizer.from_pretrained(path)
    shared(None, world)
    model = PersimmonForCausalLM.from_pretrained(path, torch_dtype=dtype, device=world.device)
    return model, PersimmonTokenizer.from_pretrained(path)


def common_seed(seed: int | None, world: World) -> int:
    """The seed that was given, or one that the first process draws for all."""
    return shared(secrets.randbits(63) if seed is None else seed, world)
