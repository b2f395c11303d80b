"""The ten-minute tour as its reader meets it: JupyterLab, run all, then play with the trained model."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

TOUR = Path(__file__).parents[2] / "notebooks" / "00_ten_minute_tour.ipynb"


@pytest.fixture
def tour(jupyter):
    jupyter.open(TOUR)
    jupyter.run_all()
    return jupyter


def test_the_tour_runs_and_its_playground_answers(tour):
    page = tour.page
    view = page.locator(".persimmon-tokens").last
    view.scroll_into_view_if_needed()
    expect(view.locator(".prompt")).to_contain_text("human: Hello, how are you?")
    expect(view.locator(".text .token").first).to_be_visible()

    # It generates as its reader types: here another question.
    page.get_by_placeholder("A prompt").last.fill("What do you like to eat?")
    expect(view.locator(".prompt")).to_contain_text("human: What do you like to eat?")
    expect(page.locator(".stale")).to_have_count(0)
    expect(page.locator(".jupyter-button", has_text="Stop").last).to_be_disabled()

    # A click on a token tells its rank and what else it could have been.
    view.locator(".text .token").nth(1).click()
    expect(view.locator(".details")).to_contain_text("rank")
    assert view.locator(".details tr").count() >= 10
    tour.screenshot("tour-playground")

    # The figures are there, and none of them is a bare name.
    assert not [text for text in tour.outputs() if "<Figure" in text]
    page.locator("img").nth(1).scroll_into_view_if_needed()
    tour.screenshot("tour-attention")

    # The memory calculator follows its controls.
    calculator = page.locator("img.widget-image").first
    before = calculator.get_attribute("src")
    calculator.scroll_into_view_if_needed()
    page.locator(".noUi-handle").first.press("ArrowLeft")
    expect(calculator).not_to_have_attribute("src", before)
    tour.screenshot("tour-memory")
