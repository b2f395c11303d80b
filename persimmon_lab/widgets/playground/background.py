"""Threads that a playground works in. A script that ends does not wait until they are done, nor does it cut them off in
the middle of torch's work: it tells them to stop, and waits for that."""

import atexit
import threading
import weakref
from collections.abc import Callable

exiting = threading.Event()
"""Set once there is nobody left to show anything to."""

_cancels: weakref.WeakKeyDictionary[threading.Thread, threading.Event] = weakref.WeakKeyDictionary()


def in_background(work: Callable[[], None], cancel: threading.Event | None = None) -> threading.Thread:
    """A thread that is at work; at exit `cancel` is set, which should end it soon."""
    thread = threading.Thread(target=work, daemon=True)
    _cancels[thread] = cancel or threading.Event()
    thread.start()
    return thread


@atexit.register
def _stop_all() -> None:
    exiting.set()
    for cancel in list(_cancels.values()):
        cancel.set()
    for thread in list(_cancels):
        thread.join()
