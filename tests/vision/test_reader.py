"""Pictures and texts in one row: what stands where, what is computed of it, and what is refused."""

import pytest
import torch

from persimmon_lab import load_mini
from persimmon_lab.vision import Layout, PersimmonWithPictures, lay_out
from tests.models import tiny
from tests.parity.cases import fill, uniform

LAYOUT = Layout(patch_size=2, channels=3, place_id=5, row_end_id=6)
WIDE = uniform("wide", 3, 4, 6)  # 2 rows of 3 patches
SMALL = uniform("small", 3, 2, 2)


def reader(**overrides):
    return fill(PersimmonWithPictures(tiny(**overrides), LAYOUT)).eval()


def by_hand(model, parts):
    """The embeddings of a prompt, position by position."""
    rows = []
    for part in parts:
        if isinstance(part, list):
            rows += [model.language_model.model.embed_tokens.weight[token] for token in part]
            continue
        for top in range(0, part.shape[1], 2):
            for left in range(0, part.shape[2], 2):
                pixels = [part[:, top + down, left + right] for down in (0, 1) for right in (0, 1)]
                rows.append(model.vision_embed_tokens.weight @ torch.cat(pixels) + model.vision_embed_tokens.bias)
            rows.append(model.language_model.model.embed_tokens.weight[6])
    return torch.stack(rows)


PROMPTS = [[WIDE, [7, 8, 9]], [[7], SMALL, [9, 10], WIDE, SMALL], [[11, 12]]]


@torch.no_grad()
def test_a_batch_in_any_order_is_what_each_prompt_is_alone():
    model = reader()
    prompts = lay_out(PROMPTS, LAYOUT, pad_id=0)
    output = model.read(prompts)
    for row, parts in enumerate(PROMPTS):
        embeds = by_hand(model, parts)
        alone = model.language_model(inputs_embeds=embeds[None]).logits[0]
        assert int(prompts.attention_mask[row].sum()) == len(embeds)
        assert prompts.position_ids[row, -len(embeds) :].tolist() == list(range(len(embeds)))
        torch.testing.assert_close(output.logits[row, -len(embeds) :], alone, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("engine", [None, "plain"])
def test_generation_is_that_of_each_prompt_alone_without_a_cache(engine):
    model = reader(eos_token_id=None)
    together = model.generate(lay_out(PROMPTS, LAYOUT, pad_id=0), max_new_tokens=6, engine=engine, do_sample=False)
    for row, parts in enumerate(PROMPTS):
        embeds = by_hand(model, parts)[None].detach()
        for token in together[row].tolist():
            with torch.no_grad():
                assert int(model.language_model(inputs_embeds=embeds).logits[0, -1].argmax()) == token
            embeds = torch.cat([embeds, model.language_model.model.embed_tokens.weight[None, token][None]], dim=1)
