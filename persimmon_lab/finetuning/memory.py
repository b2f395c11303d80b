"""The memory that fine-tuning adds to a model, asked for before a run starts."""

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.finetuning.settings import Settings
from persimmon_lab.footprint import free_on, in_bytes

FLOAT32 = 4  # bytes


def added_bytes(model: PersimmonForCausalLM, settings: Settings) -> int:
    """Bytes beside the model for what learns: its gradients, their sum, the best weights, the optimiser's state and,
    where the model computes in less, the masters. A floor: activations, which depend on the rows, come on top."""
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    width = settings.compute_dtype.itemsize
    kept = FLOAT32 if settings.masters else width
    copies = 4 if settings.optimiser == "adamw" else 3  # sum, best, and two moments or Muon's one
    masters = FLOAT32 if settings.masters and width < FLOAT32 else 0
    return sum(weight.numel() for weight in learning) * (width + copies * kept + masters)


def check_memory(model: PersimmonForCausalLM, settings: Settings) -> None:
    """MemoryError, with both figures, where a run needs more than is free; where nobody can say, it is let through."""
    needed, free = added_bytes(model, settings), free_on(model.device)
    if free is not None and needed > free:
        raise MemoryError(
            f"fine-tuning needs {in_bytes(needed)} beside the model, and {in_bytes(free)} are free on {model.device}; "
            "train adapters (--lora), or take a smaller model"
        )
