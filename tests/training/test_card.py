"""The loss plot, the card, and the export that load_mini reads."""

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.mini.stages import read_stage
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.training import card, mini
from persimmon_lab.training.card import PERIODS, measure, quoted, render, table
from persimmon_lab.training.conversation import answers, said_hash
from persimmon_lab.training.corpus import VOCABULARY, train_tokenizer
from persimmon_lab.training.curves import loss_svg, ticks
from persimmon_lab.training.history import History
from persimmon_lab.training.recipe import Recipe

SVG = "{http://www.w3.org/2000/svg}"


def test_the_curve_goes_through_its_points_in_order():
    entries = [
        {"step": 10, "loss": 8.0},
        {"step": 20, "loss": 4.0},
        {"step": 20, "held_out": {"a<b": 6.0}},
        {"step": 40, "held_out": {"a<b": 5.0}},
    ]
    drawing = ElementTree.fromstring(loss_svg(entries, 1000, "a & b"))
    lines = [
        [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        for line in drawing.iter(f"{SVG}polyline")
    ]
    (training, held_out) = lines
    assert training[0][1] < held_out[0][1] < held_out[1][1] < training[1][1]  # higher loss, higher up
    assert training[1][0] == held_out[0][0] < held_out[1][0]
    middle = (training[0][1] + training[1][1]) / 2
    assert held_out[0][1] == pytest.approx(middle, abs=0.1)  # 6 lies between 8 and 4
    said = [text.text for text in drawing.iter(f"{SVG}text")]
    assert {"a & b", "a<b", "training", "million tokens seen"} <= set(said)


def test_a_curve_without_points_is_refused():
    with pytest.raises(ValueError, match="not logged a step"):
        loss_svg([], 1, "nothing")


@pytest.mark.parametrize(("low", "high"), [(2.9, 8.2), (0.0, 15.6), (0.0, 0.004), (3.0, 3.5), (0.0, 900.0)])
def test_ticks_are_few_round_and_inside(low: float, high: float):
    marks = ticks(low, high)
    assert 2 <= len(marks) <= 8
    assert low <= marks[0] and marks[-1] <= high
    gaps = np.diff(marks)
    assert gaps == pytest.approx(gaps[0])
    assert f"{gaps[0]:.0e}"[0] in "125"


def test_table_and_quotation_survive_markdown():
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert quoted('say "`x`"\n') == '`"say \\"\'x\'\\"\\n"`'


@pytest.fixture(scope="module")
def report() -> dict:
    domains = ("chat", "exchanges", "openings", "questions", "verse", "scripture", "code")
    scores = np.zeros((2, 4))
    scores[1, 3] = 0.75
    return {
        "machine": "a machine",
        "date": "2026-01-02",
        "corpus": {f"train/{domain}": {"bytes": 1_500_000} for domain in domains},
        "tokens_seen": 12_345_678,
        "held_out": {"chat": {"model": 1.234, "5-gram": 1.567, "xz": 2.345}},
        "copying": {str(period): (8.25, 0.5) for period in PERIODS},
        "induction": {str(period): scores.tolist() for period in PERIODS},
        "skills": {
            "sums": {"right": 190, "count": 200, "groups": {"+": [95, 99], "-": [95, 101]}, "refused": None},
            "facts": {"right": 45, "count": 50, "groups": {"": [45, 50]}, "refused": 0.015},
        },
        "conversation": {"greedy": {"loops": 0.02, "ends": 0.99, "said": [["Hi", "Hello."]]}},
        "growth": [{"step": 1500, "tokens": 6_144_000, "new": 8.5, "copied": 3.25, "strongest": 0.625}],
        "samples": {"human: Hi\n\nadept:": ["Hello.", "Hey.", "Hi."]},
    }


def test_the_card_says_what_was_measured(report: dict):
    card_text = render(report, Recipe(steps=3000))
    assert "| chat | 1.23 | 1.57 | 2.35 |" in card_text
    assert "| 64 | 8.25 | 0.50 | layer 1 head 3: 0.75" in card_text
    assert "12.3 million tokens in 3,000 steps" in card_text
    assert "On a machine. Card" in card_text
    assert "On a machine, from commit 0123456." in render(report | {"commit": "0123456789abcdef"}, Recipe(steps=3000))
    assert "human: Hi\\n\\nadept:" in card_text
    assert '- greedy: `"Hello."`\n- seed 0: `"Hey."`\n- seed 1: `"Hi."`' in card_text
    assert "| chat | 7% | 1.5 MB |" in card_text and "| skills | 27% | made on the fly |" in card_text
    assert "| sums | 95.0% | 200 | + 95/99, - 95/101 |" in card_text
    assert "| facts | 90.0% | 50 | taught ones refused 1.5% |" in card_text
    assert "| greedy | 2% | 99% |" in card_text and "Nobody has judged" in card_text
    assert "rule: 81 and 78 of 100, in" in render(report | {"judged": [81, 78]}, Recipe(steps=3000))
    assert "| 1,500 | 6.1 M | 5.25 | 0.62 |" in card_text
    assert all(name in card_text for name in ("chitchat-dataset==0.9.0", "BSD-3-Clause", "loss.svg", "steps = 3000"))


def test_publish_writes_a_folder_that_loads(tmp_path: Path, report: dict, monkeypatch: pytest.MonkeyPatch):
    corpus, out, run = tmp_path / "corpus", tmp_path / "out", tmp_path / "run"
    corpus.mkdir()
    run.mkdir()
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    proto = train_tokenizer([" ".join(np.random.default_rng(i).permutation(words)) for i in range(50)], 360)
    (corpus / "tokenizer.model").write_bytes(proto)
    logged = [{"step": 1, "loss": 3.0}, {"step": 1, "skills": {"sums": {"right": 1, "count": 4}}}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in logged))
    monkeypatch.setattr(mini, "measure", lambda model, folder, recipe: report)
    model = PersimmonForCausalLM(PersimmonConfig.tiny(vocab_size=360), torch.Generator().manual_seed(0)).bfloat16()

    younger = PersimmonForCausalLM(PersimmonConfig.tiny(vocab_size=360), torch.Generator().manual_seed(1))
    younger.save_pretrained(mini.stage_folder(tmp_path, mini.SHIPPED_STAGES["early"]))

    said = report["conversation"]["greedy"]["said"]
    (tmp_path / "judged.json").write_text(json.dumps({"answers": said_hash(said), "sensible": [90, 80]}))

    (tmp_path / "commit").write_text("0123456789abcdef")

    mini.publish(model, replace(mini.RECIPE, steps=4000), tmp_path, out)
    loaded = PersimmonForCausalLM.from_pretrained(out, torch_dtype="auto")
    assert loaded.dtype == torch.bfloat16
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    tokenizer = PersimmonTokenizer.from_pretrained(out)
    assert tokenizer.encode("one two")[0] == tokenizer.eos_token_id == 3
    names = {path.name for path in out.iterdir()}
    assert {
        "MODEL_CARD.md",
        "loss.svg",
        "skills.svg",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
    } <= names
    written = json.loads((tmp_path / "report.json").read_text())
    assert (written["judged"], written["commit"]) == ([90, 80], "0123456789abcdef")
    assert written["date"] == "2026-01-02"
    assert [moment["step"] for moment in written["growth"]] == [mini.SHIPPED_STAGES["early"]]
    assert not (out / "younger" / "middle.safetensors").exists()  # the run has not come by it
    stage = read_stage(out / "younger" / "early.safetensors")
    assert stage.tokens == 4096 * stage.step
    assert (stage.weights["lm_head.weight"] - younger.lm_head.weight).abs().max() < 0.02
    assert "in several runs" not in (out / "MODEL_CARD.md").read_text()

    # Another run goes on from there, with shares of its own: the card tells of both, and the younger model stays.
    further = tmp_path / "further"
    (further / "run").mkdir(parents=True)
    (tmp_path / "corpus").rename(further / "corpus")
    (further / "run" / "metrics.jsonl").write_text(json.dumps({"step": 4500, "loss": 1.25}) + "\n")
    recipe = replace(mini.RECIPE, steps=5000, weights={"chat": 3.0, "skills": 1.0})
    mini.publish(model, recipe, further, tmp_path / "second", out, 4000)
    text = (tmp_path / "second" / "MODEL_CARD.md").read_text()
    assert "in several runs" in text and "| 1 to 4,000 | 0123456 | chat 7%," in text
    assert "| 4,001 to 5,000 |  | chat 75%, skills 25% |" in text
    early = [folder / "younger" / "early.safetensors" for folder in (out, tmp_path / "second")]
    assert early[0].read_bytes() == early[1].read_bytes()
    history = History.read(tmp_path / "second" / "younger" / mini.HISTORY)
    assert [(run.first, run.last) for run in history.runs] == [(0, 4000), (4000, 5000)]
    assert history.growth == written["growth"]
    assert [entry["step"] for entry in history.entries if "skills" in entry][-2:] == [4000, 5000]


def test_measure_gathers_all_that_the_card_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    texts = [" ".join(np.random.default_rng(i).permutation(words)) for i in range(50)]
    (tmp_path / "tokenizer.model").write_bytes(train_tokenizer(texts, 360))
    summary = {f"train/{name}": {"bytes": 9} for name in Recipe().weights if name not in ("drills", *mini.GENERATED)}
    monkeypatch.setattr(card, "SKILL_ITEMS", 2)
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    generator = np.random.default_rng(0)
    for part in ("train", "held_out"):
        (tmp_path / part).mkdir()
        generator.integers(5, 360, 700).astype(np.uint16).tofile(tmp_path / part / "chat.bin")
    (tmp_path / "held_out" / "chat.txt").write_text("a text of some bytes " * 20)
    config = PersimmonConfig.tiny(vocab_size=360, max_position_embeddings=1024, bos_token_id=3, eos_token_id=3)
    model = PersimmonForCausalLM(config, torch.Generator().manual_seed(0)).eval()

    monkeypatch.setattr(card, "PROMPTS", ("one two",))
    monkeypatch.setattr(card, "answers", lambda model, tokenizer, way: answers(model, tokenizer, way, ["one", "two"]))
    recipe = Recipe(steps=10, tokens=256, lengths=((0.0, 64), (0.8, 128)))
    report = json.loads(json.dumps(measure(model, tmp_path, recipe)))
    assert report["tokens_seen"] == 10 * 4 * 64
    # An untrained model knows nothing: log2 360 bits a token, here 700 tokens over 420 bytes.
    assert report["held_out"]["chat"]["model"] == pytest.approx(np.log2(360) * 700 / 420, rel=0.05)
    assert np.array(report["induction"]["64"]).shape == (2, 4)
    assert [len(ways) for ways in report["samples"].values()] == [3]
    assert [[len(each["said"]) for each in report["conversation"].values()]] == [[2, 2]]
    assert {score["count"] for score in report["skills"].values()} == {2}
    assert "| chat | 7% |" in render(report, recipe)


def test_the_config_of_the_mini(tmp_path: Path):
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    proto = train_tokenizer([" ".join(np.random.default_rng(i).permutation(words)) for i in range(50)], 360)
    (tmp_path / "tokenizer.model").write_bytes(proto)
    config = mini.mini_config(tmp_path)
    assert config.bos_token_id == config.eos_token_id == config.pad_token_id == 3
    assert (config.head_dim, config.rotary_dim, config.max_position_embeddings) == (32, 16, 512)
    config = replace(config, vocab_size=VOCABULARY)
    with torch.device("meta"):
        assert sum(p.numel() for p in PersimmonForCausalLM(config).parameters()) == 8_416_768
