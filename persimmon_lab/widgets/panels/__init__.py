"""A figure under a handful of controls."""
