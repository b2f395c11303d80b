"""The two dialects of a `config.json`: transformers 4's, which is ours, and transformers 5's.

The second says `dtype` for `torch_dtype` and keeps all of `rope_theta`, `partial_rotary_factor` and `rope_scaling` in
`rope_parameters`.
"""

import warnings
from typing import Any

NESTED = ("rope_theta", "partial_rotary_factor")  # what transformers 5 reads in rope_scaling too


def in_our_dialect(values: dict[str, Any]) -> dict[str, Any]:
    """The contents of a `config.json` by our names, without a note of the version that wrote it.

    Raises ValueError where the two dialects contradict each other in one file; but of two `partial_rotary_factor` that
    of `rope_parameters` holds, with a warning, since transformers 5.0 to 5.3 write its default beside it.
    """
    values = {name: value for name, value in values.items() if name != "transformers_version"}
    for theirs, ours in (("dtype", "torch_dtype"), ("_attn_implementation", "attn_implementation")):
        if (value := values.pop(theirs, None)) is not None:
            agree(values, ours, value, theirs)
    source = "rope_parameters"
    rope, scaling = values.pop(source, None), values.get("rope_scaling")
    if rope is None and isinstance(scaling, dict) and any(key in scaling for key in NESTED):
        source = "rope_scaling"  # what it says holds for transformers 5, whatever is beside it
        rope = values.pop(source)
        values |= {key: rope[key] for key in NESTED if rope.get(key) is not None}
    if rope is None:
        return values
    if not isinstance(rope, dict):
        raise ValueError(f"rope_parameters is {rope!r}; expected a dictionary such as {{'rope_theta': 25000.0}}")
    if "rope_theta" in rope:
        agree(values, "rope_theta", rope["rope_theta"], source)
    if (fraction := rope.get("partial_rotary_factor")) is not None:
        beside = values.get("partial_rotary_factor")
        if beside is not None and beside != fraction:
            warnings.warn(
                f"partial_rotary_factor is {beside!r}, but rope_parameters says {fraction!r}, which holds: "
                "transformers 5.0 to 5.3 write the default beside the value they compute with",
                stacklevel=3,
            )
        values["partial_rotary_factor"] = fraction
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        agree(values, "rope_scaling", {"type": kind, "factor": rope.get("factor")}, source)
    return values


def agree(values: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Set `key`, for which `source` gives this value. Raises ValueError where the file says something else besides."""
    if values.get(key) is not None and values[key] != value:
        raise ValueError(f"contradictory configuration: {key} is {values[key]!r}, but {source} says {value!r}")
    values[key] = value
