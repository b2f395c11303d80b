"""Libraries that take seconds to load, loaded when something of them is first asked for."""

from pkgutil import resolve_name
from typing import Any


class Deferred:
    """Stands for a library until it is used: `peft = Deferred("peft", extra="lab")`, then `peft.LoraConfig(...)`.

    For libraries of others alone, and only where loading one would keep those waiting who never use it: each command of
    `persimmon-lab` imports all of them. Asking it for anything raises ImportError, which says what to install, where
    the library is missing.
    """

    def __init__(self, library: str, *, extra: str) -> None:
        self._library = library
        self._extra = extra

    def __getattr__(self, name: str) -> Any:
        try:
            library = resolve_name(self._library)
        except ModuleNotFoundError as error:
            if error.name != self._library:
                raise
            raise ImportError(
                f"{self._library} is not installed; pip install 'persimmon-lab[{self._extra}]' brings it"
            ) from None
        return getattr(library, name)
