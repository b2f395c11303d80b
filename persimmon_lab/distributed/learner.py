"""What learns, a part of it on each rank: FSDP2 gathers a layer's weights when it runs and sums its gradients up after.

Sharded weights are the float32 masters; a layer is rounded to the dtype that it computes in as it is gathered. Every
rank reads its own rows of a batch, so the arithmetic is that of one process but for the order of the sums. Source:
torch's `fully_shard`; Rajbhandari et al. 2020, ZeRO (stage 3).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.distributed.plan import TENSOR
from persimmon_lab.distributed.world import World
from persimmon_lab.finetuning.deferred import Deferred
from persimmon_lab.losses import IGNORED, linear_cross_entropy
from persimmon_lab.trace.layers import decoder_layers
from persimmon_lab.training.muon import RMS_OF_ADAMW, Muon, orthogonal_direction
from persimmon_lab.training.optimiser import optimisers_for

FSDP = Deferred("torch.distributed.fsdp", extra="lab")


class Rows(NamedTuple):
    """Rows of a batch: ids, the id that follows each (-100 where none is taught), positions where they pack documents;
    each (row position)."""

    input_ids: Int[Tensor, "row position"]
    targets: Int[Tensor, "row position"]
    position_ids: Int[Tensor, "row position"] | None = None

    @property
    def target_count(self) -> int:
        """How many ids are taught."""
        return int((self.targets != IGNORED).sum())

    def of(self, world: World) -> "Rows":
        """Every `size`-th row, on the rank's device. A rank for which there is none reads the first one and is taught
        nothing by it, since it has to take part."""
        mine = slice(world.rank, None, world.size)
        if world.rank < len(self.input_ids):
            parts = [None if tensor is None else tensor[mine] for tensor in self]
        else:
            parts = [None if tensor is None else tensor[:1] for tensor in self]
            parts[1] = torch.full_like(self.targets[:1], IGNORED)
        ids, targets, positions = (None if tensor is None else tensor.to(world.device) for tensor in parts)
        assert ids is not None and targets is not None
        return Rows(ids, targets, positions)


class Objective(nn.Module):
    """The loss as a module, whose forward pass is where FSDP gathers the tables of the vocabulary."""

    def __init__(self, model: PersimmonForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: Rows) -> Float[Tensor, ""]:
        """Mean -log p, in nats, of what these rows teach; never makes all logits."""
        hidden = self.model.model(rows.input_ids, position_ids=rows.position_ids, use_cache=False).last_hidden_state
        return linear_cross_entropy(hidden, self.model.get_parameter("lm_head.weight"), rows.targets)


class ShardedMuon(Muon):
    """Muon over sharded matrices: each rank gathers a matrix's update, makes all of it orthogonal and keeps its part.

    The same numbers as Muon's, and the same arithmetic on every rank; what is split is the memory.
    """

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # as in Muon
        """One update of every matrix; each must have a gradient."""
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for matrix in group["params"]:
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                mean = state["momentum_buffer"].lerp_(matrix.grad, 1 - momentum)
                ahead = matrix.grad.lerp(mean, momentum)
                whole = orthogonal_direction(ahead.full_tensor(), self.dtype).to(matrix.dtype)
                mesh, placements = matrix.device_mesh, matrix.placements
                replicated = TENSOR.DTensor.from_local(whole, mesh, [TENSOR.Replicate()], run_check=False)
                matrix.mul_(1 - rate * group["weight_decay"])
                longest = max(matrix.shape)
                matrix.add_(replicated.redistribute(mesh, placements), alpha=-rate * RMS_OF_ADAMW * longest**0.5)


class ShardedLearner:
    """The weights of a model, in float32 and a part on each rank, and what moves them. All ranks call everything.

    `model` has to be whole and the same on every rank, in float32; it is sharded in place. What does not ask for
    gradients is sharded as well and stays as it is.
    """

    def __init__(
        self,
        model: PersimmonForCausalLM,
        world: World,
        *,
        dtype: torch.dtype,
        matrix_rate: float | None,
        rate: float,
        weight_decay: float,
        clip: float = 1.0,
        fused: bool = False,
    ) -> None:
        if not any(weight.requires_grad for weight in model.parameters()):
            raise ValueError("no weight of the model asks for gradients; call requires_grad_() on what is to learn")
        if strange := [name for name, weight in model.named_parameters() if weight.dtype != torch.float32]:
            raise ValueError(f"{strange[0]} is not float32, and the shards are the masters; call model.float() first")
        self.model, self.world, self.clip = model, world, clip
        policy = FSDP.MixedPrecisionPolicy(
            param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32
        )
        for layer in decoder_layers(model):
            FSDP.fully_shard(layer, mesh=world.mesh, mp_policy=policy)
        self.objective: Any = FSDP.fully_shard(Objective(model), mesh=world.mesh, mp_policy=policy)
        self.weights = dict(model.named_parameters())
        learning = {name: weight for name, weight in self.weights.items() if weight.requires_grad}
        self.optimisers: list[torch.optim.Optimizer] = []
        self.rates: list[float] = []
        for optimiser in optimisers_for(
            learning, matrix_rate=matrix_rate, rate=rate, weight_decay=weight_decay, fused=fused
        ):
            if isinstance(optimiser, Muon):
                matrices = [matrix for group in optimiser.param_groups for matrix in group["params"]]
                assert matrix_rate is not None
                optimiser = ShardedMuon(matrices, matrix_rate, weight_decay, dtype=optimiser.dtype)
            self.optimisers.append(optimiser)
            self.rates.append(optimiser.param_groups[0]["lr"])

    def add_gradients(self, batches: Sequence[Rows]) -> float:
        """Read the batches of a step, each rank its rows; the mean loss of all that they teach, in nats a token."""
        target_count = sum(batch.target_count for batch in batches)
        if not target_count:
            raise ValueError("the step teaches nothing: all its labels are -100")
        total = torch.zeros((), dtype=torch.float64, device=self.world.device)
        for batch in batches:
            rows = batch.of(self.world)
            loss = self.objective(rows)
            # FSDP takes the mean of the ranks' gradients; what is wanted is their sum.
            (loss * (rows.target_count / target_count * self.world.size)).backward()
            total += loss.detach().double() * rows.target_count
        return float(self._summed(total)) / target_count

    def step(self, scale: float) -> float:
        """One update at `scale` times the rates, the gradient clipped; returns its norm before that."""
        learning = [weight for weight in self.weights.values() if weight.requires_grad]
        norm: Any = nn.utils.clip_grad_norm_(learning, self.clip)
        for optimiser, rate in zip(self.optimisers, self.rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * scale
            optimiser.step()
            optimiser.zero_grad()
        return float(norm.full_tensor())

    @torch.no_grad()
    def loss_of(self, batches: Sequence[Rows]) -> float:
        """Nats per taught token of all batches together."""
        total = torch.zeros((), dtype=torch.float64, device=self.world.device)
        for batch in batches:
            rows = batch.of(self.world)
            total += self.objective(rows).double() * rows.target_count
        self.objective.reshard()  # or the next pass would run with what was gathered for this one
        return float(self._summed(total)) / sum(batch.target_count for batch in batches)

    def _summed(self, total: Float[Tensor, ""]) -> Float[Tensor, ""]:
        dist.all_reduce(total, group=self.world.mesh.get_group())
        return total

    def state(self) -> dict[str, Tensor]:
        """All weights and what the optimisers remember of them, by name: the rank's parts of it."""
        state: dict[str, Tensor] = {f"weights.{name}": weight.detach() for name, weight in self.weights.items()}
        names = {id(weight): name for name, weight in self.weights.items()}
        for optimiser in self.optimisers:
            for weight, remembered in optimiser.state.items():
                state |= {f"optimiser.{names[id(weight)]}.{key}": value for key, value in remembered.items()}
        return state

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Take a `state`."""
        for name, weight in self.weights.items():
            weight.copy_(state[f"weights.{name}"])
        owners = {id(weight): optimiser for optimiser in self.optimisers
                  for group in optimiser.param_groups for weight in group["params"]}  # fmt: skip
        for key, value in state.items():
            kind, _, rest = key.partition(".")
            if kind == "optimiser":
                name, _, what = rest.rpartition(".")
                weight = self.weights[name]
                owners[id(weight)].state[weight][what] = value
