"""What decoding runs on: the model itself, or the same numbers sooner."""
