"""Small models for tests, with weights that depend on nothing but their names."""

from torch import Tensor

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM
from tests.parity.cases import fill, token_ids


def tiny(model_class: type = PersimmonForCausalLM, **overrides):
    """A filled model in evaluation mode: 64 wide, 2 layers, 4 heads, 128 tokens, context 64."""
    return fill(model_class(PersimmonConfig.tiny(**overrides))).eval()


def ids(batch: int = 2, length: int = 9) -> Tensor:
    """Token ids of 3 and more, the same on every call."""
    return token_ids("ids", batch, length)
