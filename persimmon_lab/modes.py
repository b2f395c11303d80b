"""Training mode and evaluation mode: numbers that are measured are measured without dropout."""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

# For each model that is being read: by how many, and which of its modules go back to training mode afterwards.
_READERS: weakref.WeakKeyDictionary[nn.Module, tuple[int, list[nn.Module]]] = weakref.WeakKeyDictionary()
_MODES = threading.Lock()


@contextmanager
def evaluating(model: object) -> Iterator[None]:
    """Without dropout while the model reads; afterwards each of its modules trains again if it did before.

    Where several threads read at once, they train again when the last of them is done. The trap: a model has one mode,
    and who trains it meanwhile in another thread trains without dropout.
    """
    if not isinstance(model, nn.Module):
        yield
        return
    with _MODES:
        readers, training = _READERS.get(model, (0, []))
        training = training or [module for module in model.modules() if module.training]
        _READERS[model] = readers + 1, training
        for module in training:
            module.training = False
    try:
        yield
    finally:
        with _MODES:
            readers, training = _READERS.pop(model)
            if readers > 1:
                _READERS[model] = readers - 1, training
            else:
                for module in training:
                    module.training = True
