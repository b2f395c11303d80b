"""From logits to text: sampling, the decoding loop, and streaming."""

from persimmon_lab.generation.decoding import DecodingStep, GenerateOutput, decode_steps, generate
from persimmon_lab.generation.sampling import TokenChoice
from persimmon_lab.generation.settings import GenerationConfig

__all__ = ["DecodingStep", "GenerateOutput", "GenerationConfig", "TokenChoice", "decode_steps", "generate"]
