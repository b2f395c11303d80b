"""The texts that wake a neuron, a line each."""

import html
from collections.abc import Sequence

from persimmon_lab.viz.html.tokens import BAR, MUTED, SHOWN, escaped, rgba


def contexts_html(contexts: Sequence[tuple[float, str, str, str, str]], title: str = "") -> str:
    """What woke a neuron, as a table: (activation, name of the text, text before, the token, text after), escaped.

    What `strongest_contexts` gives.
    """
    cell = "padding: 2px 6px; border: none; white-space: nowrap; text-align"
    strongest = max((abs(activation) for activation, *_ in contexts), default=0.0) or 1.0
    rows = []
    for activation, source, before, token, after in contexts:
        bar = f"width: {60 * activation / strongest:.0f}px; height: 9px; background-color: {rgba(BAR, 0.9)}; {SHOWN}"
        marked = f"background-color: {rgba(BAR, 0.15 + 0.45 * activation / strongest)}; border-radius: 3px"
        rows.append(
            f'<tr style="background-color: transparent"><td style="{cell}: right">{activation:.2f}</td>'
            f'<td style="{cell}: left"><div style="{bar}"></div></td>'
            f'<td style="{cell}: left"><span style="{MUTED}">{html.escape(source)}</span></td>'
            f'<td style="{cell}: right; font-family: monospace">{on_one_line(before)}</td>'
            f'<td style="{cell}: left; font-family: monospace">'
            f'<b style="{marked}">{on_one_line(token)}</b>{on_one_line(after)}</td></tr>'
        )
    return (
        f'<div style="font-size: 13px; margin: 6px 0; print-color-adjust: exact">'
        f'<div style="margin-bottom: 3px">{html.escape(title)}</div>'
        f'<table style="border-collapse: collapse; font-size: 1em; margin: 0">{"".join(rows)}</table></div>'
    )


def on_one_line(text: str) -> str:
    """Text as HTML with its spaces kept and its line breaks shown as signs alone."""
    return f'<span style="white-space: pre">{escaped(text).replace(chr(10), "")}</span>'
