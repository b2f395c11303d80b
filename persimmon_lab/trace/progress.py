"""The bar of a long sweep: it shows itself when asked for, or when the sweep turns out to be long."""

from typing import Any

from tqdm import tqdm

LONG = 5.0  # seconds that a sweep may take without a word


def progress_bar(total: int, what: str, progress: bool | None) -> Any:
    """tqdm's bar over `total` things; True shows it at once, False never, None after LONG seconds."""
    return tqdm(total=total, desc=what, disable=progress is False, delay=0.0 if progress else LONG)
