"""Where a model moved: each weight's way from before to after, as a share of its own length."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from persimmon_lab.anatomy import layer_of, within_layer


def moved_by_layer(
    before: Mapping[str, Float[Tensor, "..."]], updates: Mapping[str, Float[Tensor, "..."]]
) -> dict[str, list[float]]:
    """||update|| / ||before|| of each weight inside the layers, by its part and then by layer: `moved[part][layer]`.

    `before` is a model's `state_dict`; `updates`, by the same names, what was added: `lora.updates`, or the difference
    of two state_dicts. Weights without an update have moved by 0; so have those that were 0 all along, such as biases.
    """
    moved: dict[str, list[float]] = {}
    layers = 1 + max((layer for name in before if (layer := layer_of(name)) is not None), default=-1)
    for name in updates:
        layer = layer_of(name)
        if layer is None:
            continue
        length = float(before[name].double().norm())
        shares = moved.setdefault(within_layer(name).removesuffix(".weight"), [0.0] * layers)
        shares[layer] = float(updates[name].double().norm()) / length if length else 0.0
    return moved
