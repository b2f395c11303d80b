"""The models that are measured and who runs them."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OLD = HERE / ".venv-4.37.2"
MINI = HERE.parent / "persimmon_lab" / "mini"

# Names of both transformers' and our configuration. `tiny` is for tests of the benchmark itself.
SIZES = {
    "tiny": dict(vocab_size=128, hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
                 max_position_embeddings=256),
    "mini": dict(vocab_size=4096, hidden_size=256, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=8,
                 max_position_embeddings=512, bos_token_id=3, eos_token_id=3, pad_token_id=3),
    "S": dict(vocab_size=8192, hidden_size=256, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=8,
              max_position_embeddings=32768),
    "M": dict(vocab_size=32000, hidden_size=1024, intermediate_size=4096, num_hidden_layers=12, num_attention_heads=16,
              max_position_embeddings=32768),
    "8b": dict(vocab_size=262144, hidden_size=4096, intermediate_size=16384, num_hidden_layers=36,
               num_attention_heads=64, max_position_embeddings=16384 + 512),
}  # fmt: skip

# Name -> library and how it is asked: the engine of our `generate`, or transformers' attention.
CONTENDERS = {
    "ours": ("persimmon_lab", None),
    "ours plain": ("persimmon_lab", "plain"),
    "ours int8": ("persimmon_lab", "int8"),
    "ours compiled": ("persimmon_lab", "compiled"),
    "transformers 5 sdpa": ("transformers", "sdpa"),
    "transformers 5 eager": ("transformers", "eager"),
    "transformers 4.37.2": ("transformers", None),
}
QUADRATIC = ("transformers 5 eager", "transformers 4.37.2")  # they keep whole score matrices: no prompts beyond 2048


def python_of(contender: str) -> Path:
    """The interpreter that has the contender's library."""
    return OLD / "bin" / "python" if contender == "transformers 4.37.2" else Path(sys.executable)
