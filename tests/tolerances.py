"""The tolerance of tests that compare tensors number by number; persimmon_lab.numerics.tolerances has the reasons."""

from persimmon_lab.numerics.tolerances import ELEMENTS as TOLERANCE

__all__ = ["TOLERANCE"]
