"""A plan as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from codec.planning.plan import Plan, Row
from codec.planning.search import KEYINT
from codec.planning.stages import Terms

__all__ = ["described", "notes", "plan_text", "rate_shown", "rates_shown"]

MILLI = 1000


def described(plan: Plan) -> str:
    """Say in one line what the plan is of."""
    settings, terms = plan.settings, plan.terms
    frames = settings["frames"]
    few = f"{frames[0]}" if len(set(frames)) == 1 else f"{min(frames)} to {max(frames)}"
    return (
        f"{settings['model']}, {', '.join(settings['clips'])} ({few} frames), "
        f"{rate_shown(terms.link.bits_per_second)}, round trip "
        f"{MILLI * terms.link.rtt_seconds:g} ms, edge {terms.edge_slowdown:g} times slower, "
        f"effort {settings['effort']}, {settings['loss']} {settings['target']:g}"
    )


def plan_text(plan: Plan) -> str:
    """Lay a plan out: the options, what follows, and what the figures are of."""
    power = plan.terms.power is not None
    header = ["cut", "edge", "encode", "bytes", "link", "decode", "cloud", "latency", "(95 %)"]
    header += ["frames/s", "bound by", *(["edge J"] if power else [])]
    table = [header, *(_cells(row, plan.terms) for row in plan.rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    lines = [described(plan), "milliseconds of a frame, edge and encode on the edge device:", ""]
    for row in table:
        first, *rest = row
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    lines += ["", *plan.findings(), rates_shown(plan)]
    lines += [f"refused: {each['split']}: {each['reason']}" for each in plan.refused]
    return "\n".join([*lines, "", *notes(plan)])


def _cells(row: Row, terms: Terms) -> list[str]:
    stages, found = row.stages, row.estimate
    low, high = (MILLI * value for value in row.latency_interval_seconds)
    cells = [
        row.name if row.reached else f"{row.name} (loss {row.loss:.3g})",
        _ms(stages.edge_seconds * terms.edge_slowdown),
        _ms(stages.encode_seconds * terms.edge_slowdown),
        f"{stages.bytes_sent:.0f}",
        _ms(found.link_seconds),
        _ms(stages.decode_seconds),
        _ms(stages.cloud_seconds),
        _ms(found.latency_seconds),
        f"{low:.0f}…{high:.0f}",
        f"{found.frames_per_second:.1f}",
        found.bottleneck,
    ]
    return cells if found.edge_joules is None else [*cells, f"{found.edge_joules:.3g}"]


def _ms(seconds: float) -> str:
    value = MILLI * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def rate_shown(bits_per_second: float) -> str:
    """Write a rate with three digits."""
    bits_per_second = float(f"{bits_per_second:.3g}")  # which may be a larger unit's
    for size, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
        if bits_per_second >= size:
            return f"{bits_per_second / size:.3g} {unit}"
    return f"{bits_per_second:.3g} bit/s"


def rates_shown(plan: Plan) -> str:
    """Say which option has the least latency at which rates."""
    parts = []
    for each in plan.rates:
        start = rate_shown(each.from_bits_per_second) if each.from_bits_per_second else ""
        if each.to_bits_per_second is None:
            parts.append(f"{each.best} from {start} on" if start else f"{each.best} at any")
        elif start:
            parts.append(f"{each.best} to {rate_shown(each.to_bits_per_second)}")
        else:
            parts.append(f"{each.best} below {rate_shown(each.to_bits_per_second)}")
    return f"Least latency by rate of the link: {', '.join(parts)}."


def notes(plan: Plan) -> list[str]:
    """Say what the figures are of, and what they leave out."""
    settings: Mapping[str, Any] = plan.settings
    once = [row.facts["profile_bytes"] for row in plan.rows if "profile_bytes" in row.facts]
    pixels = next((row.facts["pixel_format"] for row in plan.rows if row.kind == "remote"), None)
    lines = [
        f"Cuts: {settings['cuts']}.",
        f"Profiles: {settings['profiles']}. They go over once, {min(once) / 1000:.0f} to "
        f"{max(once) / 1000:.0f} kB, which is not counted.",
        "Times are processor seconds of one thread here, those of the edge times the slowdown, the "
        f"encoder's too, of inter frames; taken again they were {100 * plan.times_excess:.0f} % "
        "longer. Reading and resizing the video is left out, which is the same for all, and "
        "conversion between RGB and YCbCr at either end, since cameras give what is asked for.",
        f"Bytes are for one key frame in {KEYINT}, without container and transport, at the loss "
        "between two measured points; a key frame alone takes several times that.",
        "The answer is wanted at the cloud: all take half a round trip.",
    ]
    if pixels is not None:
        lines.append(
            f"x265 ({settings['x265']}) codes what the network sees, preset medium, low delay, "
            f"{pixels}, by software: a camera with an encoder of its own has the time of encoding "
            "for nothing."
        )
    power = plan.terms.power
    if power is not None:
        lines.append(
            f"Energy: the edge device takes {power.edge_watts:g} W while it computes, its radio "
            f"{power.radio_watts:g} W while it sends."
        )
    return lines
