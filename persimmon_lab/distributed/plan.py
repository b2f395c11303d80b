"""Tensor parallelism: every rank holds a part of each large matrix, by torch's own DTensor.

A layer is cut twice, and each cut costs one sum over the ranks (Shoeybi et al. 2019, Megatron-LM):

    query_key_value  by its rows: whole heads        dense          by its columns, then a sum
    dense_h_to_4h    by its rows: whole neurons      dense_4h_to_h  by its columns, then a sum

The embedding is cut over the vocabulary (a sum), and so is the head (a gather of the logits). What is left, the norms
and the biases after a sum, every rank has whole.
"""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.finetuning.deferred import Deferred
from persimmon_lab.quantisation import check_plain

PARALLEL = Deferred("torch.distributed.tensor.parallel", extra="lab")  # a second to load
TENSOR = Deferred("torch.distributed.tensor", extra="lab")


def plan() -> dict[str, Any]:
    """What torch's `parallelize_module` takes: four entries a layer, and the two tables of the vocabulary.

    The trap is the fused projection, whose rows are (head three channel): cut in equal parts they are whole heads. A
    layout of (three head channel) would have to be cut in three first.
    """
    by_rows, by_columns = PARALLEL.ColwiseParallel, PARALLEL.RowwiseParallel  # torch names the columns of W transposed
    everywhere = TENSOR.Replicate()
    return {
        "model.embed_tokens": by_columns(input_layouts=everywhere),
        "model.layers.*.self_attn.query_key_value": by_rows(),
        "model.layers.*.self_attn.dense": by_columns(),
        "model.layers.*.mlp.dense_h_to_4h": by_rows(),
        "model.layers.*.mlp.dense_4h_to_h": by_columns(),
        "lm_head": by_rows(output_layouts=everywhere),
    }


def check_divides(config: PersimmonConfig, ranks: int) -> None:
    """Raises ValueError, by name, for what so many ranks cannot share: the heads and the neurons have to be whole. The
    vocabulary may be any number, of which the last ranks have less."""
    for name, what in (("num_attention_heads", "heads"), ("intermediate_size", "neurons of the MLP")):
        count = getattr(config, name)
        if count % ranks:
            fitting = [str(size) for size in range(1, count + 1) if config.num_attention_heads % size == 0]
            fitting = [size for size in fitting if config.intermediate_size % int(size) == 0]
            raise ValueError(
                f"{name} is {count}, and {ranks} ranks cannot have equally many {what}; start {', '.join(fitting)} "
                "processes, or train and generate with whole models"
            )


def shard(model: PersimmonForCausalLM, mesh: DeviceMesh) -> PersimmonForCausalLM:
    """Cut a model that every rank has whole into the ranks' parts, in place; see `loading.load_sharded` for one that
    no rank could hold.

    Every rank calls it, and afterwards the model, together and with the same arguments; each gets all logits, and a
    cache of its own heads. The model is for reading: it is left in eval mode and frozen, since gradients of what every
    rank has whole would be those of the rank's own heads. `training.train` trains with FSDP2.

    `generate` works, by the plain engine (the others take no DTensors, and say so). Sampling needs a `seed`, the same
    on all ranks. A step for which ranks give different ids raises ValueError on each of them.

    Raises ValueError for heads that cannot be shared, and for a model with adapters or other strange modules in it.
    """
    check_plain(model, "sharing a model out")
    check_divides(model.config, mesh.size())
    strange = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and not _is_own(name)]
    if strange:
        raise ValueError(f"the plan knows no {strange[0]}; take out what was put into the model (merge adapters) first")
    PARALLEL.parallelize_module(model, mesh, plan())
    model.tie_weights()  # the two were cut alike
    model.register_forward_pre_hook(_Agreement(mesh), with_kwargs=True)
    return model.requires_grad_(False).eval()


def _is_own(name: str) -> bool:
    return name.rpartition(".")[2] in {entry.rpartition(".")[2] for entry in plan()}


class _Agreement:
    """Before each forward pass: what a cut model cannot do is refused, and so are ids that differ between ranks.

    One sum of two numbers a step. Without it ranks that draw different tokens would write nonsense together.
    """

    def __init__(self, mesh: DeviceMesh) -> None:
        self.mesh = mesh

    def __call__(self, model: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        if model.training:
            raise ValueError("a model cut by tensor parallelism does not train: call eval(), or train it with FSDP2")
        asked = named.get("output_attentions")
        if model.config.output_attentions if asked is None else asked:
            raise ValueError("output_attentions: a rank has the patterns of its own heads; ask a model that is whole")
        given = next((value for value in (*positional, *named.values()) if isinstance(value, Tensor)), None)
        if given is not None and self.mesh.size() > 1:
            require_agreement(given, self.mesh)


@torch.no_grad()
def require_agreement(given: Int[Tensor, "..."] | Float[Tensor, "..."], mesh: DeviceMesh) -> None:
    """Raises ValueError on every rank where the ranks do not all have the same tensor, as far as a sum can tell."""
    flat = given.detach().double().flatten()
    places = torch.arange(1, len(flat) + 1, dtype=torch.float64, device=flat.device)
    told = torch.stack([flat.sum(), (flat * places).sum(), places.sum()])
    both = torch.cat([told, -told])
    dist.all_reduce(both, op=dist.ReduceOp.MAX, group=mesh.get_group())
    if not torch.equal(both[: len(told)], -both[len(told) :]):
        raise ValueError(
            f"the ranks were given different inputs (here {tuple(given.shape)}); give all the same prompt and, for "
            "sampling, the same seed"
        )
