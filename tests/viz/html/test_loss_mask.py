"""The mask of a loss as a reader sees it: what is taught is told from what is read, and nothing is taken for HTML."""

import re

from persimmon_lab.viz.html import Token, loss_mask_html


def test_what_is_taught_is_told_from_what_is_read():
    tokens = [Token("<b>", "<b>"), Token("yes", "▁yes"), Token("\n", "<0x0A>")]
    page = loss_mask_html(tokens, [None, "▁yes", "</s>"])
    assert 'aria-label="2 of 3 tokens are taught, the others only read"' in page
    assert re.findall(r'title="([^"]*)"', page)[:1] == ["&lt;b&gt; · only read"]
    assert "▁yes · taught: ▁yes" in page
    assert "&lt;0x0A&gt; · taught: &lt;/s&gt;" in page
    assert "<b>" not in page
    assert page.count("underline") == 3  # two tokens and the legend
