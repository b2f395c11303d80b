"""`training.own.train_on` over several processes: the same tokenizer, rows and model from the same texts."""

from collections.abc import Sequence
from pathlib import Path

import sentencepiece
import torch

from persimmon_lab.atomic import write_atomically
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.distributed.states import save_pretrained
from persimmon_lab.distributed.training import train
from persimmon_lab.distributed.world import World
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.training.batches import DRILLS, drills, stretches
from persimmon_lab.training.corpus import END, encode, train_tokenizer
from persimmon_lab.training.curves import loss_svg
from persimmon_lab.training.own import CHANNELS, part, sample
from persimmon_lab.training.recipe import Recipe
from persimmon_lab.training.trainer import read_metrics


def train_on(
    texts: Sequence[Path],
    out: Path,
    world: World,
    *,
    layers: int = 2,
    hidden: int = 128,
    context: int = 128,
    vocabulary: int = 2048,
    steps: int = 200,
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> str:
    """`training.own.train_on`, whose arguments and errors it shares; all ranks call it alike. The first one makes the
    tokenizer, the others wait for it; it also writes `out` and returns the sample, for which the others have ""."""
    held_out, taught = part(texts, seed)
    path = out / "tokenizer.model"
    if world.is_first and not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(path, train_tokenizer((document.text for document in taught), vocabulary, exact=False))
    world.wait()
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    end, pieces = processor.piece_to_id(END), processor.get_piece_size()
    config = PersimmonConfig(
        vocab_size=pieces, hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // CHANNELS), max_position_embeddings=context,
        bos_token_id=end, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    stream, private = encode(taught, processor, seed), encode(held_out, processor, None)
    if len(stream) <= context:
        raise ValueError(
            f"the texts give {len(stream)} tokens, too few for rows of {context} and the token after; give more text "
            "or a shorter --context"
        )
    recipe = Recipe(
        steps=steps, warmup_steps=max(1, min(100, steps // 10)), lengths=((0.0, context),),
        weights={"text": 0.95, DRILLS: 0.05}, seed=seed,
    )  # fmt: skip
    rows = stretches(stream)
    sources = {"text": rows, DRILLS: drills([rows], recipe.first_piece, pieces)}
    model = train(
        config, recipe, sources, {"held out": private}, out / "run", world, dtype=dtype,
        evaluate_every=max(1, steps // 10),
    )  # fmt: skip
    save_pretrained(model, out, world, torch.bfloat16)
    if not world.is_first:
        return ""
    tokenizer = PersimmonTokenizer(path)
    tokenizer.save_pretrained(out)
    curve = loss_svg(read_metrics(out / "run" / "metrics.jsonl"), recipe.tokens, "training batches and held-out text")
    write_atomically(out / "loss.svg", curve.encode())
    return sample(PersimmonForCausalLM.from_pretrained(out, torch_dtype="auto"), tokenizer, private, seed)
