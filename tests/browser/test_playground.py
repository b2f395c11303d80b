"""The playground in a real browser: it writes, stops, explains its tokens and follows the typing, in Lab and Voila."""

import re
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect

from persimmon_lab.viz.html.nucleus import Candidate, Nucleus, nucleus_html
from persimmon_lab.viz.html.tokens import Token, page_html, tint
from tests.browser.appearance import in_theme, picture

FIXTURE = Path(__file__).parents[1] / "fixtures" / "tokenizer"
SETUP = f"""
import time
import torch
from persimmon_lab import PersimmonConfig, PersimmonForCausalLM
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.widgets import GenerationPlayground

tokenizer = PersimmonTokenizer.from_pretrained({str(FIXTURE)!r})
config = PersimmonConfig.tiny(vocab_size=tokenizer.vocab_size, max_position_embeddings=2048, eos_token_id=None)
model = PersimmonForCausalLM(config, generator=torch.Generator().manual_seed(0)).eval()
with torch.no_grad():
    model.lm_head.weight *= 20  # a model with opinions
"""
TEN = "GenerationPlayground(model, tokenizer, 'Once upon', max_new_tokens=10)"
# Slow enough to be stopped half-way: 1000 tokens at 20 ms.
SLOW = """
model.register_forward_pre_hook(lambda *_: time.sleep(0.02))
GenerationPlayground(model, tokenizer, 'Once upon', max_new_tokens=1000)
"""


def shown(jupyter):
    """The generated tokens."""
    return jupyter.page.locator(".persimmon-tokens .text .token")


def button(jupyter, name):
    return jupyter.page.locator(".jupyter-button", has_text=name)


@pytest.fixture(params=["lab", "voila"])
def opened(jupyter, request):
    """A function that shows the cells after SETUP, in JupyterLab or as a page of Voila."""

    def open_lab(*cells):
        jupyter.open([SETUP, *cells])
        jupyter.run_all()
        return jupyter

    def open_voila(*cells):
        jupyter.open_voila([SETUP, *cells])
        return jupyter

    return {"lab": open_lab, "voila": open_voila}[request.param]


def test_it_writes_explains_a_token_and_follows_the_typing(opened):
    jupyter = opened(TEN)
    button(jupyter, "Generate").click()
    expect(shown(jupyter)).to_have_count(10)
    token, details = shown(jupyter).nth(4), jupyter.page.locator(".details")
    expect(details.locator("tr")).to_have_count(0)
    token.click()
    expect(details).to_contain_text(
        re.compile(r"probability .*%.*rank [\d,]+ of 700.*entropy [\d.]+ of 9.5 bits", re.S)
    )
    rows = details.locator("tr[data-token]")
    assert rows.count() in (12, 13)
    model = rows.locator("td:nth-child(4)").all_inner_texts()
    probabilities = [float(re.search(r"[\d.]+", text)[0]) for text in model]
    assert probabilities == sorted(probabilities, reverse=True)
    piece, percent, *_ = token.get_attribute("title").split(" · ")
    chosen = details.locator("tr", has_text="◂")
    expect(chosen).to_contain_text(percent)
    expect(chosen).to_contain_text(piece.replace("▁", "␣").strip())
    assert re.sub(r"[\d.]+\)", "", tint(0.001)) in token.get_attribute("style")

    jupyter.page.get_by_label("generate as you type").check()
    before = shown(jupyter).all_inner_texts()
    jupyter.page.get_by_placeholder("A prompt").press_sequentially(" a time <b>bold</b>")
    prompt = jupyter.page.locator(".persimmon-tokens .prompt")
    expect(prompt).to_have_text("|ENDOFTEXT|Once upon a time <b>bold</b>")
    expect(prompt.locator("b")).to_have_count(0)
    expect(jupyter.page.locator(".stale")).to_have_count(0)
    expect(shown(jupyter)).to_have_count(10)
    assert shown(jupyter).all_inner_texts() != before
    jupyter.page.get_by_label("chat format").check()
    expect(prompt).to_have_text("|ENDOFTEXT|human: Once upon a time <b>bold</b>↵\n↵\nadept:", use_inner_text=True)


def test_stop_ends_a_long_text_half_way(opened):
    jupyter = opened(SLOW)
    expect(button(jupyter, "Stop")).to_be_disabled()
    button(jupyter, "Generate").click()
    expect(shown(jupyter).nth(3)).to_be_visible()
    button(jupyter, "Stop").click()
    expect(jupyter.page.locator(".widget-label", has_text="stopped")).to_be_visible()
    expect(button(jupyter, "Stop")).to_be_disabled()
    count = shown(jupyter).count()
    assert 4 <= count < 1000
    # What it shows is what was written, and the code for it asks for as much.
    expect(jupyter.page.get_by_text(re.compile(rf"^{count:,} tokens · [\d,]+ tokens/s · stopped"))).to_be_visible()
    jupyter.page.get_by_text("Code that writes this text").click()
    expect(jupyter.page.locator(".persimmon-tokens pre")).to_contain_text(f"max_new_tokens={count},")
    button(jupyter, "Generate").click()
    expect(shown(jupyter).nth(2)).to_be_visible()
    button(jupyter, "Stop").click()


def test_the_keyboard_reaches_every_token(jupyter):
    jupyter.open([SETUP, TEN])
    jupyter.run_all()
    page, details = jupyter.page, jupyter.page.locator(".details")
    button(jupyter, "Generate").focus()
    page.keyboard.press("Enter")
    expect(shown(jupyter)).to_have_count(10)
    while not page.evaluate("document.activeElement.matches('.token')"):
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(shown(jupyter).nth(2)).to_be_focused()
    expect(details.locator("tr")).to_have_count(0)
    page.keyboard.press("Enter")
    expect(details.locator("tr")).not_to_have_count(0)
    expect(shown(jupyter).nth(2)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("End")
    expect(shown(jupyter).nth(9)).to_be_focused()
    page.keyboard.press("Home")
    expect(shown(jupyter).nth(0)).to_be_focused()
    page.keyboard.press("Escape")
    expect(details.locator("tr")).to_have_count(0)


def test_a_reload_shows_the_text_again(jupyter):
    jupyter.open([SETUP, TEN])
    jupyter.run_all()
    button(jupyter, "Generate").click()
    expect(shown(jupyter)).to_have_count(10)
    texts = shown(jupyter).all_inner_texts()
    jupyter.page.locator(".jp-OutputArea-output").last.click(button="right", position={"x": 5, "y": 5})
    jupyter.page.get_by_text("Create New View for Cell Output").click()
    expect(shown(jupyter)).to_have_count(20)
    assert shown(jupyter).all_inner_texts() == [*texts, *texts]


def test_an_error_is_shown_in_place(jupyter):
    jupyter.open([SETUP, "GenerationPlayground(model, tokenizer, '<i>word</i> ' * 800)"])
    jupyter.run_all()
    button(jupyter, "Generate").click()
    expect(jupyter.page.get_by_role("alert")).to_contain_text("the model has 2048 positions")
    expect(button(jupyter, "Stop")).to_be_disabled()


def test_a_stored_page_needs_no_trust_and_no_kernel(jupyter, tmp_path):
    """As in a notebook fresh from a clone: JupyterLab drops scripts, style sheets and unknown attributes."""
    nasty = Token("<script>x</script>", "▁<script>", 0.01, 7, 5.0)
    best = Candidate(1, "▁the", 1, 0.5, 0.5, 1.0, True, 0.5)
    details = nucleus_html(Nucleus((best,), None, 700, 5.0, 1.0, (("top-p 0.4", 1),), 1, 0.5))
    page = nbformat.v4.new_output("display_data", {"text/html": page_html([Token("Once", "▁Once")], [nasty], details)})
    cell = nbformat.v4.new_code_cell("playground.static()", outputs=[page], execution_count=1)
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    stored = tmp_path / "stored.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel}), stored)
    jupyter.open(stored)
    token = jupyter.page.get_by_text("<script>x</script>")
    expect(token).to_have_css("background-color", tint(0.01))
    bar = jupyter.page.locator("tr div div").first
    assert bar.bounding_box()["width"] > 20


def branches(jupyter):
    return jupyter.page.get_by_role("treeitem")


def slide(jupyter, name, key, times):
    """Move a slider with the keyboard."""
    handle = jupyter.page.locator(".widget-slider", has_text=name).get_by_role("slider")
    handle.focus()
    for _ in range(times):
        handle.press(key)


def test_an_alternative_makes_a_branch_and_the_old_text_is_a_click_away(jupyter):
    jupyter.open([SETUP, TEN])
    jupyter.run_all()
    page = jupyter.page
    button(jupyter, "Generate").click()
    expect(shown(jupyter)).to_have_count(10)
    expect(branches(jupyter)).to_have_count(1)
    old = shown(jupyter).all_inner_texts()

    shown(jupyter).nth(3).click()
    expect(page.locator(".details [data-about='1:3']")).to_be_visible()
    rows = page.locator(".details tr[data-token]")
    row = rows.filter(has_not_text="◂").nth(1)
    piece = row.locator("td").nth(1).inner_text().replace("␣", "")
    row.click()
    expect(branches(jupyter)).to_have_count(2)
    expect(shown(jupyter)).to_have_count(14)
    expect(button(jupyter, "Stop")).to_be_disabled()
    assert shown(jupyter).all_inner_texts()[:3] == old[:3]
    assert shown(jupyter).all_inner_texts()[3:10] != old[3:]
    expect(shown(jupyter).nth(3)).to_have_class(re.compile("forced"))
    expect(page.locator(".details tr", has_text="◂")).to_contain_text(piece)
    expect(branches(jupyter).nth(1)).to_have_attribute("aria-selected", "true")

    branches(jupyter).nth(0).click()
    expect(shown(jupyter)).to_have_count(10)
    assert shown(jupyter).all_inner_texts() == old
    expect(shown(jupyter).nth(3)).to_have_class(re.compile("fork"))
    expect(page.locator(".stale")).to_have_count(0)

    # The same with keys: down the list and there, then from a token over to its alternatives.
    branches(jupyter).nth(0).press("ArrowDown")
    expect(branches(jupyter).nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(shown(jupyter)).to_have_count(14)
    expect(branches(jupyter).nth(1)).to_be_focused()
    page.keyboard.press("F2")
    page.keyboard.type("<b>mine</b>")
    page.keyboard.press("Enter")
    expect(branches(jupyter).nth(1)).to_contain_text("<b>mine</b>")
    shown(jupyter).nth(5).press("Enter")
    expect(page.locator(".details [data-about='2:5']")).to_be_visible()
    rows.first.focus()
    page.keyboard.press("End")
    expect(rows.last).to_be_focused()
    page.keyboard.press("Enter")
    expect(branches(jupyter)).to_have_count(3)
    expect(branches(jupyter).nth(2)).to_have_attribute("aria-level", "3")
    branches(jupyter).nth(2).press("Delete")
    expect(branches(jupyter)).to_have_count(2)

    with page.expect_download() as saved:
        button(jupyter, "Save JSON").click()
    tree = saved.value.path()
    with page.expect_download() as saved:
        button(jupyter, "Save Python").click()
    assert "branches[2] = model.generate(" in Path(saved.value.path()).read_text()
    branches(jupyter).nth(1).press("Delete")
    expect(branches(jupyter)).to_have_count(1)
    page.locator("input[type=file]").set_input_files(
        {"name": "branches.json", "mimeType": "application/json", "buffer": Path(tree).read_bytes()}
    )
    expect(branches(jupyter)).to_have_count(2)
    expect(branches(jupyter).nth(1)).to_contain_text("<b>mine</b>")


def test_the_shading_follows_the_sliders_without_a_run(jupyter):
    jupyter.open(
        [SETUP, "one = " + TEN + "\none", "calls = []\nmodel.register_forward_hook(lambda *_: calls.append(1));"]
    )
    jupyter.run_all()
    button(jupyter, "Generate").click()
    expect(shown(jupyter)).to_have_count(10)
    expect(button(jupyter, "Stop")).to_be_disabled()
    shown(jupyter).nth(4).click()
    sentence, kept = jupyter.page.locator(".details .sentence"), jupyter.page.locator(".details tr.kept")
    expect(sentence).to_contain_text("At temperature 0.8 top-p 0.95 keeps")
    before = kept.count()
    slide(jupyter, "top-p", "ArrowLeft", 16)
    expect(sentence).to_contain_text("top-p 0.15 keeps")
    assert kept.count() < before
    slide(jupyter, "temperature", "Home", 1)
    expect(sentence).to_contain_text("Temperature 0 always takes")
    expect(kept).to_have_count(1)
    expect(jupyter.page.locator(".stale")).to_have_count(1)
    expect(shown(jupyter)).to_have_count(10)
    button(jupyter, "log scale").click()
    expect(button(jupyter, "log scale")).to_have_attribute("aria-pressed", "true")

    button(jupyter, "Compare").click()
    comparison = jupyter.page.locator(".comparison")
    expect(comparison).to_contain_text("greedy")
    expect(comparison).to_contain_text(re.compile("tokens agree; then A takes .* B takes|write the same"))
    expect(branches(jupyter)).to_have_count(2)


MINI = """
from persimmon_lab import load_mini
from persimmon_lab.widgets import GenerationPlayground
model, tokenizer = load_mini()
GenerationPlayground(model, tokenizer, "Hello, how are you?", chat=True, max_new_tokens=40, top_p=0.8, seed=7)
"""


def test_it_looks_as_it_should(jupyter):
    """Leaves playground.png and playground-dark.png; nothing moves when there is something to show."""
    jupyter.open([MINI])
    jupyter.run_all()
    page = jupyter.page
    jupyter.command("application:toggle-left-area")
    jupyter.command("notebook:hide-all-cell-code")
    page.set_viewport_size({"width": 1280, "height": 1150})
    button(jupyter, "Generate").click()
    expect(branches(jupyter)).to_have_count(1)
    expect(button(jupyter, "Stop")).to_be_disabled()
    for count, index, row in ((2, 0, 1), (3, 3, 0)):
        shown(jupyter).nth(index).click()
        expect(page.locator(f".details [data-about='{count - 1}:{index}']")).to_be_visible()
        place = page.locator(".panes").bounding_box()
        page.locator(".details tr[data-token]").filter(has_not_text="◂").nth(row).click()
        expect(branches(jupyter)).to_have_count(count)
        expect(button(jupyter, "Stop")).to_be_disabled()
        assert page.locator(".panes").bounding_box() == place
    expect(page.locator(".sentence")).to_contain_text("top-p 0.8 keeps")
    details = page.locator(".persimmon-tokens .details")
    assert details.evaluate("pane => pane.scrollWidth <= pane.clientWidth"), "all columns have room"
    bar = details.locator("tr[data-token] td:nth-child(3)").first
    assert bar.bounding_box()["width"] > 45, "and the bars are long enough to be compared"
    whole = page.locator(".widget-vbox", has=page.locator(".panes")).last
    try:
        for theme in ("Light", "Dark"):
            in_theme(jupyter, theme)
            picture(jupyter, whole, "playground" + ("" if theme == "Light" else "-dark"))
        slide(jupyter, "temperature", "End", 1)
        button(jupyter, "Compare").click()
        expect(page.locator(".comparison")).to_contain_text("B takes")
        expect(button(jupyter, "Stop")).to_be_disabled()
        picture(jupyter, whole, "playground-compare-dark")
    finally:
        in_theme(jupyter, "Light")
    picture(jupyter, whole, "playground-compare")
