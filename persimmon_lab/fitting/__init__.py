"""What fits where, how fast it can be, and making it fit."""
