"""The precision explorer: what a format and a stress do to the error of each layer and to the margin below overflow."""

from collections.abc import Sequence
from dataclasses import dataclass

import ipywidgets
import torch
from jaxtyping import Int
from matplotlib.figure import Figure
from torch import Tensor

from persimmon_lab.anatomy import RESIDUAL
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.numerics.compare import compare, in_dtype
from persimmon_lab.numerics.comparison import Comparison
from persimmon_lab.numerics.formats import FORMATS
from persimmon_lab.numerics.islands import keep_in_float32
from persimmon_lab.numerics.stress import scale_mlp, scale_residual, what_scale_mlp_does, what_scale_residual_does
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.viz.precision import explorer
from persimmon_lab.widgets.panels.panel import Panel
from persimmon_lab.widgets.reading import given_or_shipped, name_of, title

TEXT = "human: Do you have a dog?\n\nadept: I do not have a dog, but I have a cat. Her name is Luna."
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
MODULES = {
    "residual stream": RESIDUAL,
    "query, key and value": "self_attn.query_key_value",
    "rotated queries": "self_attn.rotated_query",
    "heads": "self_attn.head_output",
    "attention": "self_attn",
    "pre-activations": "mlp.dense_h_to_4h",
    "squared ReLU": "mlp.activations",
    "MLP": "mlp",
}
ALWAYS_SHOWN = ("pre-activations", "squared ReLU", "residual stream")  # in the margin
STRESSES = {"MLP": (scale_mlp, what_scale_mlp_does), "residual stream": (scale_residual, what_scale_residual_does)}
FACTORS = [2.0**power for power in range(14)]
SPANS = ((1e-5, 1.0), (1.0, 1e11))  # of the errors and of the magnitudes


@dataclass(frozen=True)
class Settings:
    """What the controls say. `islands`: the MLPs stay in float32."""

    dtype: str = "float16"
    module: str = "residual stream"
    stress: str = "MLP"
    factor: float = 1.0
    islands: bool = False


class Bench:
    """A model and the tokens that it reads, and every comparison that was made with them so far."""

    def __init__(self, model: PersimmonForCausalLM, ids: Int[Tensor, "batch position"]) -> None:
        self.model = in_dtype(model, torch.float32).eval()
        self.ids = ids
        self._made: dict[tuple[str | bool | float, ...], Comparison] = {}

    def compare(self, settings: Settings) -> Comparison:
        """The stressed model in the settings' dtype against itself in float32; once for all modules."""
        is_stressed = settings.factor != 1
        key = settings.dtype, is_stressed and settings.stress, settings.factor, settings.islands
        if key not in self._made:
            stress, _ = STRESSES[settings.stress]
            stressed = stress(self.model, settings.factor) if is_stressed else self.model
            dtype = DTYPES[settings.dtype]
            islands = ["*.mlp"] if settings.islands else []
            candidate = keep_in_float32(stressed, dtype, islands)
            self._made[key] = compare(stressed, {settings.dtype: candidate}, self.ids)
        return self._made[key]


def verdict(comparison: Comparison, dtype: str) -> str:
    """In a sentence, what became of the predictions."""
    if (bad := comparison.first_non_finite[dtype]) is not None:
        return f"not finite from {bad}"
    changes = comparison.predictions[dtype]
    if not changes.kl.isfinite().all():
        return "in float32 the model's own logits are not finite (NaN or infinite): there is nothing to compare with"
    return (
        f"mean KL {float(changes.kl.mean()):.1e} nats, {int(changes.flipped.sum())} of {changes.flipped.numel()} "
        f"likeliest tokens differ, perplexity {changes.perplexity:.4g} (in float32 {changes.reference_perplexity:.4g})"
    )


def told(bench: Bench, settings: Settings) -> tuple[str, str]:
    """What was done to the model, and what became of its predictions."""
    done = STRESSES[settings.stress][1](settings.factor) if settings.factor != 1 else "not stressed"
    return done, verdict(bench.compare(settings), settings.dtype)


def render(bench: Bench, settings: Settings, name: str, note: str = "") -> Figure:
    """What the explorer shows: the errors of one module by layer, and how large the numbers become.

    A number is crossed out where its own format cannot hold it, which in an island is float32.
    """
    comparison, calm = bench.compare(settings), bench.compare(Settings(settings.dtype))
    dtype = settings.dtype
    path = MODULES[settings.module]
    lines = {dtype: comparison}
    if comparison is not calm:
        lines = {f"{dtype}, as set": comparison, f"{dtype}, left alone": calm}
    shown = {label: MODULES[label] for label in (*ALWAYS_SHOWN, settings.module)}
    sizes, shares = (comparison.by_layer(dtype, column) for column in ("largest", "share of the format"))
    return explorer(
        {label: line.by_layer(dtype)[path].tolist() for label, line in lines.items()},
        {label: sizes[module].tolist() for label, module in shown.items()},
        {dtype: FORMATS[dtype].epsilon / 2},
        {dtype: FORMATS[dtype].largest},
        [str(layer) for layer in sizes.index],
        {label: (shares[module] > 1).to_numpy().nonzero()[0].tolist() for label, module in shown.items()},
        SPANS,
        title(
            name,
            f"in {dtype}{', its MLPs in float32' * settings.islands}, against float32: {settings.module}",
            joint=" ",
        ),
        note,
    )


class PrecisionExplorer(Panel):
    """Choose a format, a module and a stress, and watch the error ladder and the overflow margin move.

    Takes the shipped model, or a small `model` of yours with its `tokenizer`: every new choice runs it over `text`
    in float32 and in the format. `name` is how the figures call the model, by default as its folder is called;
    `explorer.settings` is what they show.
    """

    def __init__(
        self,
        model: PersimmonForCausalLM | None = None,
        tokenizer: PersimmonTokenizer | None = None,
        text: str = TEXT,
        name: str | None = None,
    ) -> None:
        self.name = name_of(model) if name is None else name
        model, tokenizer = given_or_shipped(model, tokenizer)
        self.bench = Bench(model, tokenizer(text, return_tensors="pt").input_ids)
        self.dtype = ipywidgets.ToggleButtons(
            options=list(DTYPES), description="format", style={"button_width": "82px"}
        )
        self.module = ipywidgets.Dropdown(options=list(MODULES), description="module")
        self.stress = ipywidgets.ToggleButtons(options=list(STRESSES), description="stress",
                                               style={"button_width": "125px"})  # fmt: skip
        self.factor = ipywidgets.SelectionSlider(
            options=[(f"× {factor:g}", factor) for factor in FACTORS],
            value=1.0,
            description="by",
            continuous_update=False,
        )
        self.islands = ipywidgets.Checkbox(False, description="keep the MLPs in float32", indent=False)
        super().__init__((self.dtype, self.module, self.stress, self.factor, self.islands))

    @property
    def settings(self) -> Settings:
        """What the controls say now."""
        return Settings(self.dtype.value, self.module.value, self.stress.value, self.factor.value, self.islands.value)

    def static(self) -> Figure:
        """The present choice as one figure, for pages without a kernel: the words stand in it."""
        return render(self.bench, self.settings, self.name, "\n".join(told(self.bench, self.settings)))

    def _figure(self) -> Figure:
        return render(self.bench, self.settings, self.name)

    def _words(self) -> Sequence[str]:
        return told(self.bench, self.settings)

    def __repr__(self) -> str:
        chosen = self.settings
        return f"PrecisionExplorer({chosen.dtype}, {chosen.module}, {chosen.stress} × {chosen.factor:g})"
