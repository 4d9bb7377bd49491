"""A plan of made-up figures, for the tests of its arithmetic and of its page."""

from __future__ import annotations

from typing import Any

from codec.planning.plan import EDGE_ONLY, REMOTE, Option, Plan
from codec.planning.search import Curve, Point
from codec.planning.stages import Link, Terms

TARGET = 0.1
FRAMES, TIMED = 8, 4
TERMS = Terms(Link(1e6, 0.06), edge_slowdown=8)


def curve(key: int, inter: int, *, spread: float = 0.0, at: int = 24) -> Curve:
    """Two points around the target, at it in the middle of their logarithms; frames differ by a
    share.
    """
    wave = [1 + spread * (-1) ** (number // 2) for number in range(FRAMES)]
    points = [
        Point(
            at - 2 if fine else at + 2,
            tuple(TARGET * (0.5 if fine else 2.0) * each for each in wave),
            (key, *(round(inter * (2 if fine else 0.5) * each) for each in wave[1:])),
            {"top1_agreement": 1.0 if fine else 0.75},
        )
        for fine in (True, False)
    ]
    return Curve(points, TARGET)


def times(**milliseconds: float) -> dict[str, tuple[float, ...]]:
    return {stage: (each / 1000,) * TIMED for stage, each in milliseconds.items()}


FACTS = {"elements": 1000, "tensors": [[10, 10, 10]], "profile": "shipped", "profile_bytes": 9000}


def make_options(names: tuple[str, str] = ("early", "late"), spread: float = 0.0) -> list[Option]:
    """An early cut with many bytes, a late one with few, x265 and the edge alone."""
    early, late = names
    return [
        Option(
            early,
            "cut",
            (curve(3200, 3200, spread=spread),),
            times(edge=2, encode=1, decode=1, cloud=8),
            FACTS,
        ),
        Option(
            late,
            "cut",
            (curve(800, 800, spread=spread),),
            times(edge=9, encode=1, decode=1, cloud=1),
            FACTS,
        ),
        Option(
            REMOTE,
            "remote",
            (curve(12800, 12800, spread=spread),),
            times(encode=2, decode=1, cloud=10),
            {"pixel_format": "yuv420p"},
        ),
        Option(EDGE_ONLY, "edge", (), times(edge=10)),
    ]


def make_plan(terms: Terms = TERMS, **given: Any) -> Plan:
    names = given.pop("names", ("early", "late"))
    options = given.pop("options", None) or make_options(names, given.pop("spread", 0.0))
    settings = {
        "model": given.pop("model", "small"),
        "weights": "default",
        "task": "classification",
        "loss": "kl",
        "target": TARGET,
        "effort": 4,
        "clips": given.pop("clips", ["clip.mp4"]),
        "frames": [FRAMES],
        "input_width": 64,
        "input_height": 64,
        "cuts": "made up",
        "profiles": "shipped",
        "x265": "libx265 216",
    }
    provenance = {"command": "lmc plan clip.mp4", "versions": {"torch": "2.9"}}
    return Plan(options, terms, settings, provenance, **given)
