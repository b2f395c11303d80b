"""The two dialects of a `config.json`: transformers 4's, which is ours, and transformers 5's.

The second says `dtype` for `torch_dtype` and keeps all of `rope_theta`, `partial_rotary_factor` and `rope_scaling` in
`rope_parameters`.
"""

import warnings
from typing import Any


def in_our_dialect(values: dict[str, Any]) -> dict[str, Any]:
    """The contents of a `config.json` by our names, without a note of the version that wrote it.

    Raises ValueError where the two dialects contradict each other in one file; but of two `partial_rotary_factor` that
    of `rope_parameters` holds, with a warning, since transformers 5.0 to 5.3 write its default beside it.
    """
    values = {name: value for name, value in values.items() if name != "transformers_version"}
    for theirs, ours in (("dtype", "torch_dtype"), ("_attn_implementation", "attn_implementation")):
        if (value := values.pop(theirs, None)) is not None:
            agree(values, ours, value, theirs)
    rope = values.pop("rope_parameters", None)
    if rope is None:
        return values
    if not isinstance(rope, dict):
        raise ValueError(f"rope_parameters is {rope!r}; expected a dictionary such as {{'rope_theta': 25000.0}}")
    if "rope_theta" in rope:
        agree(values, "rope_theta", rope["rope_theta"], "rope_parameters")
    if (fraction := rope.get("partial_rotary_factor")) is not None:
        beside = values.get("partial_rotary_factor")
        if beside is not None and beside != fraction:
            warnings.warn(
                f"partial_rotary_factor is {beside!r}, but rope_parameters says {fraction!r}, which holds: "
                "transformers 5.0 to 5.3 write the default beside the value they compute with",
                stacklevel=3,
            )
        values["partial_rotary_factor"] = fraction
    if rope.get("rope_type", "default") != "default":
        scaling = {"type": rope["rope_type"], "factor": rope.get("factor")}
        agree(values, "rope_scaling", scaling, "rope_parameters")
    return values


def agree(values: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Set `key`, for which `source` gives this value. Raises ValueError where the file says something else besides."""
    if values.get(key) is not None and values[key] != value:
        raise ValueError(f"contradictory configuration: {key} is {values[key]!r}, but {source} says {value!r}")
    values[key] = value
