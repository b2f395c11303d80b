"""Side by side with the peers: `python -m benchmarks.speed` and the others, see README.md."""
