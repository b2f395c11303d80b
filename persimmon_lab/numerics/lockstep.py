"""Several models on the same input, module by module, with one activation of each alive at a time.

Keeping every activation of a large model would take more memory than the model. So each forward pass runs in a thread
of its own and stops inside a forward hook: it hands over what the module made and waits until it is told to go on.
That turns a forward pass into a generator, and generators can be walked side by side.
"""

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from persimmon_lab.trace.names import Activation, check_patterns, first_tensor, matches, pattern_list

THREAD = "forward pass"


class _Abandoned(BaseException):
    """Raised in a waiting forward pass that nobody listens to any more; no `except Exception` stops it."""


def shared_paths(models: Sequence[nn.Module], only: Iterable[str] | None = None) -> list[str]:
    """The module paths that all models have and that match `only`, in the order of the first; the root has no path.

    Raises ValueError for a pattern that matches none of them.
    """
    common = set.intersection(*({path for path, _ in model.named_modules()} for model in models))
    shared = [path for path, _ in models[0].named_modules() if path and path in common]
    if only is None:
        return shared
    patterns = pattern_list(only)
    check_patterns(patterns, shared, "module of all models")
    return [path for path in shared if matches(path, patterns)]


def activations(
    model: nn.Module, paths: Iterable[str], forward: Callable[[nn.Module], Any]
) -> Generator[tuple[str, Activation], None, None]:
    """The modules' outputs, one by one as `forward(model)` makes them, without gradients.

    The forward pass stands still while the generator does. Closing the generator early ends the pass and its thread;
    hooks are gone in every case. Raises what the forward pass raises.
    """
    reports: queue.SimpleQueue[tuple[str, Activation] | None] = queue.SimpleQueue()  # None: the pass has ended
    permits: queue.SimpleQueue[bool] = queue.SimpleQueue()
    errors: list[BaseException] = []

    def report(path: str, output: Any) -> None:
        # Another thread may run the same module, if a model is compared with itself.
        if threading.current_thread() is thread and (made := first_tensor(output)) is not None:
            reports.put((path, made))
            if not permits.get():
                raise _Abandoned

    def run() -> None:
        try:
            with torch.no_grad():  # in torch the gradient mode belongs to the thread
                forward(model)
        except _Abandoned:
            pass
        except BaseException as error:
            errors.append(error)
        finally:
            reports.put(None)

    def hook(path: str) -> Callable[[nn.Module, Any, Any], None]:
        # Another thread may run the model at the same time; its passes are none of ours.
        return lambda _module, _given, output: report(path, output) if threading.current_thread() is thread else None

    thread = threading.Thread(target=run, name=THREAD, daemon=True)
    handles = [model.get_submodule(path).register_forward_hook(hook(path)) for path in paths]
    try:
        thread.start()
        while (made := reports.get()) is not None:
            yield made
            del made  # or it would live on here until the next one comes
            permits.put(True)
    finally:
        permits.put(False)
        thread.join()
        for handle in handles:
            handle.remove()
    if errors:
        raise errors[0]


def lockstep(
    models: Sequence[nn.Module], forward: Callable[[nn.Module], Any], only: Iterable[str] | None = None
) -> Iterator[tuple[str, list[Activation]]]:
    """(path, what each model's module of that path made), for the modules that all models have, as they run.

    `forward(model)` runs one model on the common input. `only` are patterns of paths. What one model alone computes
    (the scores, where only one of them uses eager attention) is passed over. The list is emptied when the walk goes
    on. Close the generator, or let it end, and no thread or hook is left.
    """
    paths = shared_paths(models, only)
    running = [activations(model, paths, forward) for model in models]
    # What each model made and the others have not reached yet. Only a detour such as the scores puts two in one.
    waiting: list[dict[str, Activation]] = [{} for _ in models]
    going = list(range(len(models)))
    try:
        while going:
            for index in [index for index in going if not waiting[index]] or going.copy():
                if (made := next(running[index], None)) is None:
                    going.remove(index)
                else:
                    waiting[index][made[0]] = made[1]
                del made
            reached = (path for path in waiting[0] if all(path in held for held in waiting))
            if (path := next(reached, None)) is not None:
                together = [held[path] for held in waiting]
                for held in waiting:
                    _forget_up_to(path, held)
                yield path, together
                together.clear()  # the caller still holds the list while the next module runs
    finally:
        for walk in running:
            walk.close()


def _forget_up_to(path: str, waiting: dict[str, Activation]) -> None:
    for earlier in list(waiting):
        del waiting[earlier]
        if earlier == path:
            return
