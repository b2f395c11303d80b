"""Fuyu-8B as a folder: transformers' `FuyuForCausalLM`, which is a Persimmon and one linear layer, read and written.

    model = load_fuyu("adept/fuyu-8b", torch_dtype="auto")
    tokenizer = PersimmonTokenizer.from_pretrained("adept/fuyu-8b")
    prompts = lay_out([fuyu_prompt(prepare(picture), "Describe it.\\n", tokenizer)], model.layout, tokenizer)
    model.generate(prompts, max_new_tokens=50)

Source: transformers 5.23, models/fuyu.
"""

import json
import os

import torch
from torch import Tensor

from persimmon_lab.atomic import place_for
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.checkpoints import hub
from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.checkpoints.matching import Description, check_tied, differences
from persimmon_lab.checkpoints.saving import finish_save, staged, write_weights
from persimmon_lab.checkpoints.settings import choose_dtype, read_generation_config
from persimmon_lab.checkpoints.shards import open_weights
from persimmon_lab.checkpoints.skeletons import NoDraws, shapes_in_file
from persimmon_lab.dtypes import dtype_name
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.vision.fuyu_config import FuyuConfig
from persimmon_lab.vision.layout import Layout, Part
from persimmon_lab.vision.reader import PersimmonWithPictures

PLACE, ROW_END, BEGIN, ANSWER = "|SPEAKER|", "|NEWLINE|", "<s>", "<0x04>"
COORDINATES = ("<box>", "<point>")
TIED = "language_model.lm_head.weight"
# What transformers 5 calls its modules in memory; in its files they have the names that they have here.
IN_MEMORY = {
    "model.language_model.": "language_model.model.",
    "model.vision_embed_tokens.": "vision_embed_tokens.",
    "lm_head.": "language_model.lm_head.",
}


def load_fuyu(
    path_or_id: str | os.PathLike[str],
    *,
    row_end_id: int | None = None,
    torch_dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    verify: bool = True,
) -> PersimmonWithPictures:
    """A Fuyu folder or hub id, ready to generate (`eval()`); dtype and `verify` as `from_pretrained`.

    config.json does not say which token ends a row of patches: it is `|NEWLINE|` of the tokenizer beside it, or
    `row_end_id`. Raises CheckpointNotFoundError and CheckpointError as `from_pretrained`, and CheckpointError where
    tokenizer and config.json disagree about the places of patches, or where there is neither tokenizer nor row_end_id.
    """
    folder = hub.resolve(path_or_id)
    finish_save(folder)
    config = FuyuConfig.read(folder)
    weights = open_weights(folder)
    dtype = choose_dtype(torch_dtype, None, config.text, weights)
    files = {_our_name(name): (name, file) for name, file in weights.items()}
    config.text.torch_dtype = dtype_name(dtype)
    layout = Layout(
        patch_size=config.patch_size,
        channels=config.channels,
        place_id=config.place_id,
        row_end_id=_row_end_of(path_or_id, config) if row_end_id is None else row_end_id,
    )
    with torch.device("meta"), NoDraws():
        model = PersimmonWithPictures(PersimmonForCausalLM(config.text), layout)
    tied = (TIED,) if config.text.tie_word_embeddings else ()
    needed = shapes_in_file(model, tied)
    present = {
        name: Description(file.shapes[stored], file.dtypes[stored])
        for name, (stored, file) in files.items()
        if name not in tied and not name.endswith("rotary_emb.inv_freq")
    }
    if lists := differences(needed, present):
        raise CheckpointError(
            f"the weights in {folder} are not those of the Fuyu that its config.json describes.\n  "
            + "\n  ".join(lists)
        )
    check_tied(folder, tied, {name: file for name, (_, file) in files.items() if name.startswith("language_model.")})
    tensors = {}
    for name in needed:
        stored, file = files[name]
        tensors[name] = file.read(stored, dtype=dtype, device="cpu" if device is None else device, verify=verify)
    model.load_state_dict(tensors, assign=True, strict=False)  # all but the tied, which `differences` has seen to
    model.language_model.tie_weights()
    model.language_model.generation_config = read_generation_config(folder)
    model.language_model.name_or_path = os.fspath(path_or_id)
    return model.eval()


def save_fuyu(model: PersimmonWithPictures, folder: str | os.PathLike[str], max_shard_size: int | str = "5GB") -> None:
    """Write config.json and the weights as transformers' `FuyuForCausalLM.from_pretrained` reads them.

    config.json has no place for `row_end_id`: save a tokenizer with `|NEWLINE|` beside it, or name the id on loading.
    An interruption leaves what was there before. OSError where the folder cannot be written.
    """
    language = model.language_model
    tied = (TIED,) if language.config.tie_word_embeddings else ()
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    config = FuyuConfig(language.config, model.layout.patch_size, model.layout.channels, model.layout.place_id)
    dtype = dtype_name(model.vision_embed_tokens.weight.dtype)
    with staged(place_for(folder)) as staging:
        write_weights(staging, tensors, max_shard_size)
        text = json.dumps(config.to_dict(dtype), indent=2, sort_keys=True)
        (staging / "config.json").write_text(text + "\n", encoding="utf-8")
        language.generation_config.save_pretrained(staging)


def fuyu_prompt(picture: Tensor, text: str, tokenizer: PersimmonTokenizer) -> list[Part]:
    """The parts of a prompt as Fuyu knows them: the picture, `<s>`, the text, and `<0x04>`, where its answer begins.

    The trap: bos comes after the picture. Raises NotImplementedError for coordinates in the text (`<box>`, `<point>`),
    which Fuyu's processor scales with the picture and this does not; ValueError where the tokenizer lacks a token.
    """
    for mark in COORDINATES:
        if mark in text:
            raise NotImplementedError(f"{mark} in the text asks for coordinates, which are not read here: leave it out")
    return [picture, [_id_of(BEGIN, tokenizer)], text, [_id_of(ANSWER, tokenizer)]]


def _id_of(piece: str, tokenizer: PersimmonTokenizer) -> int:
    token = tokenizer.convert_tokens_to_ids(piece)
    if tokenizer.convert_ids_to_tokens(token) != piece:
        raise ValueError(f"this tokenizer has no {piece}, which a Fuyu's has; load it from the model's own folder")
    return token


def _row_end_of(path_or_id: str | os.PathLike[str], config: FuyuConfig) -> int:
    """The id of `|NEWLINE|` by the tokenizer of a folder, which has to agree with config.json about `|SPEAKER|`."""
    try:
        tokenizer = PersimmonTokenizer.from_pretrained(path_or_id)
        place_id, row_end_id = (_id_of(piece, tokenizer) for piece in (PLACE, ROW_END))
    except (FileNotFoundError, ValueError) as error:
        raise CheckpointError(
            f"{path_or_id} does not say which token ends a row of patches ({error}); give row_end_id=71019 if it is "
            "Fuyu-8B, or what its tokenizer calls |NEWLINE|"
        ) from error
    if place_id != config.place_id:
        raise CheckpointError(
            f"{path_or_id} contradicts itself: a patch's place is {config.place_id} by config.json (image_token_id), "
            f"and {PLACE} is {place_id} by its tokenizer"
        )
    return row_end_id


def _our_name(stored: str) -> str:
    for theirs, ours in IN_MEMORY.items():
        if stored.startswith(theirs):
            return ours + stored.removeprefix(theirs)
    return stored
