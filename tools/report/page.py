"""The pages of the studies: the shell of `codec.pages`, and what only studies put into it, figures
of matplotlib, Plotly where charts are wanted, templates and style of their own.

Measures nothing, draws no figures (`figures.py` does), writes no files.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from codec.pages import shell
from codec.pages.shell import Section

__all__ = ["CHARTS", "asset", "embedded_figure", "fragment", "render_page"]

ASSETS = Path(__file__).with_name("page_assets")

CHARTS = "plotly"
"""Stands for plotly.js among the scripts of a page; 4.8 MB, so only for pages with charts."""

THEMED = {"#1b1f24": "ink", "#5b6570": "muted", "#dfe3e7": "line", "#ffffff": "card"}
"""Inks of `tools/report/figures.py`, and what they are called in `page.css`."""


def asset(name: str) -> str:
    """Read a file that lies beside the templates."""
    return (ASSETS / name).read_text(encoding="utf-8")


def fragment(template: str, **values: Any) -> Markup:  # noqa: ANN401 - whatever the template takes
    """Render one of the templates; values are escaped unless they are `Markup`."""
    return shell.fragment(template, ASSETS, **values)


def render_page(
    *,
    title: str,
    lead: str,
    sections: Sequence[Section],
    provenance: Mapping[str, Any],
    payload: Mapping[str, Any] | None = None,
    scripts: Sequence[str] = (),
) -> str:
    """Make a page as `shell.render_page` does; `CHARTS` stands for plotly.js among the scripts."""
    return shell.render_page(
        title=title,
        lead=lead,
        sections=sections,
        provenance=provenance,
        payload=payload,
        scripts=[_plotly() if script == CHARTS else script for script in scripts],
        style=asset("rate_distortion.css"),
    )


def _plotly() -> str:
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - only pages with charts need it

    return str(get_plotlyjs())


def embedded_figure(path: Path, caption: str) -> Markup:
    """Make a card of a figure that `tools.report.figures.save` wrote, or of any SVG or PNG.

    An SVG becomes part of the page, its inks those of the theme; its file is trusted.

    Args:
        path: the file, or the stem that `save` was given; of a stem, the SVG is taken.
        caption: plain text; what a screen reader says, too.
    """
    if path.suffix not in {".svg", ".png"}:
        path = path.with_name(path.name + ".svg")
    if path.suffix == ".png":
        picture = Markup('<img src="{}" alt="{}">').format(_base64_uri(path), caption)
    else:
        picture = _themed_svg(path.read_text(encoding="utf-8"), caption)
    return shell.fragment("figure.html", picture=picture, caption=caption)


def _base64_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _themed_svg(source: str, label: str) -> Markup:
    """Make an SVG of matplotlib fit to stand among others in a page."""
    prefix = "f" + hashlib.sha256(source.encode()).hexdigest()[:8]
    body = re.sub(r"<metadata>.*?</metadata>", "", source, flags=re.DOTALL)
    # its one style rule would hold for the whole page; the attributes below say the same
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    opening, inside = body[body.index("<svg") :].split(">", 1)
    # ids are unique within a figure only
    inside = re.sub(r'\bid="', f'id="{prefix}-', inside)
    inside = re.sub(r'href="#', f'href="#{prefix}-', inside)
    inside = inside.replace("url(#", f"url(#{prefix}-")
    for ink, name in THEMED.items():
        inside = inside.replace(ink, f"var(--{name})")
    box = re.search(r'viewBox="([\d. -]+)"', opening)
    if box is None:
        raise ValueError("an SVG without a viewBox")
    width = float(box[1].split()[2])
    return Markup(
        '<svg role="img" aria-label="{label}" viewBox="{box}" stroke-linejoin="round" '
        'stroke-linecap="butt" style="max-width: {width:.0f}px">'
    ).format(label=label, box=box[1], width=width * 1.6) + Markup(inside)
