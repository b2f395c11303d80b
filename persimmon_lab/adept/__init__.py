"""Adept's own release of Persimmon: read without running any code of it, converted, and written again."""
