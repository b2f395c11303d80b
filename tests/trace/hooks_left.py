"""What must be as it was, whatever was captured or patched."""

from torch import nn


def left_behind(model: nn.Module) -> list[str]:
    """Modules that still have a hook, parameters with a gradient, and eager attention."""
    hooks = [path for path, module in model.named_modules() if module._forward_hooks or module._forward_pre_hooks]
    gradients = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    return hooks + gradients + (["eager"] if model.config.attn_implementation != "sdpa" else [])
