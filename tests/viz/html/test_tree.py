"""The list of branches in HTML."""

from dataclasses import replace

from persimmon_lab.viz.html.tree import Row, tree_html

NASTY = "<img src=x>"
ROW = Row(2, 1, "…a little", "dog", 0.03, "barked\nat", "12 tokens", selected=True)


def test_a_row_says_where_it_left_with_what_and_how_it_went_on():
    page = tree_html([replace(ROW, number=1, depth=0, selected=False, forced=None), ROW])
    assert page.count('role="treeitem"') == 2 and page.count('role="tree"') == 1
    assert page.index('data-number="1"') < page.index('data-number="2"')
    assert 'aria-level="2" aria-selected="true"' in page
    assert page.count("3.0 %") == 1
    assert "barked↵at" in page


def test_nothing_from_outside_is_a_tag():
    page = tree_html([Row(1, 0, NASTY, NASTY, 0.5, NASTY, NASTY, NASTY)])
    assert "<img" not in page
    assert page.count("&lt;img src=x&gt;") == 5
