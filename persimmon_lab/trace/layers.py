"""The decoder layers of a model, whatever head it has."""

from torch import nn

from persimmon_lab.model import PersimmonDecoderLayer


def decoder_layers(model: nn.Module) -> list[PersimmonDecoderLayer]:
    """In their order. Raises ValueError for a model that has none, such as another library's."""
    layers = [module for module in model.modules() if isinstance(module, PersimmonDecoderLayer)]
    if not layers:
        raise ValueError(f"a {type(model).__name__} has no PersimmonDecoderLayer; give one of this package's models")
    return layers
