"""The page of a plan."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from codec.pages.shell import Section, numbers, render_page, table
from codec.planning.certainty import Ranking
from codec.planning.charts import bars, in_both_widths, numbers_of, over_rates, trade_off
from codec.planning.plan import Plan, Row
from codec.planning.search import KEYINT
from codec.planning.table import MILLI, described, notes, rates_shown

__all__ = ["plan_page"]

STYLE = Path(__file__).with_name("plan.css")
SPACE = "\N{NO-BREAK SPACE}"
FIGURES = ("top1_agreement", "ap", "mask_iou", "miou")
"""Shares that people know better than losses, of which a task has at most a few."""


def plan_page(plan: Plan) -> str:
    """Make the page."""
    card = Markup('<figure class="card">{}<figcaption>{}</figcaption></figure>')
    sections = [
        Section("Answer", _answer(plan)),
        Section(
            "Latency",
            card.format(
                bars(plan),
                "Milliseconds of a frame that waits for no other. Brackets: where 95 % of the "
                "resamplings lie.",
            ),
            note="What a frame passes on its way to an answer at the cloud.",
        ),
        Section(
            "Rate and work",
            card.format(
                in_both_widths(lambda width: trade_off(plan, width)),
                "The line joins what nothing undercuts in both. R: pixels by x265. E: the whole "
                "network at the edge, which sends its answer alone. Vertical lines: where 95 % of "
                "the resamplings lie.",
            ),
            note="Down and to the left is better: fewer bytes, less work at the edge.",
        ),
        Section(
            "Other links",
            card.format(
                in_both_widths(lambda width: over_rates(plan, width)),
                "The strip says who has the least latency. The dashed line is the link asked "
                f"about. {rates_shown(plan)}",
            ),
            note=f"The same over other rates, round trip {MILLI * plan.terms.link.rtt_seconds:g} "
            "ms.",
        ),
        Section("Figures", _figures(plan)),
        Section("How this was measured", _list(notes(plan))),
    ]
    return render_page(
        title=f"Where to cut {plan.settings['model']}",
        lead=described(plan) + ".",
        sections=sections,
        provenance=plan.provenance,
        style=STYLE.read_text(encoding="utf-8"),
    )


def _answer(plan: Plan) -> Markup:
    said, cards = plan.rankings, []
    for label, key, figure in (
        ("Least latency of all", "latency", "latency"),
        ("Least latency of the cuts", "latency_of_cuts", "latency"),
        ("Fewest bytes", "rate", "bytes"),
        ("Least work at the edge of the cuts", "edge_load_of_cuts", "load"),
    ):
        if key in said:
            row = plan.row(said[key].best)
            cards.append((label, row.name, f"{_value(row, figure)}; {_sure(said[key])}"))
    return numbers(cards) + _list(plan.remarks() if cards else plan.findings())


def _value(row: Row, figure: str) -> str:
    if figure == "latency":
        return f"{MILLI * row.estimate.latency_seconds:.0f} ms"
    if figure == "bytes":
        return f"{row.stages.bytes_sent:,.0f} bytes a frame"
    return f"{MILLI * row.estimate.edge_load_seconds:.0f} ms a frame"


def _sure(ranking: Ranking) -> str:
    sure = f"best in {100 * ranking.share:.0f} % of the resamplings"
    return f"{sure}, not told apart from {', '.join(ranking.rivals)}" if ranking.rivals else sure


def _list(lines: list[str]) -> Markup:
    items = Markup("").join(Markup("<li>{}</li>").format(line) for line in lines)
    return Markup('<ul class="lines">{}</ul>').format(items)


def _figures(plan: Plan) -> Markup:
    short = numbers_of(plan)
    settings, power = plan.settings, plan.terms.power is not None
    shares = [name for name in FIGURES if any(name in row.figures for row in plan.rows)]
    header = ["cut", "elements", "edge, ms", "encode, ms", "bytes", "95 %", "link, ms"]
    header += ["decode, ms", "cloud, ms", "latency, ms", "of a key frame, ms", "frames/s"]
    header += ["bound by", *(["edge, J"] if power else []), f"{settings['loss']} near by"]
    header += [name.replace("_", " ") for name in shares] + ["qp or crf"]
    rows = []
    slowdown = plan.terms.edge_slowdown
    for row in plan.rows:
        stages, found = row.stages, row.estimate
        times = [
            stages.edge_seconds * slowdown,
            stages.encode_seconds * slowdown,
            found.link_seconds,
            stages.decode_seconds,
            stages.cloud_seconds,
            found.latency_seconds,
            row.key_frame_latency_seconds,
        ]
        edge, encode, link, decode, cloud, latency, key = (f"{MILLI * each:.1f}" for each in times)
        sends = bool(row.parameters)
        low, high = row.bytes_interval
        rows.append(
            [
                f"{short[row.name]}{SPACE}{row.name}",
                row.facts.get("elements"),
                edge,
                encode,
                f"{stages.bytes_sent:,.0f}",
                f"{low:,.0f}{SPACE}…{SPACE}{high:,.0f}" if sends else None,
                link,
                decode,
                cloud,
                latency,
                key,
                f"{found.frames_per_second:.1f}",
                found.bottleneck,
                *([f"{found.edge_joules:.3g}"] if found.edge_joules is not None else []),
                f"{row.loss:.3g}" if row.loss is not None else None,
                *(f"{row.figures[name]:.3f}" if name in row.figures else None for name in shares),
                ", ".join(map(str, row.parameters)) if sends else None,
            ]
        )
    caption = (
        f"Edge and encode on the edge device. Bytes with one key frame in {KEYINT}, interpolated "
        f"at {settings['loss']} {settings['target']:g}; what stands behind is of the measured "
        "point nearest to it."
    )
    words = header.index("bound by")
    made = table(
        header,
        rows,
        caption,
        numeric=[column for column in range(1, len(header)) if column != words],
    )
    if plan.refused:
        made += table(
            ["refused", "why"], [[each["split"], each["reason"]] for each in plan.refused]
        )
    return made
