"""Looking inside: activations and their gradients out, changed activations in, through torch's own hooks.

    from persimmon_lab.trace.capture import capture, capturing
    from persimmon_lab.trace.patch import patch

Everything has the name that `model.named_modules()` gives it; `trace.names` says what a pattern matches.
"""
