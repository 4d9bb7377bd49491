"""The shell of pages: one HTML file each, complete in itself, and what they are made of.

    render_page(title=…, lead=…, sections=[Section("Curves", table(…) + embedded_figure(…)), …],
                provenance=study["provenance"])

A page opens from disk and asks the network for nothing: style, scripts, Plotly (only where charts
are wanted), figures and numbers are inside.  Scripts run by the hash that the page's own policy
names, so that markup smuggled in by the name of a clip or codec could not run even if it were not
escaped, which it is.  `page_assets/page.js` describes what scripts find on a page.

Measures nothing, draws no figures (`figures.py` does), writes no files.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

__all__ = [
    "CHARTS",
    "Cell",
    "Section",
    "asset",
    "embedded_figure",
    "fragment",
    "numbers",
    "render_page",
    "table",
]

ASSETS = Path(__file__).with_name("page_assets")

CHARTS = "plotly"
"""Stands for plotly.js among the scripts of a page; 4.8 MB, so only for pages with charts."""

MISSING = "–"
THEMED = {"#1b1f24": "ink", "#5b6570": "muted", "#dfe3e7": "line", "#ffffff": "card"}
"""Inks of `tools/report/figures.py`, and what they are called in `page.css`."""
NUMBER = re.compile(r"[+\-−±]?[\d,.  ]+(e[+-]?\d+)?( ?(%|s|ms|B|kB|MB|px|dB))?")

Cell = str | float | None


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a page.

    `body` is HTML and trusted: build it with `table`, `embedded_figure` and `fragment`, which
    escape what they are given.  `anchor` defaults to the title as a slug.  `note` is plain text
    under the heading.
    """

    title: str
    body: str
    anchor: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        """Derive the anchor."""
        slug = re.sub(r"[^a-z0-9]+", "-", (self.anchor or self.title).lower()).strip("-")
        object.__setattr__(self, "anchor", slug or "section")


def asset(name: str) -> str:
    """Read a file that lies beside the templates."""
    return (ASSETS / name).read_text(encoding="utf-8")


def fragment(template: str, **values: Any) -> Markup:  # noqa: ANN401 - whatever the template takes
    """Render one of the templates; values are escaped unless they are `Markup`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return Markup(environment.get_template(template).render(values))


def render_page(
    *,
    title: str,
    lead: str,
    sections: Sequence[Section],
    provenance: Mapping[str, Any],
    payload: Mapping[str, Any] | None = None,
    scripts: Sequence[str] = (),
) -> str:
    """Make a page.

    Args:
        title: plain text.
        lead: plain text, a sentence or two below the title.
        sections: in order; a section on provenance follows by itself.
        provenance: `command`, `commit`, `date`, `versions` and `machine`, or whatever of it there
            is; nested mappings become lists.
        payload: what scripts find as `page.payload`; JSON without NaN and infinities.
        scripts: JavaScript sources, run in order after those of the shell; `CHARTS` stands for
            plotly.js.

    Raises:
        ValueError: two sections have one anchor, a script would end its own element, or the payload
            is no JSON.
    """
    anchors = [section.anchor for section in sections]
    if len(set(anchors)) < len(anchors) or "provenance" in anchors:
        raise ValueError(f"anchors {anchors}: expected all different, and none called provenance")
    sources = [asset("page.js"), *(_plotly() if script == CHARTS else script for script in scripts)]
    sources = [source.replace("\r\n", "\n") for source in sources]  # what a browser takes hashes of
    for source in sources:
        if "</script" in source.lower():
            raise ValueError("a script holds '</script', which would end its element")
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
        for source in sources
    )
    return fragment(
        "page.html",
        title=title,
        lead=lead,
        sections=sections,
        provenance=_provenance(provenance),
        policy=(
            f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
            f"script-src {hashes}"
        ),
        css=Markup(asset("page.css")),
        payload=None if payload is None else embedded_json(payload),
        scripts=[Markup(source) for source in sources],
    )


def _plotly() -> str:
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - only pages with charts need it

    return str(get_plotlyjs())


def embedded_json(payload: Mapping[str, Any]) -> Markup:
    """Serialise for a script element, which no string in it can end.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(payload, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _provenance(provenance: Mapping[str, Any]) -> Markup:
    entries = {
        key: ", ".join(f"{name} {value}" for name, value in found.items())
        if isinstance(found, Mapping)
        else str(found)
        for key, found in provenance.items()
    }
    return fragment("provenance.html", command=entries.pop("command", ""), entries=entries)


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    caption: str = "",
    *,
    numeric: Sequence[int] | None = None,
    totals: int = 0,
) -> Markup:
    """Lay out a table that scrolls sideways where it must, its first column staying in sight.

    Args:
        header: one name for each column.
        rows: text, escaped unless it is `Markup`; numbers, floats to four digits; None as a dash.
        caption: plain text.
        numeric: which columns are set flush right; default: those that hold nothing but numbers.
        totals: how many rows at the end are set off from the others.

    Raises:
        ValueError: a row has more or fewer cells than the header.
    """
    texts = [[_cell(cell) for cell in row] for row in rows]
    for row in texts:
        if len(row) != len(header):
            raise ValueError(f"a row of {len(row)} cells under a header of {len(header)}: {row}")
    if numeric is None:
        columns = zip(*texts, strict=True)
        numeric = [number for number, column in enumerate(columns) if all(map(_is_number, column))]
    return fragment(
        "table.html",
        header=header,
        rows=texts,
        caption=caption,
        numeric=set(numeric),
        first_total=len(texts) - totals,
    )


def _cell(cell: Cell) -> Markup:
    if cell is None:
        return Markup(MISSING)
    if isinstance(cell, str):
        return escape(cell)
    if isinstance(cell, int):
        return Markup(f"{cell:,}")
    return Markup(f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.4g}")


def _is_number(text: Markup) -> bool:
    shown = html.unescape(re.sub(r"<small>.*?</small>|<[^>]*>", "", text)).strip()
    return shown in {"", MISSING} or NUMBER.fullmatch(shown) is not None


def numbers(items: Sequence[tuple[str, str, str]]) -> Markup:
    """Lay out headline numbers: (label, value, note), each in a card."""
    return fragment("numbers.html", items=items)


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
    return fragment("figure.html", picture=picture, caption=caption)


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
