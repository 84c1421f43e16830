"""A plot of first and unchanged syncs as SVG: a panel for each repository, a bar for each contender.

Written by hand, so that the same figures give the same file wherever it is made.
"""

from __future__ import annotations

from html import escape

from benchmarks.results import SyncResults
from benchmarks.syncs.contender import FIRST, UNCHANGED
from benchmarks.syncs.tables import contenders

_WIDTH, _NAME_WIDTH, _FIGURE_WIDTH = 760, 190, 60
_BAR, _GAP, _HEAD, _MARGIN = 11, 8, 34, 16
_OURS, _OTHERS = "#1f77b4", "#8c8c8c"
_STYLE = (
    "text{font:12px sans-serif;fill:#222}.title{font-weight:bold}.small{font-size:10px;fill:#555}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.small{fill:#aaa}}"
)


def svg(results: SyncResults, network: str) -> str:
    """The plot of one network. Panels have a scale each; where nothing was measured there is no bar."""
    text = f"Median seconds of a first sync, and below it, lighter, of an unchanged one; {network}"
    parts = [f'<text x="{_MARGIN}" y="{_MARGIN + 8}" class="small">{escape(text)}</text>']
    top = 2 * _MARGIN + 8
    for shape, content in results.contents.items():
        panel, height = _panel(results, network, shape, content, top)
        parts += panel
        top += height
    title = f"<title>{escape(text)}</title>"
    size = f'viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}"'
    body = "\n".join([title, f"<style>{_STYLE}</style>", *parts])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n{body}\n</svg>\n'


def _panel(results: SyncResults, network: str, shape: str, content: str, top: int) -> tuple[list[str], int]:
    names = [name for name in contenders(results, network) if results.median(network, shape, name, FIRST) is not None]
    if not names:
        return [], 0
    both = {name: [results.median(network, shape, name, which) for which in (FIRST, UNCHANGED)] for name in names}
    longest = max(seconds for medians in both.values() for seconds in medians if seconds is not None)
    parts = [
        f'<text x="{_MARGIN}" y="{top + 12}" class="title">{escape(shape)}</text>',
        f'<text x="{_NAME_WIDTH}" y="{top + 12}" class="small">{escape(content)}</text>',
    ]
    y = top + _HEAD - 10
    for name, medians in both.items():
        parts.append(f'<text x="{_NAME_WIDTH - 8}" y="{y + _BAR + 4}" text-anchor="end">{escape(name)}</text>')
        color = _OURS if "our" in name or name.startswith("registry-sync") else _OTHERS
        for seconds, opacity in zip(medians, (1.0, 0.45), strict=True):
            if seconds is not None:
                parts += _bar(seconds, longest, y, f'fill="{color}" fill-opacity="{opacity}"')
            y += _BAR
        y += _GAP
    return parts, y - top + _GAP


def _bar(seconds: float, longest: float, y: int, fill: str) -> list[str]:
    width = max(1.0, (_WIDTH - _NAME_WIDTH - _FIGURE_WIDTH) * seconds / longest)
    return [
        f'<rect x="{_NAME_WIDTH}" y="{y}" width="{width:.1f}" height="{_BAR}" {fill}/>',
        f'<text x="{_NAME_WIDTH + width + 4:.1f}" y="{y + _BAR - 2}" class="small">{seconds:.2f} s</text>',
    ]
