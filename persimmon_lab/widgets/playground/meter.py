"""How much of the context a text takes, and what the cache needs for it."""

from persimmon_lab.footprint import cache_bytes, in_bytes
from persimmon_lab.generation.engines.decodable import Decodable
from persimmon_lab.viz.html.tokens import BAR, rgba


def meter_html(model: Decodable, positions: int) -> str:
    """A bar, and the numbers: positions of the context, and bytes of the cache now and when the context is full."""
    limit = model.config.context_limit
    now, full = (cache_bytes(model.config, model.dtype, count) for count in (min(positions, limit), limit))
    share = min(1.0, positions / limit)
    return (
        '<div class="meter" role="meter" aria-label="Context" aria-valuemin="0" '
        f'aria-valuemax="{limit}" aria-valuenow="{positions}" style="display: flex; align-items: center; gap: 8px; '
        'font-size: 12px; line-height: 1.3; white-space: nowrap">'
        '<div style="width: 110px; height: 8px; border: 1px solid rgba(128, 128, 128, 0.8); border-radius: 4px; '
        f'overflow: hidden"><div style="height: 8px; width: {100 * share:.1f}%; background: {rgba(BAR, 0.9)}"></div>'
        "</div>"
        f"<span>{positions:,} of {limit:,} tokens · cache {in_bytes(now)} of {in_bytes(full)}</span></div>"
    )
