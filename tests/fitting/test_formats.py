"""Bytes of a model in each format are those of the loaded model; what fits is at the edge of what does not."""

import pytest
import torch

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM
from persimmon_lab.fitting import formats
from persimmon_lab.fitting.formats import PLAIN, FormatPlan, outlook
from persimmon_lab.fitting.memory import memory_plan
from persimmon_lab.fitting.roofline import measure_bandwidth
from persimmon_lab.quantisation import FORMATS
from tests.models import tiny


@pytest.mark.parametrize("name", [*PLAIN, *FORMATS])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_weights_are_those_of_the_loaded_model(tmp_path, name, tied):
    tiny(tie_word_embeddings=tied, intermediate_size=320).save_pretrained(tmp_path)
    options = {"quantize": name} if name in FORMATS else {"dtype": PLAIN[name]}
    model = PersimmonForCausalLM.from_pretrained(tmp_path, **options)
    plan = FormatPlan(model.config, name)
    assert plan.weights == model.get_memory_footprint()
    table = 0 if tied else sum(t.nbytes for t in [*model.model.embed_tokens.parameters(),
                                                  *model.model.embed_tokens.buffers()])  # fmt: skip
    assert plan.streamed == plan.weights - table


@pytest.mark.parametrize("name", PLAIN)
def test_plain_formats_need_what_the_memory_plan_says(name):
    config = PersimmonConfig.persimmon_8b()
    for context in (1, 2048, 16384):
        assert FormatPlan(config, name).needed(context) == memory_plan(config, PLAIN[name], context=context).peak


@pytest.mark.parametrize("name", [*PLAIN, *FORMATS])
def test_the_longest_text(name):
    plan = FormatPlan(PersimmonConfig.persimmon_8b(), name)
    for context in (1, 777, 16384):
        assert plan.longest(plan.needed(context)) == context
    assert plan.longest(plan.needed(777) - 1) == 776
    assert plan.longest(plan.needed(16384) + 10**12) == 16384
    assert plan.longest(plan.needed(1) - 1) == 0


def test_the_outlook(monkeypatch):
    asked = []
    monkeypatch.setattr(
        formats,
        "measure_bandwidth",
        lambda dtype, device, how, **sizes: asked.append(how) or (60e9 if how == "copy" else 30e9),
    )
    monkeypatch.setattr(formats, "can_pack", lambda dtype: True)
    config = PersimmonConfig.persimmon_8b()
    entries = {entry.plan.name: entry for entry in outlook(config, free=24_000_000_000)}
    assert asked == ["copy", "plain", "int8", "int4"]  # no float32, and no room for a packed copy
    assert (entries["float32"].context, entries["float32"].bandwidth, entries["float32"].first_rate) == (0, None, None)
    assert entries["bfloat16"].first_rate == pytest.approx(30e9 / (2 * 8_323_433_472), rel=1e-4)
    assert entries["int4"].last_rate == pytest.approx(
        1 / (entries["int4"].plan.streamed / 30e9 + 16384 * 589_824 / 60e9)
    )
    asked.clear()
    list(outlook(config, free=200_000_000_000))
    assert asked == ["copy", "packed", "packed", "int8", "int4"]


@pytest.mark.parametrize("how", FORMATS)
def test_streams_of_rounded_weights(how):
    assert measure_bandwidth(torch.bfloat16, "cpu", how, streamed=2**20, repeats=1) > 1e6
