"""The same fine-tuning under different recipes for its numbers, and what each step did to them.

A recipe says in which format the weights are, whether float32 masters stand behind them, by what the loss is
multiplied and what AdamW's eps is. All else is equal: the model, the batches and their order, torch's own AdamW.

Source: Micikevicius et al. 2018, Mixed Precision Training (masters, loss scaling); the mechanisms are measured.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.fitting.choosing import check_room_for_copies
from persimmon_lab.losses import causal_lm_loss
from persimmon_lab.numerics.compare import in_dtype
from persimmon_lab.numerics.diagnosis import Failure, diagnose
from persimmon_lab.numerics.observation import Moments, Observation, Step, Watch, vanished

Tokens = Int[Tensor, "batch position"]
Batches = Sequence[Int[Tensor, "_ _"]]  # (batch position), each of a shape of its own


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune, as far as numbers go. Raises ValueError for no steps and for a dynamic loss scale without
    masters."""

    name: str
    dtype: torch.dtype
    masters: bool = False  # float32 copies take the updates, the model gets their rounded values
    loss_scale: float = 1.0  # with `dynamic`, the first one
    dynamic: bool = False  # torch's GradScaler: where a gradient overflows, skip the step and halve the scale
    eps: float = 1e-8  # torch's and transformers' default
    rate: float = 2e-4
    steps: int = 8

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; a recipe takes 1 or more")
        if self.dynamic and not self.masters:
            raise ValueError(
                "dynamic loss scaling divides the gradients again, which needs float32 (torch's GradScaler refuses "
                "float16); give masters=True, or a fixed loss_scale and dynamic=False"
            )


FLOAT32 = Recipe("float32", torch.float32)
FLOAT16 = Recipe("float16", torch.float16)  # the page's "known to produce nan"
FLOAT16_EPS = Recipe("float16, eps 1e-7", torch.float16, eps=1e-7)  # which float16 can hold
FLOAT16_SCALED = Recipe("float16, loss × 2¹³", torch.float16, loss_scale=2.0**13)
# AdamW knows no size but eps: with both of them times 2^13 it takes the same steps, through numbers that fit.
FLOAT16_SCALED_EPS = Recipe("float16, loss and eps × 2¹³", torch.float16, loss_scale=2.0**13, eps=1e-8 * 2**13)
FLOAT16_MASTERS = Recipe("float16, masters", torch.float16, masters=True, loss_scale=2.0**16, dynamic=True)
BFLOAT16 = Recipe("bfloat16", torch.bfloat16)
BFLOAT16_MASTERS = Recipe("bfloat16, masters", torch.bfloat16, masters=True)
RECIPES = (
    FLOAT32, FLOAT16, FLOAT16_EPS, FLOAT16_SCALED, FLOAT16_SCALED_EPS, FLOAT16_MASTERS, BFLOAT16, BFLOAT16_MASTERS,
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One recipe carried out: a record of every step, the first failure if there was one, and the model it left."""

    recipe: Recipe
    steps: tuple[Step, ...]
    failure: Failure | None
    model: PersimmonForCausalLM

    def __repr__(self) -> str:
        lost = f"loss {self.losses[0]:.4g} to {self.losses[-1]:.4g}" if self.steps else "nothing done"
        return f"<Run of {self.recipe.name!r}: {len(self.steps)} steps, {lost}; {self.failure or 'no failure'}>"

    @property
    def losses(self) -> list[float]:
        """By step, each before its update."""
        return [step.loss for step in self.steps]

    def frame(self) -> pandas.DataFrame:
        """One row per step."""
        return pandas.DataFrame(map(dataclasses.asdict, self.steps)).set_index("step")


class Trainee:
    """A copy of a model and the optimiser that moves its trainable weights. It runs in evaluation mode, so that
    nothing is random.

    Raises MemoryError, before the copies, where there is no room for them, their gradients and AdamW's moments.
    """

    def __init__(self, model: PersimmonForCausalLM, recipe: Recipe) -> None:
        self.recipe = recipe
        masters = [torch.float32] if recipe.masters else []
        moved = nn.ParameterList(trainable(model).values())
        check_room_for_copies(moved, [recipe.dtype] * 2 + (masters or [recipe.dtype]) * 2 + 2 * masters, "a step")
        self.model = in_dtype(model, recipe.dtype).eval()
        self.weights = trainable(self.model)
        # Masters come from the model as it was given: they keep what rounding takes away.
        self.moved = trainable(in_dtype(model, torch.float32)) if recipe.masters else self.weights
        self.optimiser = torch.optim.AdamW(self.moved.values(), lr=recipe.rate, eps=recipe.eps)
        self.scaler = torch.amp.GradScaler(model.device.type, init_scale=recipe.loss_scale, enabled=recipe.dynamic)

    @property
    def loss_scale(self) -> float:
        return self.scaler.get_scale() if self.recipe.dynamic else self.recipe.loss_scale

    def forward(self, tokens: Tokens) -> Float[Tensor, ""]:
        self.model.zero_grad()
        return causal_lm_loss(self.model(tokens, use_cache=False).logits, tokens)

    def backward(self, loss: Float[Tensor, ""]) -> dict[str, Tensor]:
        """The gradients by parameter, times the loss scale."""
        (self.scaler.scale(loss) if self.recipe.dynamic else loss * self.loss_scale).backward()
        return {name: weight.grad for name, weight in self.weights.items() if weight.grad is not None}

    @torch.no_grad()
    def update(self, gradients: Mapping[str, Tensor]) -> None:
        """One step of AdamW, unless dynamic scaling skips it, and rounding into the model.

        Without masters the gradients keep their scale: to divide them would bring the underflow back.
        """
        if not self.recipe.masters:
            self.optimiser.step()
            return
        divisor = 1.0 if self.recipe.dynamic else self.loss_scale  # the scaler divides by its own
        for name, master in self.moved.items():
            master.grad = gradients[name].float() / divisor
        self.scaler.step(self.optimiser)
        self.scaler.update()
        for name, master in self.moved.items():
            self.weights[name].copy_(master)

    def moments(self) -> dict[str, Moments]:
        """AdamW's state by parameter; empty until a step was taken."""
        states = {name: self.optimiser.state.get(weight) for name, weight in self.moved.items()}
        return {name: Moments(state["exp_avg"], state["exp_avg_sq"]) for name, state in states.items() if state}


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that are not frozen, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def fine_tune(model: PersimmonForCausalLM, batches: Batches, recipe: Recipe, twin: bool = True) -> Run:
    """Fine-tune a copy of `model` with AdamW, one batch a step and round again; the caller's model stays as it is.

    Nothing is random: the same call gives the same bits. The run ends when its loss is not finite, unless dynamic
    scaling may still rescue it. `twin` takes each step's gradients in float32 as well, from the same weights, which
    doubles the time and costs a float32 copy of the model; without it `vanished` is nan. Raises ValueError where there
    are no batches.
    """
    if not len(batches):
        raise ValueError("batches is empty; give one or more, each of (batch, position) ids")
    trainee = Trainee(model, recipe)
    exact = in_dtype(trainee.model, torch.float32) if twin and recipe.dtype != torch.float32 else None
    steps: list[Step] = []
    failure: Failure | None = None
    for number in range(1, recipe.steps + 1):
        tokens = batches[(number - 1) % len(batches)].to(model.device)
        seen = observe_step(trainee, number, tokens, exact)
        failure = failure or diagnose(seen, steps[-1] if steps else None)
        steps.append(seen.summary())
        if not (math.isfinite(seen.loss) or recipe.dynamic):
            break
    return Run(recipe, tuple(steps), failure, trainee.model)


def observe_step(trainee: Trainee, number: int, tokens: Tokens, exact: PersimmonForCausalLM | None) -> Observation:
    """Take one step and look at it. A loss that is not finite is not followed further, except by dynamic scaling."""
    recipe, loss_scale = trainee.recipe, trainee.loss_scale
    before = {name: weight.detach().clone() for name, weight in trainee.moved.items()}
    gradients: dict[str, Tensor] = {}
    norm, skipped = math.nan, True
    lost = 0.0 if recipe.dtype == torch.float32 else math.nan
    with Watch(trainee.model) as watch:
        loss = trainee.forward(tokens)
        if loss.isfinite() or recipe.dynamic:
            gradients = trainee.backward(loss)
    if gradients:
        norm = float(torch.stack([gradient.float().norm() for gradient in gradients.values()]).norm()) / loss_scale
        if exact is not None:
            lost = vanished(gradients, exact_gradients(exact, trainee.weights, tokens))
        trainee.update(gradients)
        skipped = trainee.loss_scale < loss_scale
    return Observation(
        step=number,
        dtype=recipe.dtype,
        rate=recipe.rate,
        eps=recipe.eps,
        loss_scale=loss_scale,
        activations=watch.activations,
        highest=watch.highest,
        loss=loss.item(),
        gradients={} if skipped else watch.gradients,
        gradient_norm=norm,
        vanished=lost,
        skipped=skipped,
        moments=trainee.moments(),
        before=before,
        weights=trainee.moved,
    )


def exact_gradients(exact: PersimmonForCausalLM, weights: Mapping[str, Tensor], tokens: Tokens) -> dict[str, Tensor]:
    """The gradients in float32 at the weights of another model, which `exact` is given."""
    own = trainable(exact)
    with torch.no_grad():
        for name, weight in weights.items():
            own[name].copy_(weight)
    loss = causal_lm_loss(exact(tokens, use_cache=False).logits, tokens)
    return dict(zip(own, torch.autograd.grad(loss, tuple(own.values()))))


def ladder(runs: Iterable[Run]) -> pandas.DataFrame:
    """One row per run: where its loss began and ended, what failed, and the shares of its first step.

    Raises ValueError where there are no runs.
    """
    rows = [
        {
            "recipe": run.recipe.name,
            "first loss": run.losses[0],
            "last loss": run.losses[-1],
            "failed at step": run.failure.step if run.failure else None,
            "quantity": run.failure.quantity if run.failure else "",
            "mechanism": run.failure.mechanism if run.failure else "",
            "vanished": run.steps[0].vanished,
            "unnormalised": run.steps[0].unnormalised,
            "rounded away": run.steps[0].rounded_away,
        }
        for run in runs
    ]
    if not rows:
        raise ValueError("runs is empty; give one or more results of fine_tune")
    return pandas.DataFrame(rows).set_index("recipe").astype({"failed at step": "Int64"})
