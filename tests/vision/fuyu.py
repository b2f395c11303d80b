"""Transformers' Fuyu, small: a model with random weights, and its processor around a tokenizer with the two tokens.

The processor's own tokenizer class reads a tokenizer.json; ours is persimmon-mini's, with `|SPEAKER|` and `|NEWLINE|`
among its pieces and `<0x04>` matched in texts, as Fuyu's has them.
"""

import json
from pathlib import Path

import torch
from transformers import FuyuConfig, FuyuForCausalLM, FuyuProcessor, PreTrainedTokenizerFast
from transformers.models.fuyu.image_processing_pil_fuyu import FuyuImageProcessorPil

from persimmon_lab.mini import MINI
from tests.parity.cases import fill

VOCABULARY = 4098  # persimmon-mini's and two
PLACE, ROW_END = 4096, 4097
MOST = {"height": 60, "width": 90}


class Processor(FuyuImageProcessorPil):
    """transformers' own, which in 5.23 hands a torch tensor to a method that is written for numpy."""

    def patchify_image(self, image, patch_size=None):
        return torch.from_numpy(super().patchify_image(image.numpy(), patch_size))


def their_model(**text):
    settings = {
        "model_type": "persimmon",
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "rope_theta": 25000.0,
        "partial_rotary_factor": 0.5,
        "bos_token_id": 1,
        "eos_token_id": 3,
        "pad_token_id": 0,
    }
    config = FuyuConfig(image_token_id=PLACE, text_config=settings | text)
    return fill(FuyuForCausalLM(config)).eval()


def write_tokenizer(folder: Path) -> None:
    """tokenizer.json and its settings, as transformers keeps a Fuyu's."""
    contents = json.loads((MINI / "tokenizer.json").read_text())
    assert len(contents["model"]["vocab"]) == PLACE
    contents["model"]["vocab"] += [["|SPEAKER|", 50.0], ["|NEWLINE|", 50.0]]
    contents["added_tokens"].append(
        {"id": 9, "content": "<0x04>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
    )  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(contents))
    settings = {"bos_token": "<s>", "eos_token": "|ENDOFTEXT|", "unk_token": "<unk>", "pad_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"add_bos_token": True}))


def their_processor(folder: Path) -> FuyuProcessor:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), bos_token="<s>", eos_token="|ENDOFTEXT|", unk_token="<unk>"
    )
    return FuyuProcessor(Processor(size=MOST), tokenizer)
