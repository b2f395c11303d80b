"""LoRA on this package's models, by peft: thin matrices beside frozen ones, merging, and what merging rounds away.

    W x  becomes  W x + (alpha / rank) B A x        A (rank in) drawn, B (out rank) 0 at the start

Only A and B learn. Merged, W + (alpha / rank) B A is an ordinary weight again, and the model an ordinary model.

    adapted = adapt(model, rank=8)                  # the model itself now has the pairs in it
    …                                               # train the parameters that require gradients
    save_adapter(adapted, folder)                   # a few hundred kilobytes, which peft reads
    model = merge(adapted)

Source: Hu et al. 2021, LoRA, https://arxiv.org/abs/2106.09685.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from persimmon_lab.atomic import filling
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.finetuning.deferred import Deferred
from persimmon_lab.numerics.measures import predictions
from persimmon_lab.quantisation import check_plain

# Every matrix inside the layers; the norms and the two tables of the vocabulary stay as they are.
TARGETS = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
PAIR = "lora_"  # in the names of the parameters that peft puts in, and in no name of ours

PEFT = Deferred("peft", extra="lab")


def check_installed() -> None:
    """ImportError, which says what to install, where peft is missing: to be told before a large model is loaded."""
    getattr(PEFT, "LoraConfig")  # noqa: B009  # asking is what loads it


def adapt(
    model: PersimmonForCausalLM,
    *,
    rank: int = 8,
    alpha: float | None = None,
    dropout: float = 0.0,
    targets: Iterable[str] = TARGETS,
    seed: int = 0,
) -> nn.Module:
    """peft's model around `model`, whose `targets` now have pairs of `rank` beside them; all else is frozen.

    The pairs say nothing yet: the outputs are what they were. They are float32 whatever the model is, and so keep the
    updates that its own format would round away. `alpha` is twice the rank unless given; A is drawn from `seed`, and no
    random state outside is touched. `targets` are names of modules, or the ends of their paths.

    Trap: the pairs are put into `model`, not into a copy. `merge` makes it an ordinary one again; to have the old one
    back as well, load it twice.

    Raises ValueError for a rank below 1 or an alpha of 0 or less, a dropout outside 0 to 1, targets that the model has
    not, and a model with adapters in; ImportError where peft is not installed.
    """
    check_plain(model, "adapting")
    targets = list(targets)
    if isinstance(rank, bool) or rank < 1:
        raise ValueError(f"rank is {rank!r}; give a whole number of at least 1, such as 8")
    if alpha is not None and not 0 < alpha < math.inf:
        raise ValueError(f"alpha is {alpha!r}; give a number above 0: twice the rank, {2 * rank}, is usual")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout!r}; give a share from 0 up to, not including, 1")
    if any(PAIR in name for name, _ in model.named_parameters()):
        raise ValueError("the model has adapters in it already; merge them, or load it again")
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    missing = [one for one in targets if not any(f".{name}".endswith(f".{one}") for name in names)]
    if missing or not targets:
        there = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
        raise ValueError(f"no linear module is called {', '.join(missing) or 'nothing'}; there are {there}")
    settings = PEFT.LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=targets,
    )
    with torch.random.fork_rng(devices=[]):  # peft draws on the CPU, from the state that everybody shares
        torch.manual_seed(seed)
        adapted: nn.Module = PEFT.get_peft_model(model, settings)
    return adapted


def merge(adapted: nn.Module) -> PersimmonForCausalLM:
    """The model that `adapt` was given, with the pairs added to its weights in its own dtype and taken out.

    Trap: in bfloat16 and float16 that rounds, and small updates are lost (`merging_errors`): merge in float32, then
    convert.
    """
    merged = [path for path, _, _ in pairs(adapted)]
    model: PersimmonForCausalLM = peft_model(adapted).merge_and_unload()
    with torch.no_grad():
        for path in merged:  # peft writes through .data, which no engine that keeps laid-out weights can see
            weight = model.get_parameter(f"{path}.weight")
            weight.copy_(weight)
    return model.requires_grad_(True)


@torch.no_grad()
def merge_into(base: PersimmonForCausalLM, adapted: nn.Module, dtype: torch.dtype) -> PersimmonForCausalLM:
    """`base`, the float32 model from before `adapt`, with the pairs of `adapted` added in float32, rounded once to
    `dtype`. `adapted`, which may compute in less, stays as it is.

    ValueError where a weight of `base` is not float32.
    """
    for name, update in updates(adapted).items():
        weight = base.get_parameter(name)
        if weight.dtype != torch.float32:
            raise ValueError(f"{name} of the base is {weight.dtype}; load it in float32, so that merging rounds once")
        weight.add_(update.to(weight.device))
    merged: PersimmonForCausalLM = base.to(dtype)
    return merged


def save_adapter(adapted: nn.Module, folder: Path) -> None:
    """Write the pairs and their settings, not the model, to a folder as peft reads them; whole or not at all.

    OSError where `folder` holds something.
    """
    with filling(folder) as staging:
        peft_model(adapted).save_pretrained(staging, save_embedding_layers=False)  # they are frozen


def load_adapter(model: PersimmonForCausalLM, folder: Path) -> nn.Module:
    """`adapt`'s result again: the model with the pairs that `save_adapter` wrote. They are frozen, as peft does it."""
    adapted: nn.Module = PEFT.PeftModel.from_pretrained(model, folder)
    return adapted


def peft_model(adapted: nn.Module) -> Any:
    """What was given, if it is peft's model; else TypeError."""
    if not isinstance(adapted, PEFT.PeftModel):
        raise TypeError(f"a {type(adapted).__name__} has no adapters; give what adapt or load_adapter returned")
    return adapted


def pairs(adapted: nn.Module) -> Iterator[tuple[str, nn.Linear, Float[Tensor, "out in"]]]:
    """Of each adapted matrix its path in the model, the frozen module, and the update (alpha / rank) B A in float32."""
    with torch.no_grad():
        for path, module in peft_model(adapted).base_model.model.named_modules():
            if isinstance(module, PEFT.tuners.lora.LoraLayer):
                for name in module.active_adapters:
                    yield path, module.get_base_layer(), module.get_delta_weight(name).float()


def updates(adapted: nn.Module) -> dict[str, Float[Tensor, "out in"]]:
    """What merging would add to each weight, by its name in the model's `state_dict`."""
    return {f"{path}.weight": update for path, _, update in pairs(adapted)}


@dataclass(frozen=True)
class Merging:
    """What merging in `dtype` does. `unmoved` is the share of the weights that have an update and stay as they were;
    `error` the length of what is missing of all updates over their length; `kl` the mean KL, in nats, from the model
    with its pairs beside to the merged one, both in `dtype`."""

    dtype: torch.dtype
    unmoved: float
    error: float
    kl: float


@torch.no_grad()
def merging_errors(
    adapted: nn.Module, ids: Int[Tensor, "batch position"], dtypes: Sequence[torch.dtype]
) -> list[Merging]:
    """Merge a copy in each dtype and measure; `adapted` stays as it is. `ids` are what both models read.

    Merging adds in the dtype of the weights: an update of less than half a step of the format is gone (peft 1388). The
    pairs beside, which are float32, are added to the activations instead, where they are not small.
    """
    measured = []
    for dtype in dtypes:
        beside = with_frozen_in(adapted, dtype).eval()
        before = {path: (module.weight.clone(), update) for path, module, update in pairs(beside)}
        expected = beside(input_ids=ids, use_cache=False).logits
        merged = merge(beside)  # in its place
        compared = predictions(expected, merged(ids, use_cache=False).logits, ids)
        updated = unmoved = 0
        squared_error = squared_length = 0.0
        for path, (weight, update) in before.items():
            after = merged.get_parameter(f"{path}.weight")
            has_update = update != 0
            updated += int(has_update.sum())
            unmoved += int((has_update & (after == weight)).sum())
            squared_error += float((after.double() - weight.double() - update.double()).square().sum())
            squared_length += float(update.double().square().sum())
        if not squared_length:
            raise ValueError("all updates are 0: the pairs have not been trained, so there is nothing to merge")
        error = math.sqrt(squared_error / squared_length)
        measured.append(Merging(dtype, unmoved / updated, error, float(compared.kl.mean())))
    return measured


def with_frozen_in(adapted: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy whose model is in `dtype` and whose pairs stay float32, as if peft had been given the model so."""
    copies = {
        id(weight): nn.Parameter(
            weight.detach().to(weight.dtype if PAIR in name else dtype, copy=True), weight.requires_grad
        )
        for name, weight in adapted.named_parameters()
    }
    return copy.deepcopy(adapted, copies)
