"""Models on disk: transformers' folder layout in and out, from a path or from the Hugging Face hub."""
