"""The lens explorer in a real browser: clicks and keys show the numbers that Python computes."""

import re

import pytest
from playwright.sync_api import expect

from persimmon_lab import load_mini
from persimmon_lab.trace.lens import logit_lens
from persimmon_lab.viz.html.tokens import percent
from persimmon_lab.viz.lens import visible
from tests.browser.appearance import stands_in_every_page

EXPLORER = [
    "from persimmon_lab.widgets import LensExplorer",
    "explorer = LensExplorer()\nexplorer",
]
PHRASE = "the king gave seven golden rings to Hannah"
TEXT = f"{PHRASE}, {PHRASE}"
LONG = " ".join(["the cat sat on the mat and looked at a dog"] * 33)
FOUND = 19  # a token after which the second saying is found late
GOLDEN, RING = 19, 21  # two places of the second saying, whatever stands there
EXECUTE = """code => {
    const { kernel } = window.jupyterapp.shell.currentWidget.sessionContext.session;
    return kernel.requestExecute({ code }).done.then(() => null);
}"""  # without a cell, which would take the focus


class Expected:
    """Every number of a text's lens, by another way than the widget's."""

    def __init__(self, text):
        model, tokenizer = load_mini()
        ids = tokenizer(text, return_tensors="pt").input_ids
        self.names, self.pieces = tokenizer.convert_ids_to_tokens, tokenizer.convert_ids_to_tokens(ids[0].tolist())
        self.ids = ids[0]
        self.shares = {
            after: logit_lens(model, ids, after)[:, 0].double().softmax(dim=-1) for after in ("attention", "mlp")
        }

    def best(self, stream, position, after="mlp", count=1):
        found = self.shares[after][stream, position].topk(count)
        return list(zip(self.names(found.indices.tolist()), found.values.tolist()))

    def follows(self, stream, position, after="mlp"):
        """Rank and probability of the next token of the text."""
        shares = self.shares[after][stream, position]
        share = shares[self.ids[position + 1]]
        return int((shares > share).sum()) + 1, float(share)

    def said(self, stream, position, after="mlp"):
        """How a cell is read out."""
        ((piece, share),) = self.best(stream, position, after)
        name = "embedding" if stream == 0 else f"layer {stream - 1}"
        right = position + 1 < len(self.ids) and self.follows(stream, position, after)[0] == 1
        return f"{name}, token {position}: {visible(piece)} {100 * share:.1f} %{', which follows' if right else ''}"


@pytest.fixture(scope="module")
def expected():
    return Expected(TEXT)


@pytest.fixture(params=["lab", "voila"])
def opened(jupyter, request):
    """A function that shows cells in JupyterLab or as a page of Voila."""

    def open_lab(cells):
        jupyter.open(cells)
        jupyter.run_all()
        jupyter.command("application:toggle-left-area")  # room for twelve columns
        jupyter.page.wait_for_function("document.querySelector('.persimmon-lens').clientWidth > 1000")
        return jupyter.page

    def open_voila(cells):
        jupyter.open_voila(cells)
        return jupyter.page

    return {"lab": open_lab, "voila": open_voila}[request.param]


def cell(page, stream, position):
    name = "embedding" if stream == 0 else f"layer {stream - 1}"
    return page.locator(f".persimmon-lens .cell[aria-label^='{name}, token {position}:']").first


def details(page):
    return page.locator(".persimmon-lens .details").first


def expect_details(page, expected, stream, position, after="mlp"):
    """The pane tells where it is, the ten best tokens in order, and the following token's numbers and ranks."""
    pane = details(page)
    words = {"mlp": "MLP", "attention": "attention"}[after]
    expect(pane).to_contain_text("The embedding" if stream == 0 else f"Layer {stream - 1}, after {words}")
    expect(pane).to_contain_text(f"after {visible(expected.pieces[position])} {position}")
    rank, share = expected.follows(stream, position, after)
    follows = visible(expected.pieces[position + 1])
    expect(pane).to_contain_text(f"follows {follows}: rank {rank:,} of 4,096, {percent(share)}")
    rows = [re.sub(r"\s+", " ", row).strip() for row in pane.locator("tr").all_inner_texts()]
    assert [row.replace(" ", "") for row in rows] == [
        f"{place}{visible(piece)}{'◂' if place == rank else ''}{percent(each)}".replace(" ", "")
        for place, (piece, each) in enumerate(expected.best(stream, position, after, 10), start=1)
    ]
    said = pane.locator("svg").get_attribute("aria-label")
    for layer in range(1, 9):
        rank, share = expected.follows(layer, position, after)
        assert f"layer {layer - 1} {percent(share)} rank {rank:,}" in said


def expect_cells(page, expected, places, after="mlp"):
    for stream, position in places:
        expect(cell(page, stream, position)).to_have_attribute("aria-label", expected.said(stream, position, after))


def test_every_way_to_look(opened, expected):
    page = opened(EXPLORER)
    seen = [(stream, position) for stream in (0, 3, 8) for position in (17, 19, 21, 22)]
    expect_cells(page, expected, seen)
    rows = cell(page, 8, RING).bounding_box(), cell(page, 0, RING).bounding_box()
    assert rows[0]["y"] < rows[1]["y"]  # the last layer on top

    # Click keeps, hover shows for as long as it lasts.
    cell(page, 6, RING).click()
    expect_details(page, expected, 6, RING)
    cell(page, 3, GOLDEN).hover()
    expect_details(page, expected, 3, GOLDEN)
    page.locator(".persimmon-lens .hint").hover()
    expect_details(page, expected, 6, RING)
    expect(cell(page, 6, RING)).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".persimmon-lens .cell[aria-pressed='true']")).to_have_count(1)

    # Where in a layer the stream is read.
    page.locator(".persimmon-lens .choice label", has_text="after attention").click()
    expect_cells(page, expected, seen, "attention")
    expect_details(page, expected, 6, RING, "attention")
    cell(page, 7, GOLDEN).click()
    expect_details(page, expected, 7, GOLDEN, "attention")
    page.locator(".persimmon-lens .choice label", has_text="after MLP").click()
    expect_details(page, expected, 7, GOLDEN)
    expect_cells(page, expected, seen)


def test_the_keyboard_reaches_everything(jupyter, expected):
    jupyter.open(EXPLORER)
    jupyter.run_all()
    page = jupyter.page
    cell(page, 6, RING).click()
    expect(cell(page, 6, RING)).to_be_focused()
    for key, (stream, position) in {
        "ArrowUp": (7, RING),
        "ArrowRight": (7, RING + 1),
        "ArrowDown": (6, RING + 1),
        "ArrowLeft": (6, RING),
        "Home": (6, 0),
    }.items():
        page.keyboard.press(key)
        expect(cell(page, stream, position)).to_be_focused()
        expect_details(page, expected, stream, position)
        expect(cell(page, stream, position)).to_be_in_viewport()
    page.keyboard.press("ArrowLeft")  # no further
    expect(cell(page, 6, 0)).to_be_focused()
    page.keyboard.press("Escape")
    expect(cell(page, 6, RING)).to_be_focused()
    expect_details(page, expected, 6, RING)
    page.keyboard.press("End")
    last = len(expected.pieces) - 1
    expect(cell(page, 6, last)).to_be_focused()
    expect(details(page)).to_contain_text("The text ends here")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    expect(cell(page, 6, last - 1)).to_have_attribute("aria-pressed", "true")
    expect_details(page, expected, 6, last - 1)
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"

    page.locator(".persimmon-lens textarea").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.value") == "mlp"
    page.keyboard.press("ArrowLeft")
    expect_details(page, expected, 6, last - 1, "attention")
    page.keyboard.press("Tab")
    expect(cell(page, 6, last - 1)).to_be_focused()  # one stop for all cells
    assert page.evaluate("window.jupyterapp.shell.currentWidget.content.widgets.length") == 2  # no shortcut was heard


def test_a_change_of_text_is_read_and_a_bad_one_leaves_the_view(opened, expected):
    page = opened(EXPLORER)
    box, alert, panes = (page.locator(f".persimmon-lens {name}") for name in ("textarea", ".error", ".panes"))
    cell(page, 6, RING).click()
    expect_details(page, expected, 6, RING)
    box.fill("")
    expect(alert).to_contain_text("the text is empty")
    expect(panes).to_have_class(re.compile("stale"))
    expect_details(page, expected, 6, RING)
    box.fill("word " * 600)
    expect(alert).to_contain_text("602 tokens, but at most 512 can be read here")
    expect_cells(page, expected, [(6, RING)])
    # A shorter text, which ends before the cell that was kept.
    box.fill("one two three one two three")
    expect_cells(page, Expected("one two three one two three"), [(6, 5)])
    expect(panes).not_to_have_class(re.compile("stale"))
    expect(alert).to_be_empty()
    markup = "<script>document.title = 'taken'</script></style>\n<b>bold</b> <script> <b>bold</b>"
    box.fill(markup)
    expect(alert).to_be_empty()
    expect(panes).not_to_have_class(re.compile("stale"))
    found = Expected(markup)
    page.locator(".persimmon-lens .cell[tabindex='0']").focus()
    for key in ("Home", *["ArrowUp"] * 8):
        page.keyboard.press(key)
    for position in range(1, 8):
        page.keyboard.press("ArrowRight")
        expect(cell(page, 8, position)).to_be_focused()
        expect_details(page, found, 8, position)
    assert page.title() != "taken"
    assert page.locator(".persimmon-lens .panes :is(script, style, a, img)").count() == 0
    read = page.locator(".persimmon-lens .read")
    names = read.evaluate_all("all => all.map(one => one.title)")
    assert "".join(names) in "".join(visible(piece) for piece in found.pieces)
    assert "script" in "".join(names)


def expect_drawn(page, text):
    """The grid shows this text: the columns at both ends of what it says that it shows have its numbers."""
    found = Expected(text)
    window = page.locator(".persimmon-lens .window")
    expect(window).to_have_text(re.compile(rf"^Tokens \d+ … \d+ of {len(found.pieces)}$"))
    seen = [int(number) for number in re.findall(r"\d+", window.inner_text())[:2]]
    expect_cells(page, found, [(stream, position) for stream in (0, 6, 8) for position in seen])
    assert page.locator(".persimmon-lens .column").count() >= seen[1] - seen[0] + 1


def test_a_text_that_is_read_while_a_cell_has_the_focus_is_drawn(jupyter):
    """Whether the focus came from the box at once, by mouse or by keys, or was there when Python set the text."""
    jupyter.open(EXPLORER)
    jupyter.run_all()
    page = jupyter.page
    box, focused = page.locator(".persimmon-lens textarea"), page.locator(".persimmon-lens .cell:focus")

    def click():
        page.locator(".persimmon-lens .cell").nth(30).click()

    def go_by_keys():
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")

    expect(cell(page, 6, RING)).to_be_visible()
    for text, come in (("one two three one two three", click), ("four five six four five six", go_by_keys)):
        box.fill(text)
        come()
        expect_drawn(page, text)
        expect(focused).to_have_count(1)
    text = "seven eight nine seven eight nine"
    page.evaluate(EXECUTE, f"explorer.text = {text!r}")
    expect_drawn(page, text)
    expect(focused).to_have_count(1)
    page.keyboard.press("End")
    expect(focused).to_have_attribute("aria-label", re.compile(f"token {len(Expected(text).pieces) - 1}:"))


def test_hundreds_of_tokens(opened):
    page = opened([EXPLORER[0], f"explorer = LensExplorer({LONG!r})\nexplorer"])
    found = Expected(LONG)
    size = len(found.pieces)
    columns = page.locator(".persimmon-lens .column")
    expect(columns.first).to_be_visible()
    assert columns.count() < 40  # only what can be seen
    scroll = page.locator(".persimmon-lens .scroll")
    for share in (0.5, 1, 0):
        scroll.evaluate(f"scroll => (scroll.scrollLeft = {share} * (scroll.scrollWidth - scroll.clientWidth))")
        position = 2 + int(share * (size - 6))
        expect_cells(page, found, [(3, position), (8, position)])
        assert columns.count() < 40
    cell(page, 8, 2).click()
    expect_details(page, found, 8, 2)
    page.keyboard.press("End")
    expect(cell(page, 8, size - 1)).to_be_focused()
    page.keyboard.press("PageUp")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    position = int(re.search(r"token (\d+)", page.evaluate("document.activeElement.ariaLabel")).group(1))
    assert size - 26 < position < size - 2
    expect_details(page, found, 8, position)
    order = columns.evaluate_all("all => all.map(column => column.offsetLeft)")
    assert order == sorted(order)


def test_it_follows_python_and_a_second_view_shows_the_same(jupyter, expected):
    jupyter.open([*EXPLORER, "explorer.stream, explorer.position, explorer.after = 5, 3, 'attention'", "explorer"])
    jupyter.run_all()
    page = jupyter.page
    expect_details(page, expected, 5, 3, "attention")
    kept = page.locator(".persimmon-lens .cell[aria-pressed='true']")
    expect(kept).to_have_count(2)
    for view in range(2):
        expect(kept.nth(view)).to_have_attribute("aria-label", expected.said(5, 3, "attention"))
        expect(page.locator(".persimmon-lens .details").nth(view)).to_contain_text("Layer 4, after attention")


def test_it_stands_in_a_page_of_every_width_and_in_the_dark(jupyter, expected):
    jupyter.open(EXPLORER)
    jupyter.run_all()
    page = jupyter.page
    cell(page, 7, FOUND).click()
    expect_details(page, expected, 7, FOUND)
    stands_in_every_page(jupyter, page.locator(".persimmon-lens"), "lens-explorer")


def test_two_explorers_leave_each_other_alone(jupyter, expected):
    jupyter.open([*EXPLORER, "other = LensExplorer()\nother"])
    jupyter.run_all()
    page = jupyter.page
    first, second = (page.locator(".persimmon-lens").nth(view) for view in range(2))
    first.locator(".choice label", has_text="after attention").click()
    expect(first.locator(".details")).to_contain_text("after attention")
    expect(first.locator("input:checked")).to_have_value("attention")
    expect(second.locator("input:checked")).to_have_value("mlp")
