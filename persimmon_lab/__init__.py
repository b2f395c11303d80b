"""Persimmon Lab: a small einops implementation of Persimmon-8B, and the notebooks that build it, look inside it and
stress it."""

from importlib.metadata import PackageNotFoundError, version

from persimmon_lab.cache import DynamicCache, StaticCache
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.classification import PersimmonForSequenceClassification
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.mini import load_mini
from persimmon_lab.model import PersimmonModel
from persimmon_lab.tokenizer import PersimmonTokenizer, StreamingDecoder

__all__ = [
    "DynamicCache",
    "PersimmonConfig",
    "PersimmonForCausalLM",
    "PersimmonForSequenceClassification",
    "PersimmonModel",
    "PersimmonTokenizer",
    "StaticCache",
    "StreamingDecoder",
    "load_mini",
]


def installed_version() -> str:
    """The version that was installed; "0+unknown" where the package lies on the path and pip knows nothing of it."""
    try:
        return version("persimmon-lab")
    except PackageNotFoundError:
        return "0+unknown"


__version__ = installed_version()
