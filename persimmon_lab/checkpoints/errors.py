"""What can be wrong with a checkpoint."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded as asked; the message names the file and what to do about it."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """No checkpoint under this name, neither on this machine nor on the hub."""
