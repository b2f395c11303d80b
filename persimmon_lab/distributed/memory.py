"""What each of P ranks holds, by each way of splitting a model, before anything is started."""

import math
from dataclasses import dataclass, replace

import torch

from persimmon_lab.anatomy import layer_of
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.checkpoints.skeletons import shapes_in_file, skeleton
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.distributed.plan import check_divides
from persimmon_lab.footprint import activation_bytes, cache_bytes

WAYS = ("copies", "tensor", "sharded", "pipeline")
FLOAT32 = 4  # bytes
MOMENTS = 2  # of AdamW
ROWS = ("embed_tokens.weight", "lm_head.weight", "query_key_value.weight", "query_key_value.bias",
        "dense_h_to_4h.weight", "dense_h_to_4h.bias")  # fmt: skip
COLUMNS = ("dense.weight", "dense_4h_to_h.weight")


@dataclass(frozen=True)
class RankMemory:
    """Bytes on the rank that holds most. `weights`, `cache`, `gradients`, `moments` stay; `gathered` and `activations`
    come and go."""

    way: str
    ranks: int
    weights: int
    cache: int
    gradients: int
    moments: int
    gathered: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.gradients + self.moments + self.gathered + self.activations


def rank_memory(
    config: PersimmonConfig,
    ranks: int,
    way: str,
    *,
    dtype: torch.dtype = torch.bfloat16,
    batch: int = 1,
    context: int | None = None,
    training: bool = False,
) -> RankMemory:
    """What the fullest of `ranks` needs for `batch` rows of `context` positions, all read at once:

    - "copies": the whole model each, and a share of the rows;
    - "tensor": `plan.plan`, a part of each matrix and of the cache, and all rows;
    - "sharded": FSDP2, a part of everything, a share of the rows, and for a moment whole layers: the one that runs, the
      next one and what is in none;
    - "pipeline": consecutive layers each, the embedding on the first and the head on the last rank (torchtitan's way;
      nothing here does it).

    For reading, or with `training` for learning: then weights are float32 masters, with gradients and AdamW's two
    moments in float32, and where `dtype` is narrower a copy in it for what computes. There is no cache then, and the
    activations that wait for the backward pass come on top, as do kernels' workspaces. Where rows are not a multiple of
    the ranks the fullest rank counts.

    Raises ValueError for another way, fewer than one rank, more stages than layers, and heads that cannot be shared.
    """
    if way not in WAYS:
        raise ValueError(f"way is {way!r}; choose one of {', '.join(WAYS)}")
    if ranks < 1:
        raise ValueError(f"{ranks} ranks; give one or more")
    positions = config.max_position_embeddings if context is None else context
    model = skeleton(PersimmonForCausalLM, config)
    shapes = shapes_in_file(model, model._tied_weights_keys if config.tie_word_embeddings else ())
    own_rows = batch if way in ("tensor", "pipeline") else -(-batch // ranks)
    cache = 0 if training else cache_bytes(config, dtype, positions, own_rows)
    narrow = config
    gathered = 0
    whole = {name: math.prod(shape) for name, shape in shapes.items()}
    if way == "tensor":
        check_divides(config, ranks)
        held = sum(_cut(name, shape, ranks) for name, shape in shapes.items())
        cache //= ranks
        narrow = replace(config, intermediate_size=config.intermediate_size // ranks)
    elif way == "sharded":
        held = sum(-(-shape[0] // ranks) * math.prod(shape[1:]) for shape in shapes.values())
        groups: dict[int | None, int] = {}
        for name, count in whole.items():
            groups[layer_of(name)] = groups.get(layer_of(name), 0) + count
        layer = max(count for index, count in groups.items() if index is not None)
        gathered = 0 if ranks == 1 else (groups[None] + min(2, config.num_hidden_layers) * layer) * dtype.itemsize
    elif way == "pipeline":
        stages = _stages(config, whole, ranks)
        held = max(stages)
        cache = cache * -(-config.num_hidden_layers // ranks) // config.num_hidden_layers
    else:
        held = sum(whole.values())
    copy = dtype.itemsize if dtype != torch.float32 and way != "sharded" else 0  # FSDP rounds as it gathers
    return RankMemory(
        way=way,
        ranks=ranks,
        weights=held * (FLOAT32 + copy if training else dtype.itemsize),
        cache=cache,
        gradients=held * FLOAT32 if training else 0,
        moments=held * MOMENTS * FLOAT32 if training else 0,
        gathered=gathered,
        activations=activation_bytes(narrow, dtype, positions, own_rows),
    )


def _cut(name: str, shape: tuple[int, ...], ranks: int) -> int:
    """Numbers of one tensor on the first rank, under tensor parallelism."""
    if name.endswith(ROWS):
        return -(-shape[0] // ranks) * math.prod(shape[1:])
    if name.endswith(COLUMNS):
        return shape[0] * -(-shape[1] // ranks)
    return math.prod(shape)


def _stages(config: PersimmonConfig, counts: dict[str, int], ranks: int) -> list[int]:
    """Numbers on each rank of a pipeline. ValueError where there are more ranks than layers."""
    if ranks > config.num_hidden_layers:
        raise ValueError(f"{ranks} stages, but the model has {config.num_hidden_layers} layers; give at most as many")
    longest = -(-config.num_hidden_layers // ranks)
    stages = [0] * ranks
    for name, count in counts.items():
        layer = layer_of(name)
        if layer is not None:
            stages[min(layer // longest, ranks - 1)] += count
        else:
            stages[0 if name.endswith("embed_tokens.weight") else -1] += count
    if config.tie_word_embeddings and ranks > 1:  # both ends need the table
        stages[-1] += next(count for name, count in counts.items() if name.endswith("embed_tokens.weight"))
    return stages
