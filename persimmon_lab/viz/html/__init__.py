"""Figures that are HTML: tokens, trees and tables, of which everything is escaped.

They stand below the figures of `viz`, and import none of them. Whole pages for where nothing can be clicked are
`tokens.page_html` and `pieces.page_html`.
"""

from persimmon_lab.viz.html.comparison import comparison_html, first_difference
from persimmon_lab.viz.html.contexts import contexts_html
from persimmon_lab.viz.html.lens_cell import Cell, cell_html, curve_svg
from persimmon_lab.viz.html.links import Link, links_html
from persimmon_lab.viz.html.loss_mask import loss_mask_html
from persimmon_lab.viz.html.nucleus import Candidate, Nucleus, nucleus_html
from persimmon_lab.viz.html.pieces import Cut, Piece, Stretch, counts_html, details_html
from persimmon_lab.viz.html.tokens import Token, legend_html, token_html, tokens_html
from persimmon_lab.viz.html.tree import Row, tree_html

__all__ = [
    "Candidate",
    "Cell",
    "Cut",
    "Link",
    "Nucleus",
    "Piece",
    "Row",
    "Stretch",
    "Token",
    "cell_html",
    "comparison_html",
    "contexts_html",
    "counts_html",
    "curve_svg",
    "details_html",
    "first_difference",
    "legend_html",
    "links_html",
    "loss_mask_html",
    "nucleus_html",
    "token_html",
    "tokens_html",
    "tree_html",
]
