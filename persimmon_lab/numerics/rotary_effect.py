"""What other rotary phases do to a model that was trained with its own, by position."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.losses import surprisal
from persimmon_lab.model import Tokens
from persimmon_lab.numerics.measures import predictions
from persimmon_lab.numerics.rotary import Tables, phase_tables, phases
from persimmon_lab.outputs import CausalLMOutputWithPast
from persimmon_lab.trace.hooks import of_this_thread
from persimmon_lab.trace.layers import decoder_layers

REFERENCE, NOISE = "float32", "noise"  # the names of two runs in `effect`


@contextmanager
def swapped_tables(
    model: nn.Module, cos: Float[Tensor, "#batch position rotary"], sin: Float[Tensor, "#batch position rotary"]
) -> Iterator[None]:
    """While it is open, every decoder layer of the model rotates by these tables instead of its own, in this thread.

    They are rounded to the dtype of the hidden states, as the model's are, and moved to their device. The layers get
    them from a forward pre-hook, which goes when the block is left, by an error too.

    Raises ValueError for a model without decoder layers, and in the forward pass for tables of another size.
    """

    def swap(_layer: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, own_cos, own_sin, *rest = given
        if cos.shape[-2:] != own_cos.shape[-2:]:
            expected, got = tuple(own_cos.shape[-2:]), tuple(cos.shape[-2:])
            raise ValueError(f"the input needs tables of (position, rotary) {expected}, the swapped ones have {got}")
        return hidden, cos.to(hidden), sin.to(hidden), *rest

    hooks = [layer.register_forward_pre_hook(of_this_thread(swap)) for layer in decoder_layers(model)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class RotaryEffect:
    """What other phases did to a model, by position.

    `frame` has a row for each run and position, means over the rows of tokens: `kl` to the run with float32 phases and
    `loss` of the next token in nats (NaN at the last position, which has none), `flipped` the share of rows whose
    likeliest token changed.
    """

    frame: pandas.DataFrame

    def __repr__(self) -> str:
        runs = ", ".join(self.frame["run"].unique())
        return f"<RotaryEffect over {self.frame['position'].nunique():,} positions: {runs}>"

    def by_band(self, width: int) -> pandas.DataFrame:
        """Means over bands of `width` positions, with the perplexity of the band's mean loss.

        Raises ValueError for a width below 1.
        """
        if width < 1:
            raise ValueError(f"width is {width}; a band has 1 position or more")
        band = self.frame["position"] // width * width
        means = self.frame.groupby(["run", band], sort=False)[["kl", "loss", "flipped"]].mean()
        return means.assign(perplexity=means["loss"].map(math.exp))

    def curves(self, column: str, width: int = 1) -> dict[str, Float[Tensor, "band"]]:
        """One column by run, as tensors to draw; a mean over every `width` positions.

        Raises ValueError for a column that is not there.
        """
        bands = self.by_band(width)
        if column not in bands:
            raise ValueError(f"no column is called {column!r}; there are {', '.join(bands)}")
        values = bands[column]
        return {run: torch.tensor(values[run].to_numpy()) for run in values.index.unique("run")}


@torch.no_grad()
def effect(
    model: PersimmonForCausalLM,
    ids: Tokens,
    variants: Mapping[str, Tables],
    noise: Callable[[Tokens], CausalLMOutputWithPast] | None = None,
) -> RotaryEffect:
    """Run a causal LM on the same tokens with float32 phases and with each variant's tables, and compare.

    `noise` is the same model with float32 phases and other roundings elsewhere: all of it in bfloat16, say, or, where
    it is so already, with its other attention. What it differs by is the floor that an effect must rise above. Rows run
    one at a time; two rows of logits are in memory.
    """

    def swapped(tables: Tables) -> Callable[[Tokens], CausalLMOutputWithPast]:
        def run(row: Tokens) -> CausalLMOutputWithPast:
            with swapped_tables(model, *tables):
                output: CausalLMOutputWithPast = model(row)
                return output

        return run

    exact = phase_tables(phases(torch.arange(ids.shape[-1]), model.config, dtype=torch.float32))
    runs = {name: swapped(tables) for name, tables in {REFERENCE: exact, **variants}.items()}
    if noise is not None:
        runs[NOISE] = noise
    measured = []
    for row in ids.split(1):
        reference = None
        for name, run in runs.items():
            logits: Any = run(row).logits
            reference = logits if reference is None else reference
            measured.append(_measured(reference, logits, row).assign(run=name))
    return RotaryEffect(pandas.concat(measured).groupby(["run", "position"], sort=False).mean().reset_index())


def _measured(
    reference: Float[Tensor, "1 position vocab"], logits: Float[Tensor, "1 position vocab"], row: Tokens
) -> pandas.DataFrame:
    """The columns of RotaryEffect for one row and run."""
    compared = predictions(reference, logits, row)
    loss = F.pad(surprisal(logits[:, :-1], row[:, 1:].to(logits.device)), (0, 1), value=torch.nan)
    columns = {"kl": compared.kl[0], "loss": loss[0], "flipped": compared.flipped[0]}
    frame = pandas.DataFrame({name: values.double().cpu().numpy() for name, values in columns.items()})
    return frame.rename_axis("position").reset_index()
