"""What half precision does to a model, measured.

`formats` says what a number format can hold, `lockstep` and `compare` where two runs part, `islands` which modules
float32 must keep, `stress` how to make a small model fail as a large one would.
"""
