"""Notebook 11 as a reader meets it: stress the model in the explorer, answer an exercise."""

from playwright.sync_api import expect

NOTEBOOK = "11_float16_or_bfloat16.ipynb"
ANSWER = """def half_step(weights, fraction_bits):
    return 2.0 ** (weights.abs().log2().floor() - fraction_bits - 1)"""


def test_a_readers_answer_is_marked(jupyter):
    page = jupyter.page
    jupyter.open_excerpt(
        NOTEBOOK,
        "from persimmon_lab.numerics.compare import in_dtype",
        "from persimmon_lab.widgets import PrecisionExplorer",
        "def half_step(",
    )
    jupyter.write_into_cell(
        "from persimmon_lab.numerics.compare import in_dtype", "mini, tokenizer = load_mini()"
    )  # no sweep
    jupyter.run_all()

    picture = page.locator("img.widget-image")
    before = picture.get_attribute("src")
    page.locator("input[type=checkbox]").check()
    expect(picture).not_to_have_attribute("src", before)

    jupyter.answer("def half_step(", ANSWER)
