"""The shell of pages: one HTML file each, complete in itself, and what they are made of.

    render_page(title=…, lead=…, sections=[Section("Cuts", table(…) + chart), …], provenance={…})

A page opens from disk and asks the network for nothing: style, scripts, figures and numbers are
inside.  Scripts run by the hash that the page's own policy names, so that markup smuggled in by the
name of a clip or codec could not run even if it were not escaped, which it is.  `assets/page.js`
describes what scripts find on a page.

Needs the extra `page`.  Measures nothing, draws nothing, writes no files.
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
    "Cell",
    "Section",
    "embedded_json",
    "fragment",
    "numbers",
    "render_page",
    "table",
]

ASSETS = Path(__file__).with_name("assets")
MISSING = "–"
NUMBER = re.compile(r"[+\-−±]?[\d,.  ]+(e[+-]?\d+)?( ?(%|s|ms|B|kB|MB|px|dB))?")

Cell = str | float | None


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a page.

    `body` is HTML and trusted: build it with `table`, `numbers` and `fragment`, which escape what
    they are given.  `anchor` defaults to the title as a slug.  `note` is plain text under the
    heading.
    """

    title: str
    body: str
    anchor: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        """Derive the anchor."""
        slug = re.sub(r"[^a-z0-9]+", "-", (self.anchor or self.title).lower()).strip("-")
        object.__setattr__(self, "anchor", slug or "section")


def fragment(template: str, *folders: Path, **values: Any) -> Markup:  # noqa: ANN401 - whatever the template takes
    """Render one of the templates here, or in other folders; values are escaped unless they are
    `Markup`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, ASSETS]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return Markup(environment.get_template(template).render(values))


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def render_page(
    *,
    title: str,
    lead: str,
    sections: Sequence[Section],
    provenance: Mapping[str, Any],
    payload: Mapping[str, Any] | None = None,
    scripts: Sequence[str] = (),
    style: str = "",
) -> str:
    """Make a page.

    Args:
        title: plain text.
        lead: plain text, a sentence or two below the title.
        sections: in order; a section on provenance follows by itself.
        provenance: `command`, `commit`, `date`, `versions` and `machine`, or whatever of it there
            is; nested mappings become lists.
        payload: what scripts find as `page.payload`; JSON without NaN and infinities.
        scripts: JavaScript sources, run in order after those of the shell.
        style: CSS behind that of the shell.

    Raises:
        ValueError: two sections have one anchor, a script would end its own element, or the payload
            is no JSON.
    """
    anchors = [section.anchor for section in sections]
    if len(set(anchors)) < len(anchors) or "provenance" in anchors:
        raise ValueError(f"anchors {anchors}: expected all different, and none called provenance")
    sources = [_asset("page.js"), *scripts]
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
        css=Markup(_asset("page.css") + style),
        payload=None if payload is None else embedded_json(payload),
        scripts=[Markup(source) for source in sources],
    )


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
