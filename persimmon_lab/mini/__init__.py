"""persimmon-mini, the trained model that ships with the package. MODEL_CARD.md beside this file says what it is."""

from pathlib import Path

import torch

from persimmon_lab.heads import PersimmonForCausalLM
from persimmon_lab.tokenizer import PersimmonTokenizer

MINI = Path(__file__).parent


def load_mini(
    torch_dtype: torch.dtype | str | None = None, device: torch.device | str | None = None
) -> tuple[PersimmonForCausalLM, PersimmonTokenizer]:
    """The shipped model, ready to generate, and its tokenizer: float32 unless `torch_dtype` says otherwise ("auto"
    gives the stored bfloat16)."""
    model = PersimmonForCausalLM.from_pretrained(MINI, torch_dtype=torch_dtype, device=device)
    return model, PersimmonTokenizer.from_pretrained(MINI)
