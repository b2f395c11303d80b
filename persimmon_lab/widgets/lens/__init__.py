"""The lens explorer."""
