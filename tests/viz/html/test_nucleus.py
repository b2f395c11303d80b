"""The distribution in HTML: numbers and words that are right, what is cut told apart, and nothing that is a tag."""

import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from persimmon_lab.viz.html.nucleus import Candidate, Nucleus, length, nucleus_html, sentence

NASTY = "<script>x</script>"
CANDIDATES = (
    Candidate(7, "▁the", 1, 0.5, 0.6, 0.8, True, 0.6),
    Candidate(3, NASTY, 2, 0.125, 0.15, 0.2, True, 0.75),
    Candidate(9, "▁a", 3, 0.1, 0.1, 0.0, False, 0.85),
    Candidate(5, "zebra", 812, 0.001, 0.0001, 0.0, False, 0.999),
)
TOP_P = Nucleus(CANDIDATES, 5, 4096, 3.25, 0.5, (("top-p 0.7", 2),), 2, 0.75)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "At temperature 0.5 top-p 0.7 keeps 2 of 4,096 tokens: 75.0 % of the mass."),
        ({"temperature": 1.0}, "Top-p 0.7 keeps 2 of 4,096 tokens: 75.0 % of the mass."),
        (
            {"cuts": (("top-k 40", 40), ("min-p 0.1", 2))},
            "At temperature 0.5 top-k 40 keeps 40 of 4,096 tokens, min-p 0.1 2 of these: 75.0 % of the mass.",
        ),
        ({"cuts": ()}, "At temperature 0.5 nothing is cut: any of 4,096 tokens can be drawn."),
        ({"temperature": 0.0}, "Temperature 0 always takes the most probable of 4,096 tokens."),
    ],
)
def test_the_sentence(changes, said):
    assert sentence(replace(TOP_P, **changes)) == said


def rows(source):
    return re.findall(r'<tr data-token="(\d+)" class="(\w+)".*?</tr>', source)


def cells(source, token):
    row = re.search(rf'<tr data-token="{token}".*?</tr>', source)[0]
    return [re.sub("<[^>]*>", "", cell) for cell in re.findall("<td.*?</td>", row)]


def names(source):
    return [
        re.sub("<[^>]*>", "", cell)
        for cell in re.findall("<td.*?</td>", re.search(r'<tr class="names".*?</tr>', source)[0])
    ]


def test_a_row_for_each_candidate_with_its_numbers():
    source = nucleus_html(TOP_P)
    assert rows(source) == [("7", "kept"), ("3", "kept"), ("9", "cut"), ("5", "cut")]
    assert names(source) == ["", "token", "", "model", "at 0.5", "sum", "drawn"]
    assert cells(source, 7) == ["1", "␣the", "", "50.0 %", "60.0 %", "60.0 %", "80.0 %"]
    assert cells(source, 5) == ["812", "zebra ◂", "", "0.10 %", "0.01 %", "99.9 %", "cut"]
    assert source.count("dashed") == 1
    assert "dashed" in re.search(r'<tr data-token="9".*?</tr>', source)[0]
    assert "probability 0.10 % · rank 812 of 4,096<br>entropy 3.25 of 12.0 bits" in source
    assert "4,092 more cut" in source


@pytest.mark.parametrize("temperature", [0.5, 1.0, 0.0])
def test_the_sum_adds_the_column_before_it(temperature):
    """At another temperature than 1 it once added probabilities that stood nowhere."""
    candidates = CANDIDATES if temperature == 0.5 else [replace(each, tempered=each.probability) for each in CANDIDATES]
    total, added = 0.0, []
    for each in candidates[:3]:
        total += each.tempered
        added.append(replace(each, so_far=total))
    source = nucleus_html(replace(TOP_P, candidates=tuple(added), temperature=temperature))
    place = names(source).index("sum")
    shown = [cells(source, each.token_id) for each in added]
    addends = [float(row[place - 1].removesuffix(" %")) for row in shown]
    assert [float(row[place].removesuffix(" %")) for row in shown] == pytest.approx(list(itertools.accumulate(addends)))


def test_nothing_from_outside_is_a_tag():
    assert "<script" not in nucleus_html(TOP_P)
    assert "&lt;script&gt;x&lt;/script&gt;" in nucleus_html(TOP_P)


@pytest.mark.parametrize(
    ("piece", "said"), [("\n", "↵ 50.0 %"), ('▁"', '␣" 50.0 %'), ("\x07", "⟨BEL⟩ 50.0 %"), (NASTY, NASTY)]
)
def test_the_strip_names_its_parts_in_plain_text(piece, said):
    """A tooltip is an attribute: signs in it are characters, and no tags."""
    page = nucleus_html(replace(TOP_P, candidates=(replace(CANDIDATES[0], piece=piece, so_far=0.5),)))

    class Titles(HTMLParser):
        def handle_starttag(self, tag, attributes):
            found.extend(value for name, value in attributes if name == "title")

    found: list[str] = []
    Titles().feed(page)
    assert found[0].startswith(said)


def test_the_strip_holds_all_of_the_mass_once():
    strip = nucleus_html(TOP_P).split('class="strip"')[1].split('class="sentence"')[0]
    widths = [float(width) for width in re.findall(r"width: ([\d.]+)%", strip)]
    assert widths == pytest.approx([60, 15, 10, 15])  # the last is what stands below the best rows


def test_a_logarithmic_bar_spans_five_powers_of_ten():
    assert [length(probability, log=True) for probability in (1.0, 0.1, 1e-5, 0.0)] == pytest.approx([1, 0.8, 0, 0])
    assert length(0.3, log=False) == 0.3
    assert "width: 80.0%" in nucleus_html(replace(TOP_P, candidates=CANDIDATES[2:3]), log=True)
