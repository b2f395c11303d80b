"""From logits to text: sampling, the decoding loop, and streaming."""

from persimmon_lab.generation.decoding import decode_steps, generate
from persimmon_lab.generation.sampling import TokenChoice
from persimmon_lab.generation.scoring import TokenScores, score_tokens
from persimmon_lab.generation.steps import DecodingStep, GenerateOutput
from persimmon_lab.generation.streaming import StreamEvent, stream
from persimmon_lab.generation_config import GenerationConfig

__all__ = [
    "DecodingStep",
    "GenerateOutput",
    "GenerationConfig",
    "StreamEvent",
    "TokenChoice",
    "TokenScores",
    "decode_steps",
    "generate",
    "score_tokens",
    "stream",
]
