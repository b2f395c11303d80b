"""What learns: the trainable weights with float32 masters, the loss that teaches them and what moves them.

`training.optimiser.MasterWeights` is the same for a whole model, a batch a step; here part of it may be frozen, a step
may have several batches, and the masters can be left out.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.finetuning.lora import PAIR
from persimmon_lab.finetuning.packing import Packed
from persimmon_lab.finetuning.settings import Settings
from persimmon_lab.losses import linear_cross_entropy
from persimmon_lab.quantisation import check_plain
from persimmon_lab.training.optimiser import optimisers_for

Weights = dict[str, Tensor]


class Learner:
    """The trainable weights of a model in `dtype`, float32 masters of them, and what moves them."""

    def __init__(self, model: PersimmonForCausalLM, settings: Settings) -> None:
        check_plain(model, "fine-tuning")
        self.model, self.settings = model, settings
        dtype = settings.compute_dtype
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        if not self.weights:
            raise ValueError("no weight of the model asks for gradients; call requires_grad_() on what is to learn")
        has_masters = settings.masters and dtype != torch.float32
        copies = {name: nn.Parameter(weight.detach().float().clone()) for name, weight in self.weights.items()}
        for name, parameter in model.named_parameters():
            if PAIR not in name:  # adapters stay float32, as peft has them
                parameter.data = parameter.data.to(dtype)
        self.masters = copies if has_masters else dict(self.weights)
        rate = settings.highest_rate
        self.optimisers = optimisers_for(
            self.masters,
            matrix_rate=rate if settings.optimiser == "muon" else None,
            rate=rate,
            weight_decay=settings.weight_decay,
        )
        self.gradients: Weights = {}

    def add_gradients(self, batch: Packed, step_target_count: int) -> float:
        """Read a batch; `step_target_count` counts the labels of the whole step. Returns the sum of its losses."""
        share = batch.target_count / step_target_count
        loss = batch_loss(self.model, batch)
        (loss * share).backward()
        for name, weight in self.weights.items():
            if weight.grad is not None:
                gradient = weight.grad.to(self.masters[name].dtype)
                self.gradients[name] = self.gradients[name] + gradient if name in self.gradients else gradient
                weight.grad = None
        return loss.item() * batch.target_count

    @torch.no_grad()
    def step(self, rate: float) -> float:
        """One update; returns the gradient's norm before clipping."""
        for name, master in self.masters.items():
            master.grad = self.gradients.get(name, torch.zeros_like(master))
        norm = nn.utils.clip_grad_norm_(list(self.masters.values()), self.settings.clip)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
        for master in self.masters.values():
            master.grad = None
        self.gradients = {}
        self.load(self.masters)
        return norm.item()

    @torch.no_grad()
    def load(self, masters: Mapping[str, Tensor]) -> None:
        """Take these masters; the model gets them rounded."""
        for name, weight in self.weights.items():
            self.masters[name].copy_(masters[name])
            if weight is not self.masters[name]:
                weight.copy_(masters[name])

    def snapshot(self) -> Weights:
        return {name: master.detach().clone() for name, master in self.masters.items()}


def batch_loss(model: PersimmonForCausalLM, batch: Packed) -> Float[Tensor, ""]:
    """Mean -log p, in nats, of what is learned of a batch; never makes all logits."""
    batch = batch.to(model.device)
    hidden = model.model(batch.input_ids, position_ids=batch.position_ids, use_cache=False).last_hidden_state
    return linear_cross_entropy(hidden, model.get_parameter("lm_head.weight"), batch.targets)


@torch.no_grad()
def loss_of(model: PersimmonForCausalLM, batches: Sequence[Packed]) -> float:
    """Nats per learned token of all batches together."""
    sums = [(batch_loss(model, batch).item() * batch.target_count, batch.target_count) for batch in batches]
    return sum(total for total, _ in sums) / sum(count for _, count in sums)
