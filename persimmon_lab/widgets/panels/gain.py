"""The gain explorer: what becomes of a head's scores and attention as queries and keys grow, with and without norm."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import ipywidgets
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn

from persimmon_lab.attention import PersimmonAttention, attention_pattern, attention_scores, causal_mask
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.modes import evaluating
from persimmon_lab.numerics.bounds import layer_bound
from persimmon_lab.rotary import apply_rotary, rotary_tables
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.trace.capture import capture
from persimmon_lab.viz.scores import explorer
from persimmon_lab.viz.signs import counted
from persimmon_lab.widgets.panels.panel import Panel
from persimmon_lab.widgets.reading import TEXT, given_or_shipped, name_of, title

GAINS = tuple(2.0 ** (power / 2) for power in range(-6, 9))  # 1/8 to 16
LONGEST = 512  # tokens: every gain of a head is a matrix of their square


@dataclass(frozen=True)
class Settings:
    """What the controls say. Layers and heads count from 0."""

    layer: int = 6
    head: int = 3
    gain: float = 1.0
    norm: bool = True


class Bench:
    """A model, a text, and the queries and keys that each layer had before its norm when the model read the text.

    A gain multiplies these, as if it multiplied the weights and biases that make them; the layers before are left
    alone, so that one layer is looked at in isolation.
    """

    def __init__(self, model: PersimmonForCausalLM, tokenizer: PersimmonTokenizer, text: str) -> None:
        ids = tokenizer(text, return_tensors="pt").input_ids[:, :LONGEST]
        self.layers = [module for module in model.modules() if isinstance(module, PersimmonAttention)]
        self.bounds = [bound_of(attention) for attention in self.layers]
        self.tokens = [piece.replace("\n", "⏎") for piece in tokenizer.convert_ids_to_tokens(ids[0].tolist())]
        with evaluating(model):
            trace = capture(model, ids, only=["q_layernorm:input", "k_layernorm:input"])
        self.queries, self.keys = (trace.stacked(f"{side}_layernorm:input").float().cpu() for side in ("q", "k"))
        length = ids.shape[1]
        positions = rearrange(torch.arange(length), "position -> 1 position")
        self.cos, self.sin = rotary_tables(positions, model.config, length, torch.float32)
        self.mask = causal_mask(None, length, length, torch.float32, torch.device("cpu"))
        self.visible = self.mask[0, 0] == 0
        self.sweep = functools.cache(self._sweep)

    @torch.no_grad()
    def scores(self, settings: Settings) -> Float[Tensor, "query key"]:
        """The head's scores, masked, after the gain, with or without the norm, and after rotation."""
        attention = self.layers[settings.layer]
        query = self._rotated(self.queries, attention.q_layernorm, settings)
        key = self._rotated(self.keys, attention.k_layernorm, settings)
        return attention_scores(query, key, self.mask)[0, 0]

    def _rotated(
        self, vectors: Float[Tensor, "layer batch head position channel"], norm: nn.LayerNorm, settings: Settings
    ) -> Float[Tensor, "batch 1 position channel"]:
        vectors = settings.gain * vectors[settings.layer, :, [settings.head]]
        if settings.norm:
            weight, bias = norm.weight.float().cpu(), norm.bias.float().cpu()
            vectors = F.layer_norm(vectors, norm.normalized_shape, weight, bias, norm.eps)
        return apply_rotary(vectors, self.cos, self.sin)

    def entropy(self, settings: Settings) -> float:
        """Of the head's attention in bits, on average over the queries that have a choice."""
        pattern = attention_pattern(rearrange(self.scores(settings), "query key -> 1 1 query key"))[0, 0, 1:]
        return float(torch.special.entr(pattern).sum(dim=-1).mean() / torch.log(torch.tensor(2.0)))

    def _sweep(self, layer: int, head: int) -> dict[str, Float[Tensor, "gain"]]:
        """The entropy at every gain, with and without the norm."""
        return {
            name: torch.tensor([self.entropy(Settings(layer, head, gain, norm)) for gain in GAINS])
            for name, norm in (("with the norm", True), ("without the norm", False))
        }


def bound_of(attention: PersimmonAttention) -> float:
    """`layer_bound`; NaN where the norms' weights are not all finite, and bound nothing."""
    norms = [*attention.q_layernorm.parameters(), *attention.k_layernorm.parameters()] if attention.qk_layernorm else []
    return layer_bound(attention) if all(weight.isfinite().all() for weight in norms) else math.nan


def told(bench: Bench, settings: Settings) -> str:
    """In a sentence, what the figure shows."""
    scores = bench.scores(settings)
    visible = scores[bench.visible]
    side = "with" if settings.norm else "without"
    place = f"Layer {settings.layer}, head {settings.head}, queries and keys × {settings.gain:.3g}, {side} the norm"
    if lost := int((~visible.isfinite()).sum()):
        return (
            f"{place}: {lost:,} of {counted(len(visible), 'score')} {'is' if lost == 1 else 'are'} not finite (NaN or "
            "infinite), and so is what follows from them. Look for a weight that is NaN, or for a number too large for "
            "its format, in this layer or before it."
        )
    largest = float(visible.abs().max())
    sharpest = float(scores.softmax(dim=-1)[1:].amax(dim=-1).mean())
    return (
        f"{place}: largest score {largest:,.1f} (bound with the norm {bench.bounds[settings.layer]:.1f}), entropy "
        f"{bench.entropy(settings):.2f} bits, on average {sharpest:.0%} of a query's attention on one key."
    )


def render(bench: Bench, settings: Settings, name: str) -> Figure:
    """What the explorer shows: scores and bound, entropy by gain, and the head's pattern."""
    scores = bench.scores(settings)
    pattern = attention_pattern(rearrange(scores, "query key -> 1 1 query key"))[0, 0]
    grown = bench.scores(Settings(settings.layer, settings.head, GAINS[-1], norm=False))[bench.visible].abs()
    bound = bench.bounds[settings.layer]
    sizes = [size for size in (*grown[grown.isfinite()].tolist(), bound) if math.isfinite(size)]
    return explorer(
        scores[bench.visible],
        bound,
        pattern,
        bench.tokens,
        GAINS,
        bench.sweep(settings.layer, settings.head),
        settings.gain,
        settings.norm,
        widest=1.1 * max(sizes, default=1.0),
        title=title(
            name,
            f"layer {settings.layer}, head {settings.head}: queries and keys × {settings.gain:.3g}, "
            f"{'with' if settings.norm else 'without'} the norm",
        ),
    )


class GainExplorer(Panel):
    """Move the gain on queries and keys, switch the norm off and on, and watch one head's scores and attention.

    Takes the shipped model, or a `model` of yours with its `tokenizer`; runs it once, over `text`. `name` is how the
    figures call the model, by default as its folder is called; `explorer.settings` is what they show.
    """

    def __init__(
        self,
        model: PersimmonForCausalLM | None = None,
        tokenizer: PersimmonTokenizer | None = None,
        text: str = TEXT,
        name: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.name = name_of(model) if name is None else name
        model, tokenizer = given_or_shipped(model, tokenizer)
        self.bench = Bench(model, tokenizer, text)
        config, start = model.config, settings or Settings()
        layers, heads = config.num_hidden_layers, config.num_attention_heads
        self.gain = ipywidgets.SelectionSlider(
            options=[(f"× {gain:.3g}", gain) for gain in GAINS], value=start.gain, description="gain"
        )
        self.norm = ipywidgets.Checkbox(start.norm, description="with the norm on queries and keys", indent=False)
        self.layer = ipywidgets.IntSlider(start.layer, 0, layers - 1, description="layer")
        self.head = ipywidgets.IntSlider(start.head, 0, heads - 1, description="head")
        super().__init__((self.gain, self.norm, self.layer, self.head))

    @property
    def settings(self) -> Settings:
        """What the controls say now."""
        return Settings(self.layer.value, self.head.value, self.gain.value, self.norm.value)

    def _figure(self) -> Figure:
        return render(self.bench, self.settings, self.name)

    def _words(self) -> Sequence[str]:
        return (told(self.bench, self.settings),)

    def __repr__(self) -> str:
        norm = "with" if self.norm.value else "without"
        return f"GainExplorer(layer {self.layer.value}, head {self.head.value}, × {self.gain.value:.3g}, {norm} norm)"
