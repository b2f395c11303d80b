"""Weights in eight and four bits: rounding, how codes lie in memory and in files, products, and modules of them."""

from persimmon_lab.quantisation.modules import (
    QuantisedEmbedding,
    QuantisedLinear,
    check_plain,
    rounded_weights,
    with_rounded_weight,
)
from persimmon_lab.quantisation.weights import FORMATS, Int4Weight, Int8Weight, RoundedWeight

__all__ = [
    "FORMATS",
    "Int4Weight",
    "Int8Weight",
    "QuantisedEmbedding",
    "QuantisedLinear",
    "RoundedWeight",
    "check_plain",
    "rounded_weights",
    "with_rounded_weight",
]
