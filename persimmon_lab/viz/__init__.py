"""Figures and HTML from plain tensors, numbers and strings. Nothing here knows the model."""
