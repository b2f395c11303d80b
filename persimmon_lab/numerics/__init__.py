"""What half precision does to a model, measured.

`formats` says what a number format can hold. `compare` says where runs in several formats part, module by module
(`lockstep` runs them, `measures` measures, `comparison` is the result); `parity` whether two models agree, `noise`
whether they differ by more than rounding. `islands` finds what float32 must keep, `stress` makes a small model fail as
a large one would. `rotary` and `rotary_effect` are about rounded positions, `recipes` is about fine-tuning
(`observation` and `diagnosis` say what a step did and why it failed).
"""
