"""The attention explorer in a real browser: hover, clicks and keys show the numbers that Python computes."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from persimmon_lab import load_mini
from persimmon_lab.widgets.attention.reading import read
from persimmon_lab.widgets.attention.widget import TEXT
from tests.browser.appearance import nothing_sticks_out, stands_in_every_page

FIXTURE = Path(__file__).parents[1] / "fixtures" / "tokenizer"
LONG = " ".join(["the cat sat on the mat and looked at a dog"] * 33)
READING = read(*load_mini(), TEXT)
SIZE = len(READING.labels)
GAVE = 1 + READING.labels.index("king")  # the word after the first king
ONE_BACK = divmod(int(READING.means["previous token"].argmax()), 8)  # the head that looks at the token before
MARKS = {ONE_BACK: "previous token", (6, 3): "induction", (6, 2): "induction"}
EXPLORER = [
    "from persimmon_lab.widgets import AttentionExplorer",
    f"explorer = AttentionExplorer(layer=6, head=3, marks={MARKS})\nexplorer",
]
KING = READING.labels.index("king", GAVE)  # the second one


@pytest.fixture(scope="module")
def reading():
    return READING


@pytest.fixture(params=["lab", "voila"])
def opened(jupyter, request):
    """A function that shows cells in JupyterLab or as a page of Voila."""

    def open_lab(cells):
        jupyter.open(cells)
        jupyter.run_all()
        return jupyter.page

    def open_voila(cells):
        jupyter.open_voila(cells)
        return jupyter.page

    return {"lab": open_lab, "voila": open_voila}[request.param]


def tokens(page):
    return page.locator(".persimmon-attention .token")


def heads(page):
    return page.locator(".persimmon-attention .grid button")


def said(name, position, value, view):
    """How a token is read out."""
    number = f"{100 * value:.1f} %" if view == "pattern" else f"{value:+.2f}".replace("-", "−")
    return f"{name}, token {position}: {number}"


def expect_row(page, reading, layer, head, view, token, direction="from"):
    """Every token that the chosen one can see says what Python says of it."""
    row = reading.row(layer, head, view, token, direction)
    visible = range(token + 1) if direction == "from" else range(token, len(row))
    for position in (*visible[:4], *visible[-4:]):
        expected = said(reading.labels[position], position, float(row[position]), view)
        expect(tokens(page).nth(position)).to_have_attribute("aria-label", expected)
    hidden = set(range(len(row))) - set(visible)
    for position in sorted(hidden)[:3]:
        name = f"{reading.labels[position]}, token {position}"
        expect(tokens(page).nth(position)).to_have_attribute("aria-label", name)


def choice(page, name):
    return page.locator(".persimmon-attention .choice label", has_text=name)


def test_every_way_to_look(opened, reading):
    page = opened(EXPLORER)
    expect(tokens(page)).to_have_count(SIZE)
    expect(heads(page)).to_have_count(64)

    # Hover shows, click keeps.
    tokens(page).nth(KING).hover()
    expect_row(page, reading, 6, 3, "pattern", KING)
    tokens(page).nth(20).hover()
    expect_row(page, reading, 6, 3, "pattern", 20)
    tokens(page).nth(KING).click()
    tokens(page).nth(GAVE).click(modifiers=["Shift"])
    page.locator(".persimmon-attention .hint").hover()
    expect_row(page, reading, 6, 3, "pattern", KING)
    details = page.locator(".persimmon-attention .details")
    share = float(reading.matrix(6, 3, "pattern")[KING, GAVE])
    expect(details).to_contain_text("Layer 6, head 3 (induction)")
    expect(details.locator("tr", has_text="◂")).to_contain_text(f"{100 * share:.1f} %")
    shown = tokens(page).nth(GAVE)

    # A link below the threshold loses its number.
    row = reading.matrix(6, 3, "pattern")[KING]
    strongest, second = (tokens(page).nth(int(key)) for key in row.topk(2).indices)
    (most, less), threshold = row.topk(2).values.tolist(), page.locator(".threshold input")
    expect(strongest).to_have_attribute("data-share", f"{100 * most:.0f}")
    percent = round(50 * (most + less))
    threshold.fill(str(percent))
    expect(page.locator(".threshold output")).to_have_text(f"{percent} %")
    expect(second).not_to_have_attribute("data-share", re.compile("."))
    expect(strongest).to_have_attribute("data-share", f"{100 * most:.0f}")
    threshold.fill("0")
    expect(shown).to_have_attribute("data-share", f"{100 * share:.0f}")

    # The score and its parts.
    for name, view in (("score", "score"), ("rotated part", "rotated"), ("passed part", "passed")):
        choice(page, name).click()
        expect_row(page, reading, 6, 3, view, KING)
        value = f"{float(reading.matrix(6, 3, view)[KING, GAVE]):+.1f}"
        expect(shown).to_have_attribute("data-share", value.replace("-", "−"))
    choice(page, "attention").click()

    # The other direction.
    choice(page, "who looks at it").click()
    tokens(page).nth(GAVE).click()
    expect_row(page, reading, 6, 3, "pattern", GAVE, "to")
    expect(details).to_contain_text("gave 3 is looked at by")
    choice(page, "where it looks").click()

    # Which head looks from here to there?
    tokens(page).nth(KING).click()
    tokens(page).nth(GAVE).click(modifiers=["Shift"])
    page.locator(".order select").select_option("this link")
    best = reading.rows(KING, "from")[..., GAVE]
    layer, head = divmod(int(best.argmax()), 8)
    first_head = page.locator(f".grid button[aria-label^='layer {layer} head {head}']")
    expect(first_head).to_contain_text(f"{100 * float(best.max()):.1f} %")
    places = heads(page).evaluate_all("all => all.map(b => [b.offsetTop, b.offsetLeft, b.innerText.split('\\n')[0]])")
    order = [name for _, _, name in sorted(places)]
    assert order == ["·".join(map(str, divmod(int(each), 8))) for each in best.flatten().argsort(descending=True)]
    first_head.click()
    expect_row(page, reading, layer, head, "pattern", KING)


def test_the_keyboard_reaches_everything(jupyter, reading):
    jupyter.open(EXPLORER)
    jupyter.run_all()
    page = jupyter.page
    expect(tokens(page)).to_have_count(SIZE)
    page.locator(".persimmon-attention textarea").focus()
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("(e => e.ariaLabel || e.value || e.textContent)(document.activeElement)"))
    assert {"pattern", "from", "5", "layer"} <= set(reached)
    assert any(name.startswith("layer 6 head 3, induction") for name in reached)
    assert "6·2 induction" in reached

    heads(page).nth(6 * 8 + 3).focus()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    for key, (layer, head) in {
        "ArrowRight": (6, 4),
        "ArrowUp": (5, 4),
        "ArrowLeft": (5, 3),
        "Home": (0, 0),
        "ArrowDown": (1, 0),
    }.items():
        page.keyboard.press(key)
        chosen = page.locator(f".grid button[aria-label^='layer {layer} head {head}']")
        expect(chosen).to_be_focused()
        expect(chosen).to_have_attribute("aria-checked", "true")
    page.locator(".marks button", has_text="6·3").press("Enter")
    expect(page.locator(".details")).to_contain_text("Layer 6, head 3 (induction)")

    tokens(page).nth(KING - 1).click()
    expect(tokens(page).nth(KING - 1)).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(tokens(page).nth(KING)).to_be_focused()
    expect_row(page, reading, 6, 3, "pattern", KING)
    expect(page.locator(".details")).to_contain_text(f"the {KING - 1} looks at")  # not kept yet
    page.keyboard.press("Enter")
    expect(page.locator(".details")).to_contain_text(f"king {KING} looks at")
    page.keyboard.press("Home")
    expect(tokens(page).nth(0)).to_be_focused()
    page.keyboard.press("ArrowDown")  # the token of the next line that stands below
    below = page.evaluate("[document.activeElement.offsetTop, document.activeElement.offsetLeft]")
    assert below[0] > page.evaluate("document.querySelector('.token').offsetTop")
    page.keyboard.press("End")
    expect(tokens(page).nth(SIZE - 1)).to_be_focused()
    page.keyboard.press("Shift+Enter")
    expect(tokens(page).nth(SIZE - 1)).to_have_class(re.compile("other"))
    assert page.evaluate("window.jupyterapp.shell.currentWidget.content.widgets.length") == 2  # no shortcut was heard


def test_a_cell_of_the_picture_chooses_a_link(jupyter, reading):
    jupyter.open(EXPLORER)
    jupyter.run_all()
    page = jupyter.page
    canvas = page.locator(".matrix canvas")
    expect(canvas).to_have_attribute("aria-label", re.compile("attention of layer 6 head 3"))
    geometry = json.loads(page.locator(".matrix canvas").get_attribute("data-geometry"))
    edge, cell = geometry["edge"], geometry["cell"]
    query, key = reading.strongest_link(6, 3)
    looking, seen = reading.labels[query], reading.labels[key]
    there = {"x": edge + (key + 0.5) * cell, "y": (query + 0.5) * cell}
    canvas.hover(position=there)
    expect(page.locator(".told")).to_have_text(f"{looking} ({query}) → {seen} ({key})")
    canvas.click(position=there)
    expect(page.locator(".details")).to_contain_text(f"{looking} {query} looks at")
    expect(page.locator(".details tr", has_text="◂")).to_contain_text(seen)
    # What is painted there is what the head gives: much at the link, nothing in the future.
    paint = """([x, y]) => {
        const canvas = document.querySelector(".matrix canvas");
        const ratio = canvas.width / parseFloat(canvas.style.width);
        return [...canvas.getContext("2d").getImageData(x * ratio, y * ratio, 1, 1).data];
    }"""
    strong = page.evaluate(paint, [there["x"], there["y"]])
    faint = page.evaluate(paint, [edge + (query + 1.5) * cell, there["y"]])
    assert strong[3] > 200 > 100 > faint[3]


def test_it_stands_in_a_page_of_every_width_and_in_the_dark(jupyter):
    jupyter.open(EXPLORER)
    jupyter.run_all()
    page, explorer = jupyter.page, jupyter.page.locator(".persimmon-attention")
    expect(explorer.locator(".details tr")).not_to_have_count(0)
    tokens(page).nth(KING).click()
    tokens(page).nth(GAVE).click(modifiers=["Shift"])
    expect(explorer.locator(".details")).to_contain_text(f"king {KING} looks at")

    def in_the_dark():
        # What is written on canvases follows the theme too.
        page.wait_for_function("""() => {
            const canvas = document.querySelector(".matrix canvas");
            const names = canvas.getContext("2d").getImageData(0, 0, canvas.width / 5, canvas.height).data;
            const painted = [...names].filter((_, i) => i % 4 === 0 && names[i + 3] > 120);
            return painted.length > 0 && painted.every((red) => red > 150);
        }""")
        choice(page, "rotated part").click()
        page.locator(f".grid button[aria-label^='layer {ONE_BACK[0]} head {ONE_BACK[1]}']").click()
        expect(tokens(page).nth(KING - 1)).to_have_attribute("data-share", re.compile(r"\+\d"))

    stands_in_every_page(jupyter, explorer, "attention-explorer", in_the_dark)


def test_a_change_of_text_is_read_and_a_bad_one_leaves_the_view(opened):
    page = opened(EXPLORER)
    box, alert, panes = (page.locator(f".persimmon-attention {name}") for name in ("textarea", ".error", ".panes"))
    expect(tokens(page)).to_have_count(SIZE)
    box.fill("")
    expect(alert).to_contain_text("the text is empty")
    expect(panes).to_have_class(re.compile("stale"))
    expect(tokens(page)).to_have_count(SIZE)
    box.fill("word " * 600)
    expect(alert).to_contain_text("602 tokens, but at most 512 can be read here")
    expect(tokens(page)).to_have_count(SIZE)
    expect(panes).to_have_class(re.compile("stale"))
    # A shorter text, which ends before the token that was kept.
    box.fill("one two three one two three")
    expect(tokens(page)).to_have_count(len(read(*load_mini(), box.input_value()).ids))
    expect(panes).not_to_have_class(re.compile("stale"))
    expect(alert).to_be_empty()
    box.fill("<script>document.title = 'taken'</script></style>\n<b>bold</b> <script> <b>bold</b>")
    expect(alert).to_be_empty()
    expect(panes).not_to_have_class(re.compile("stale"))
    expect(tokens(page).first).to_have_text("|ENDOFTEXT|")
    assert "<script>document.title='taken'</script></style>↵<b>bold" in "".join(tokens(page).all_inner_texts()).replace(
        "␣", ""
    )
    assert page.title() != "taken"
    assert page.locator(".persimmon-attention :is(b, script, style)").count() == 0
    found = read(*load_mini(), box.input_value())
    tokens(page).last.click()
    expect_row(page, found, 6, 3, "pattern", len(found.ids) - 1)


def test_hundreds_of_tokens(opened):
    page = opened([EXPLORER[0], f"explorer = AttentionExplorer({LONG!r}, layer=6, head=3)\nexplorer"])
    found = read(*load_mini(), LONG)
    size = len(found.labels)
    expect(tokens(page)).to_have_count(size)
    for token in (size - 26, 305, 12):
        tokens(page).nth(token).hover()
        expect_row(page, found, 6, 3, "pattern", token)
    tokens(page).nth(size - 26).click()
    expect(page.locator(".details")).to_contain_text(f"{found.labels[size - 26]} {size - 26} looks at")
    expect(page.locator(".told")).to_contain_text("4 tokens a cell")
    # A cell of sixteen links chooses the strongest of them.
    geometry = json.loads(page.locator(".matrix canvas").get_attribute("data-geometry"))
    edge, cell = geometry["edge"], geometry["cell"]
    page.locator(".matrix canvas").click(position={"x": edge + 10.5 * cell, "y": 100.5 * cell})
    block = found.matrix(6, 3, "pattern")[400:404, 40:44]
    query, key = divmod(int(block.argmax()), 4)
    expect(page.locator(".details")).to_contain_text(f"{found.labels[400 + query]} {400 + query} looks at")
    expect(page.locator(".details tr", has_text="◂")).to_contain_text(f"{40 + key}")


def test_it_follows_python_and_a_second_view_shows_the_same(jupyter, reading):
    jupyter.open([*EXPLORER, "explorer.token, explorer.head, explorer.view = 20, 4, 'rotated'", "explorer"])
    jupyter.run_all()
    page = jupyter.page
    expect(tokens(page)).to_have_count(2 * SIZE)
    expect_row(page, reading, 6, 4, "rotated", 20)
    expected = said(reading.labels[0], 0, float(reading.matrix(6, 4, "rotated")[20, 0]), "rotated")
    expect(tokens(page).nth(SIZE)).to_have_attribute("aria-label", expected)


LARGE = f"""
import torch
from persimmon_lab import PersimmonConfig, PersimmonForCausalLM
from persimmon_lab.tokenizer import PersimmonTokenizer

tokenizer = PersimmonTokenizer.from_pretrained({str(FIXTURE)!r})
config = PersimmonConfig.tiny(
    vocab_size=tokenizer.vocab_size, hidden_size=256, intermediate_size=64, num_hidden_layers=36, num_attention_heads=64
)
model = PersimmonForCausalLM(config, generator=torch.Generator().manual_seed(0)).eval()
AttentionExplorer("Once upon a time there was a king", model, tokenizer, layer=30, head=50)
"""
WITHIN = """button => {
    const [one, all] = [button, button.closest(".scroll")].map((element) => element.getBoundingClientRect());
    return one.left >= all.left && one.right <= all.right && one.top >= all.top && one.bottom <= all.bottom;
}"""


def test_as_many_heads_as_the_largest_model_has(jupyter):
    """Of 36 layers of 64 heads not all can be seen; the chosen one is, its row and column have numbers, and names are
    whole where the heads stand by their scores."""
    jupyter.open([EXPLORER[0], LARGE])
    jupyter.run_all()
    page = jupyter.page
    expect(heads(page)).to_have_count(36 * 64)
    expect(page.locator(".persimmon-attention .details tr")).not_to_have_count(0)
    chosen = page.locator(".grid button[aria-checked='true']")
    expect(chosen).to_have_attribute("aria-label", re.compile("layer 30 head 50"))
    page.wait_for_function(WITHIN, arg=chosen.element_handle())
    # The numbers of layers and heads stand at the edges of what is seen.
    names, around = (page.locator(f".persimmon-attention {one}").bounding_box() for one in (".names canvas", ".scroll"))
    assert abs(names["x"] - around["x"]) < 2 and abs(names["y"] - around["y"]) < 2
    assert names["width"] > 300 and names["height"] > 300
    chosen.focus()
    for key, place in (("ArrowRight", (30, 51)), ("ArrowUp", (29, 51)), ("Home", (0, 0)), ("End", (35, 63))):
        page.keyboard.press(key)
        expect(chosen).to_have_attribute("aria-label", re.compile("^layer {} head {}:".format(*place)))
        page.wait_for_function(WITHIN, arg=chosen.element_handle())

    page.locator(".order select").select_option("focus")
    expect(chosen).to_contain_text("35·63")
    page.wait_for_function(WITHIN, arg=chosen.element_handle())
    cut = "all => all.filter((name) => name.scrollWidth > name.parentElement.clientWidth + 1).length"
    assert page.locator(".grid button span").evaluate_all(cut) == 0
    page.keyboard.press("ArrowUp")
    expect(chosen).not_to_contain_text("35·63")
    page.wait_for_function(WITHIN, arg=chosen.element_handle())
    places = heads(page).evaluate_all("all => all.map((one) => one.offsetLeft)")
    assert max(places) < 340  # no head beyond the edge, where one would scroll sideways


WIDE_ROWS = """
from persimmon_lab.viz.html.links import Link, links_html
links = [Link("m" * 24, 511, 1.0, -123.45, 234.56), Link("of", 12, 0.001, -12.34, -45.67)]
explorer.details = links_html(links, "Layer 35, head 63", ("king", 510), "looks at", 511)
"""


def test_a_bold_row_of_large_numbers_stands_in_a_narrow_page(jupyter):
    jupyter.open([*EXPLORER, WIDE_ROWS])
    jupyter.run_all()
    explorer = jupyter.page.locator(".persimmon-attention")
    expect(explorer.locator(".details tr", has_text="◂")).to_contain_text("+234.56")
    jupyter.page.set_viewport_size({"width": 900, "height": 1000})
    nothing_sticks_out(jupyter, explorer)
    table, details = (explorer.locator(part).bounding_box() for part in (".details table", ".details"))
    assert table["x"] + table["width"] <= details["x"] + details["width"] + 1
