"""What one training step does to the numbers: seen through hooks and AdamW's state, and summed up in a row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from persimmon_lab.trace.hooks import of_this_thread
from persimmon_lab.trace.names import first_tensor

Magnitudes = Mapping[str, Float[Tensor, ""]]  # largest magnitudes by name, in the order of computing


@dataclass(frozen=True)
class Moments:
    """AdamW's two running means of one parameter, as they are stored: of the gradient and of its square."""

    first: Float[Tensor, "*shape"]
    second: Float[Tensor, "*shape"]


@dataclass(frozen=True)
class Step:
    """What one step did to the numbers. Shares are of all weights that are trained."""

    step: int  # from 1
    loss: float  # before the update
    loss_scale: float
    skipped: bool  # no weight moved: the loss or a gradient was not finite
    gradient_norm: float  # without the loss scale
    largest_activation: float
    largest_weight: float  # after the update
    longest_update: float  # in rates
    vanished: float  # gradients that are 0, and are not in float32 at the same weights
    unnormalised: float  # second moments that are 0 though the first are not
    rounded_away: float  # weights that stayed as they were though their first moment is not 0


@dataclass(frozen=True)
class Observation:
    """All that a step left behind: forward, loss, backward, optimiser. Weights are those that the optimiser moves."""

    step: int
    dtype: torch.dtype  # that the model computes in
    rate: float
    eps: float
    loss_scale: float
    activations: Magnitudes
    highest: Mapping[str, Float[Tensor, ""]]  # the largest of each module's outputs, with its sign
    loss: float
    gradients: Magnitudes  # as the backward pass made them, times the loss scale; empty where it was skipped
    gradient_norm: float
    vanished: float
    skipped: bool
    moments: Mapping[str, Moments]
    before: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]

    def __repr__(self) -> str:
        return f"<Observation of step {self.step}: loss {self.loss:.4g}, {len(self.weights)} weights>"

    def summary(self) -> Step:
        moves = [largest(weight.detach() - self.before[name]) for name, weight in self.weights.items()]
        return Step(
            step=self.step,
            loss=self.loss,
            loss_scale=self.loss_scale,
            skipped=self.skipped,
            gradient_norm=self.gradient_norm,
            largest_activation=float(torch.stack(list(self.activations.values())).amax()),
            largest_weight=float(torch.stack([largest(weight) for weight in self.weights.values()]).amax()),
            longest_update=float(torch.stack(moves).amax()) / self.rate,
            vanished=self.vanished,
            unnormalised=unnormalised(self.moments),
            rounded_away=0.0 if self.skipped else rounded_away(self.before, self.weights, self.moments),
        )


class Watch:
    """Notes, while it is open, how large every module's output and every parameter's gradient become.

    Single numbers, so that a large model costs no memory. A module that is called twice keeps its last call.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.activations: dict[str, Tensor] = {}
        self.highest: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}
        self.hooks: list[RemovableHandle] = []

    def __enter__(self) -> "Watch":
        modules = [(name, module) for name, module in self.model.named_modules() if name]
        trained = [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]
        self.hooks = [module.register_forward_hook(of_this_thread(self._output(name))) for name, module in modules]
        self.hooks += [weight.register_post_accumulate_grad_hook(self._gradient(name)) for name, weight in trained]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _output(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if (tensor := first_tensor(output)) is not None:
                self.activations[name] = largest(tensor)
                self.highest[name] = tensor.detach().amax()

        return note

    def _gradient(self, name: str) -> Callable[[Tensor], None]:
        def note(parameter: Tensor) -> None:
            if parameter.grad is not None:
                self.gradients[name] = largest(parameter.grad)

        return note


def largest(x: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """The largest magnitude; nan where there is one."""
    return x.detach().abs().amax()


def share(counts: Mapping[str, Tensor]) -> float:
    """Share of the True in boolean tensors."""
    return sum(int(count.sum()) for count in counts.values()) / max(1, sum(count.numel() for count in counts.values()))


def vanished(gradients: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> float:
    """Share of the gradients that are 0 although the exact ones are not."""
    return share({name: (gradient == 0) & (exact[name] != 0) for name, gradient in gradients.items()})


def unnormalised(moments: Mapping[str, Moments]) -> float:
    """Share of the weights whose second moment is 0 although the first is not.

    AdamW divides the first by the root of the second, so that every update is about as long as the rate. Where the
    second has underflowed only eps is left to divide by. (1 - beta2) g^2 is 0 in float16 for |g| up to 0.0054.
    """
    return share({name: (moment.second == 0) & (moment.first != 0) for name, moment in moments.items()})


def rounded_away(before: Mapping[str, Tensor], after: Mapping[str, Tensor], moments: Mapping[str, Moments]) -> float:
    """Share of the weights that an update of more than 0 left as they were."""
    return share({name: (after[name] == before[name]) & (moment.first != 0) for name, moment in moments.items()})
