"""Whether a progress bar is shown."""


def bar_is_off(progress: bool | None) -> bool | None:
    """tqdm's `disable`, of what a caller asked for: None hides the bar where the output is not a terminal."""
    return None if progress is None else not progress
