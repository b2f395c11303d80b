"""What can be seen of the widgets in every theme and window, on paper, in a reader's own colours, from right to left.

One page with all of them serves every test here; each leaves it as it was.
"""

import io

import pytest
from PIL import Image, ImageStat
from playwright.sync_api import expect

from persimmon_lab.widgets.reading import TEXT
from tests.browser.appearance import in_theme
from tests.browser.conftest import Jupyter
from tests.browser.contrast import low_contrast

CELLS = [
    "from persimmon_lab import load_mini\n"
    "from persimmon_lab.widgets import AttentionExplorer, GainExplorer, GenerationPlayground\n"
    "from persimmon_lab.widgets import LensExplorer, TokenInspector\n"
    "model, tokenizer = load_mini()",
    "playground = GenerationPlayground(model, tokenizer, 'Once upon', max_new_tokens=12, seed=1).generate().wait()\n"
    "playground.take(4, 300).wait()",
    "TokenInspector('Hannah\u00a0\u67ff')",
    "attention = AttentionExplorer(layer=6, head=3, marks={(3, 7): 'previous token'})\nattention",
    "lens = LensExplorer()\nlens",
    "GainExplorer()",
]
WIDGETS = (".persimmon-tokens", ".persimmon-branches", ".persimmon-pieces", ".persimmon-attention", ".persimmon-lens")
EXECUTE = """code => {
    const { kernel } = window.jupyterapp.shell.currentWidget.sessionContext.session;
    return kernel.requestExecute({ code }).done.then(() => null);
}"""  # without a cell, which would take the focus


@pytest.fixture(scope="module")
def jupyter(browser, server):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    jupyter = Jupyter(server, context.new_page())
    jupyter.open(CELLS)
    jupyter.run_all()
    page = jupyter.page
    jupyter.command("application:toggle-left-area")
    expect(page.locator(".persimmon-lens .cell").first).to_be_visible()
    expect(page.locator(".persimmon-attention .details tr")).not_to_have_count(0)
    page.locator(".persimmon-tokens .text .token").nth(2).click()
    expect(page.locator(".persimmon-tokens .details tr[data-token]")).not_to_have_count(0)
    yield jupyter
    jupyter.shut_down_kernels()
    context.close()


@pytest.fixture
def page(jupyter):
    yield jupyter.page
    jupyter.page.emulate_media(forced_colors="none", reduced_motion="no-preference", media="screen")
    jupyter.page.set_viewport_size({"width": 1280, "height": 900})
    in_theme(jupyter, "Light")


def lightness(page, picture) -> float:
    """Of a picture as it stands on the page, from 0 to 1."""
    shot = Image.open(io.BytesIO(picture.screenshot())).convert("L")
    return ImageStat.Stat(shot).mean[0] / 255


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_text_can_be_read(jupyter, page, theme):
    in_theme(jupyter, theme)
    for kind in WIDGETS:
        texts, low = low_contrast(page, kind)
        assert low == [] and texts > 5, kind
    # What is shown is of another text than the box has, or of other settings than the controls.
    page.locator(".persimmon-lens textarea").fill("")
    page.locator(".persimmon-attention textarea").fill("")
    page.get_by_placeholder("A prompt").fill("Twice upon")
    expect(page.locator(".persimmon-widget .stale")).to_have_count(3)
    for kind in WIDGETS:
        assert low_contrast(page, kind)[1] == [], f"{kind}, stale"
    for stale in page.locator(".persimmon-widget .stale").all():
        expect(stale).to_have_css("border-top-style", "dashed")  # and not by its colour alone
    page.get_by_placeholder("A prompt").fill("Once upon")
    for kind in (".persimmon-lens", ".persimmon-attention"):
        page.locator(f"{kind} textarea").fill(TEXT)
    expect(page.locator(".persimmon-widget .stale")).to_have_count(0)


# What is painted on the attention explorer's canvases: arcs above the text, heads, and the matrix.
PAINTED = """() => [".lines canvas", ".grid canvas", ".matrix canvas"].map((name) => {
    const canvas = document.querySelector(`.persimmon-attention ${name}`);
    if (!canvas.width || !canvas.height) return 0;
    const bytes = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return bytes.filter((value, index) => index % 4 === 3 && value > 60).length;
})"""


def test_themes_are_switched(jupyter, page):
    page.mouse.move(5, 5)
    picture = page.locator("img.widget-image")
    before = page.evaluate(PAINTED)
    assert min(before) > 100
    for turn in range(4):
        theme = "Light" if turn % 2 else "Dark"
        in_theme(jupyter, theme)
        whole = f"before => ({PAINTED})().every((count, which) => count > 0.8 * before[which])"
        page.wait_for_function(whole, arg=before)
        if turn > 1:
            assert lightness(page, picture) > 0.85 if theme == "Light" else lightness(page, picture) < 0.25
    # The picture stands out no more than the page does, and says as much as on white.
    in_theme(jupyter, "Dark")
    shot = Image.open(io.BytesIO(picture.screenshot())).convert("L")
    assert shot.getextrema()[1] > 180


def test_a_reader_s_own_colours(page):
    """What a tint or a shadow says is still said where the page may have no colours of its own."""
    page.emulate_media(forced_colors="active")
    solid = {"outline-style": "solid", "outline-width": "3px"}
    chosen = {
        ".persimmon-tokens .token[aria-pressed='true']": solid,
        ".persimmon-pieces .piece[aria-pressed='true']": solid,
        ".persimmon-branches [aria-selected='true']": solid,
        ".persimmon-attention .grid button[aria-checked='true']": solid,
        ".persimmon-attention .token[aria-pressed='true']": solid,
        ".persimmon-lens .cell[aria-pressed='true']": solid,
        ".persimmon-lens .frame": {"outline-style": "dashed"},
        ".persimmon-attention .token.other": {"text-decoration-line": "underline"},
        ".persimmon-pieces .together": {"text-decoration-line": "underline"},
    }
    for selector, style in chosen.items():
        for name, value in style.items():
            expect(page.locator(selector).first).to_have_css(name, value)
    others = page.locator(".persimmon-lens .cell[aria-pressed='false']").first
    expect(others).not_to_have_css("outline-style", "solid")
    tinted = "all => new Set(all.map((one) => getComputedStyle(one).backgroundColor)).size"
    for selector in (".persimmon-tokens .text .token", ".persimmon-lens .cell", ".persimmon-attention .text .token"):
        assert page.locator(selector).evaluate_all(tinted) > 5, selector
    checked = page.locator(".persimmon-lens .choice label")
    colours = checked.locator("span").evaluate_all("all => all.map((one) => getComputedStyle(one).backgroundColor)")
    assert len(set(colours)) == 2
    bars = page.locator(".persimmon-lens .details td div")
    assert "30, 136, 200" in bars.first.evaluate("bar => getComputedStyle(bar).backgroundColor")
    for kind in WIDGETS:
        assert low_contrast(page, kind)[1] == [], kind


def test_paper_and_readers_who_want_nothing_to_move(page):
    exact = "all => all.every((one) => getComputedStyle(one).printColorAdjust === 'exact')"
    cut = """all => all.filter((one) => {
        const { overflowY } = getComputedStyle(one);
        return overflowY !== "visible" && one.innerText?.trim() && one.scrollHeight > one.clientHeight + 1;
    }).map((one) => one.className)"""
    page.emulate_media(media="print", reduced_motion="reduce")
    for selector in (".persimmon-tokens .token", ".persimmon-lens .cell", ".persimmon-pieces .piece"):
        assert page.locator(selector).evaluate_all(exact), selector
    for kind in (".persimmon-tokens", ".persimmon-pieces", ".persimmon-branches"):
        assert page.locator(f"{kind} *").evaluate_all(cut) == [], kind
    moving = "all => all.filter((one) => getComputedStyle(one).transitionDuration !== '0s').length"
    assert page.locator(".persimmon-widget *").evaluate_all(moving) == 0


def test_every_picture_has_a_text(page):
    assert "largest score" in page.locator("img.widget-image").get_attribute("alt")
    nameless = """all => all.filter((one) => !one.closest("[aria-hidden='true']")
        && !(one.getAttribute("aria-label") || one.getAttribute("alt"))).map((one) => one.outerHTML.slice(0, 80))"""
    pictures = page.locator(".persimmon-widget :is(img, canvas, svg[role=img])")
    assert pictures.count() >= 5
    assert pictures.evaluate_all(nameless) == []


@pytest.mark.parametrize("width", [700, 800, 900])
def test_panes_stack_in_time(page, width):
    """A text beside its pane has room to be read, or stands above it."""
    page.set_viewport_size({"width": width, "height": 900})
    for kind, pane in (("tokens", ".side"), ("pieces", ".details"), ("lens", ".chosen")):
        text = page.locator(f".persimmon-{kind} .panes > :first-child")
        page.wait_for_function(
            """([text, pane]) => {
                const [one, other] = [text, pane].map((element) => element.getBoundingClientRect());
                return one.width >= 400 || one.bottom <= other.top + 1;
            }""",
            arg=[text.element_handle(), page.locator(f".persimmon-{kind} .panes > {pane}").element_handle()],
        )


def test_a_text_from_right_to_left_begins_on_the_right(page):
    hebrew = "שלום עולם"
    sides = """([text, token]) => {
        const [all, one] = [text, token].map((element) => element.getBoundingClientRect());
        return [one.left - all.left, all.right - one.right];
    }"""

    def expect_on_the_right(text, token):
        page.wait_for_function(
            f"both => {{ const [left, right] = ({sides})(both); return right < left; }}",
            arg=[text.element_handle(), token.element_handle()],
        )

    page.get_by_placeholder("A prompt").fill(hebrew)
    prompt = page.locator(".persimmon-tokens .prompt")
    expect(prompt).to_contain_text("ש")
    expect_on_the_right(page.locator(".persimmon-tokens .page"), prompt.locator(".token").nth(1))
    page.get_by_placeholder("A prompt").fill("Once upon")
    for kind, within, piece in (("pieces", ".pieces", ".piece"), ("attention", ".text", ".token")):
        box = page.locator(f".persimmon-{kind} textarea")
        before = box.input_value()
        box.fill(hebrew)
        text = page.locator(f".persimmon-{kind} {within}")
        expect(text).to_have_attribute("dir", "rtl")
        expect_on_the_right(text, text.locator(piece).nth(1))
        box.fill(before)
        expect(text).to_have_attribute("dir", "ltr")
