"""Looking inside: activations and their gradients out, changed activations in, through torch's own hooks.

    from persimmon_lab.trace import capture, patch

Everything has the name that `model.named_modules()` gives it; `trace.names` says what a pattern matches.
"""

from persimmon_lab.trace.ablation import (
    ablate,
    all_heads,
    mean_outputs,
    own_outputs,
    resampled_outputs,
    sweep,
    token_losses,
)
from persimmon_lab.trace.capture import capture, capturing
from persimmon_lab.trace.heads import (
    Detection,
    detect,
    rotated_share,
    rotated_shares,
    score_parts,
    shuffled_copies,
    stripe_scores,
)
from persimmon_lab.trace.lens import Attribution, attribute, decode, logit_lens, residual_streams
from persimmon_lab.trace.neurons import (
    Recording,
    mass_of_strongest,
    record,
    rows_needed,
    silent_by_text,
    strongest_contexts,
)
from persimmon_lab.trace.patch import patch
from persimmon_lab.trace.patching import Patching, lead_of, patch_attention, patch_heads, patch_mlp, patch_stream
from persimmon_lab.trace.record import Trace

__all__ = [
    "Attribution",
    "Detection",
    "Patching",
    "Recording",
    "Trace",
    "ablate",
    "all_heads",
    "attribute",
    "capture",
    "capturing",
    "decode",
    "detect",
    "lead_of",
    "logit_lens",
    "mass_of_strongest",
    "mean_outputs",
    "own_outputs",
    "patch",
    "patch_attention",
    "patch_heads",
    "patch_mlp",
    "patch_stream",
    "record",
    "resampled_outputs",
    "residual_streams",
    "rotated_share",
    "rotated_shares",
    "rows_needed",
    "score_parts",
    "shuffled_copies",
    "silent_by_text",
    "stripe_scores",
    "strongest_contexts",
    "sweep",
    "token_losses",
]
