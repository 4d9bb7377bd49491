"""A rate-distortion study as a value: measured points, what follows from them, and their files.

    results of jobs ──► Study ──► results.csv   a row per clip × codec × point, with its provenance
                          │       frames.csv    a row per frame of each
                          │       study.json    all of it, comparisons and pictures included
                          └─ comparisons, averages, findings

`Study.to_json` returns

    format       1
    provenance   command, commit, date, versions, machine
    settings     model, weights, frames, test, kl, splits, clips, task
    points       one object per clip × codec × point: the columns of results.csv, `seconds` by
                 stage, `parameters`, and `per_frame`: kl, top1, dense, or the figures of another
                 task; bytes, and bytes by part
    refused      clip, split, codec, variant, point, reason
    comparisons  every test against every other codec, by BD-rate and BD-KL, clip by clip; where
                 the task is another than classification, by BD-rate at equal loss of each measure
    fidelities   what is kept, at equal KL, of what an encoder may not have chosen by
    averages     points that all clips share, averaged over the clips, with intervals
    findings     in words: where the tests are strongest and weakest
    showcases    see `tools/rate_distortion/showcase.py`

Nothing here measures or draws.
"""

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np

from tools.rate_distortion.bd_rate import (
    LOSSLESS,
    MARGIN,
    MEASURES,
    Comparison,
    Curve,
    bootstrap,
    envelope,
)
from tools.rate_distortion.measures import (
    CLASSIFICATION,
    Measure,
    lead_of,
    measures_in,
    measures_of,
)
from tools.running.outputs import write_text

__all__ = [
    "ANSWERS",
    "COLUMNS",
    "FILES",
    "Study",
    "curves",
    "limits_option",
    "percent",
    "read_points",
    "rows_of",
]

Point = Mapping[str, Any]

STAGES = ("video", "edge", "motion", "encode", "decode", "cloud")
PARTS = ("header", "motion", "residual")
KEY = ("clip", "model", "weights", "split", "codec", "variant", "point", "frames")
RATES = ("bytes", "bytes_per_frame", "kbit_per_s", "bits_per_element")
FIGURES = (*RATES, *(measure.name for measure in CLASSIFICATION))
PROVENANCE = ("parameters", "date", "commit", "versions", "machine", "command")
BEHIND = (
    *(f"bytes_{part}" for part in PARTS),
    *(f"seconds_{stage}" for stage in STAGES),
    "peak_memory_mb",
    *PROVENANCE,
)
COLUMNS = (*KEY, *FIGURES, *BEHIND)
"""Of a classification."""

FIDELITIES = ("bytes_per_frame", "top1_agreement", "dense_agreement", "nrmse")

FILES = ("results.csv", "frames.csv", "study.json")
"""What `Study.write` writes."""
OWN = "lmc"
"""What the names of our own codec and its variants begin with."""
ANSWERS = ("labels",)
"""Anchors of another kind: they send the answer, and no features to compute anything from."""


def curves(
    points: Iterable[Point], measure: Measure = CLASSIFICATION[0]
) -> dict[tuple[str, str], dict[str, Curve]]:
    """Make the curve of every split, codec and clip: split, codec -> clip -> curve.

    All variants of a codec make one curve.  The split of what does not depend on one is empty.
    """
    groups: dict[tuple[str, str, str], list[Point]] = defaultdict(list)
    for point in points:
        groups[point["split"], point["codec"], point["clip"]].append(point)
    found: dict[tuple[str, str], dict[str, Curve]] = defaultdict(dict)
    for (split, codec, clip), members in groups.items():
        frames = {member["frames"] for member in members}
        if len(frames) > 1:
            raise click.ClickException(
                f"{clip}, {codec}: measured over {' and '.join(map(str, sorted(frames)))} frames; "
                "a curve has one number of frames"
            )
        found[split, codec][clip] = Curve.from_points(
            (
                (member["bytes_per_frame"], loss)
                for member in members
                if (loss := measure.loss(member)) is not None
            ),
            frames.pop(),
        )
    return dict(found)


@dataclass(frozen=True)
class Study:
    """Settings and measured points; everything else follows.

    Args:
        settings: as in the module's docstring; `test` names the codecs that are compared with all
            others, `kl` the range in which; `task` is classification if it is not there.
        provenance: of the command that put it together.
        points: measured.
        refused: what codecs would not code, and why.
        showcases: pictures.
    """

    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    points: Sequence[Point]
    refused: Sequence[Point] = ()
    showcases: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    @property
    def splits(self) -> list[str]:
        """Name the splits."""
        return [split["name"] for split in self.settings["splits"]]

    @property
    def task(self) -> str:
        """Name the task."""
        return str(self.settings.get("task", "classification"))

    @property
    def lead(self) -> Measure:
        """Return the measure that curves, summary and findings go by."""
        return lead_of(self.task)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Return those of the task that were measured."""
        return tuple(
            measure
            for measure in measures_of(self.task)
            if self.task == "classification"
            or any(point.get(measure.name) is not None for point in self.points)
        )

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Compare every test with every other codec at every split, by each measure in turn."""
        return [
            one
            for measure in self.measures
            if measure.compared
            for one in self._comparisons(measure)
        ]

    def _comparisons(self, over: Measure) -> list[Comparison]:
        classifies = self.task == "classification"
        limits = tuple(self.settings["kl"]) if classifies else (0.0, math.inf)
        measures = tuple(MEASURES) if classifies else ("bd_rate",)
        found = curves(self.points, over)
        names = list(dict.fromkeys(point["codec"] for point in self.points))
        comparisons = []
        for split in self.splits:
            for test in self.settings["test"]:
                own = found.get((split, test)) or found.get(("", test))
                if own is None:
                    continue
                for anchor in names:
                    other = found.get((split, anchor)) or found.get(("", anchor))
                    if anchor == test or other is None or not any(c.front for c in other.values()):
                        continue
                    comparisons += [
                        Comparison.of(
                            split,
                            (test, anchor),
                            other,
                            own,
                            limits=limits,
                            measure=measure,
                            figure=over.name,
                        )
                        for measure in measures
                    ]
        return comparisons

    def compared(self, split: str, test: str, over: Measure | None = None) -> list[Comparison]:
        """Return the BD-rates of a test at a split, one for each other codec: at equal loss of the
        lead, or of another measure.
        """
        wanted = (split, test, "bd_rate", (over or self.lead).name)
        return [
            one
            for one in self.comparisons
            if (one.split, one.test, one.measure, one.figure) == wanted
        ]

    def fidelities(self) -> list[dict[str, Any]]:
        """Interpolate every codec's points at one KL; means over the clips that reach it on both
        sides.  Of other tasks there is no such loss that fits all networks, and no rows.
        """
        equal = self.lead.equal
        if equal is None:
            return []
        groups: dict[tuple[str, str], dict[str, list[Point]]] = defaultdict(dict)
        for point in self._tests_first():
            clips = groups[point["split"], point["codec"]]
            clips.setdefault(point["clip"], []).append(point)
        rows = []
        for (split, codec), clips in groups.items():
            found = [_at_equal_kl(points, equal) for points in clips.values()]
            reached = [one for one in found if one is not None]
            if reached:
                row: dict[str, Any] = {"split": split, "codec": codec, "kl": equal}
                row["clips"] = len(reached)
                for name in FIDELITIES:
                    values = [value for one in reached if (value := one[name]) is not None]
                    row[name] = float(np.mean(values)) if len(values) == len(reached) else None
                rows.append(row)
        return rows

    def averages(self) -> list[dict[str, Any]]:
        """Average the points that every clip has over the clips, with 95 % intervals."""
        clips = {clip["name"] for clip in self.settings["clips"]}
        groups: dict[tuple[Any, ...], list[Point]] = defaultdict(list)
        for point in self.points:
            groups[tuple(point[name] for name in ("split", "codec", "variant", "point"))].append(
                point
            )
        averages = []
        for (split, codec, variant, value), members in groups.items():
            if {member["clip"] for member in members} != clips or len(clips) < 2:
                continue
            average: dict[str, Any] = {
                "split": split,
                "codec": codec,
                "variant": variant,
                "point": value,
                "clips": len(members),
            }
            for name in (*RATES[1:], *(measure.name for measure in self.measures)):
                values = [member[name] for member in members if member.get(name) is not None]
                average[name] = float(np.mean(values)) if len(values) == len(members) else None
                if name in {"bytes_per_frame", self.lead.name}:
                    average[f"{name}_interval"] = bootstrap(values)
            averages.append(average)
        return averages

    def findings(self) -> list[str]:
        """Say where each test is strongest and weakest, and whether its own tools pay."""
        lines = []
        tests = self.settings["test"]
        for split in self.splits:
            for test in tests:
                rates = [one for one in self.compared(split, test) if one.figures()]
                others = [one for one in rates if not one.anchor.startswith(OWN)]
                anchors = [one for one in others if one.anchor not in ANSWERS]
                answers = [one for one in others if one.anchor in ANSWERS]
                if anchors:
                    lines.append(_against_anchors(split, test, anchors))
                lines += [_against_answer(split, test, one) for one in answers]
                own = [one for one in rates if one.anchor.startswith(OWN)]
                own = [one for one in own if one.anchor not in tests]
                if own and test == OWN:
                    lines.append(_against_itself(split, own))
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON can say it."""
        return {
            "format": 1,
            "provenance": dict(self.provenance),
            "settings": dict(self.settings),
            "points": [dict(point) for point in self._tests_first()],
            "refused": [dict(one) for one in self.refused],
            "comparisons": [one.to_json() for one in self.comparisons],
            "fidelities": self.fidelities(),
            "averages": self.averages(),
            "findings": self.findings(),
            "showcases": [dict(one) for one in self.showcases],
        }

    def _frame_columns(self) -> tuple[str, ...]:
        told = ["kl", "top1", "dense"]
        if self.task != "classification":
            told = list(
                dict.fromkeys(
                    name
                    for point in self.points
                    for name in point["per_frame"]
                    if name not in {"bytes", "parts"}
                )
            )
        return (*KEY, "frame", *told, "bytes", *(f"bytes_{part}" for part in PARTS))

    def _tests_first(self) -> list[Point]:
        tests = self.settings["test"]
        return sorted(self.points, key=lambda point: point["codec"] not in tests)

    def write(self, folder: Path) -> None:
        """Write results.csv, frames.csv and study.json."""
        command = self.provenance["command"]
        names = [measure.name for measure in self.measures]
        texts = (
            _csv((*KEY, *RATES, *names, *BEHIND), _rows(self.points, names, command)),
            _csv(self._frame_columns(), _frame_rows(self.points)),
            json.dumps(self.to_json(), allow_nan=False),
        )
        for name, text in zip(FILES, texts, strict=True):
            write_text(folder / name, text)


def _at_equal_kl(points: Sequence[Point], equal: float) -> dict[str, float | None] | None:
    """Interpolate between the points of a clip next to a KL, in log KL and log rate; None if it
    lies outside of them.
    """
    cheapest = {
        pair: point
        for point in reversed(points)
        if (pair := (point["bytes_per_frame"], point["kl"])) and point["kl"] > LOSSLESS
    }
    front = [cheapest[pair] for pair in envelope(cheapest, margin=MARGIN)]
    for fine, coarse in pairwise(sorted(front, key=lambda point: float(point["kl"]))):
        if fine["kl"] <= equal <= coarse["kl"]:
            share = math.log(equal / fine["kl"]) / math.log(coarse["kl"] / fine["kl"])
            return {
                name: None
                if fine[name] is None or coarse[name] is None
                else float(fine[name] ** (1 - share) * coarse[name] ** share)
                if name == "bytes_per_frame"
                else float((1 - share) * fine[name] + share * coarse[name])
                for name in FIDELITIES
            }
    return None


def percent(value: float, digits: int = 0) -> str:
    """Write a signed percentage, with a minus sign that is one."""
    return f"{value:+.{digits}f} %".replace("-", "−")


def _against_anchors(split: str, test: str, anchors: Sequence[Comparison]) -> str:
    # a mean over fewer clips is another thing
    most = max(len(one.figures()) for one in anchors)
    means = {one.anchor: one.mean() or 0.0 for one in anchors if len(one.figures()) == most}
    strongest = max(means, key=lambda name: means[name])
    figures = [
        (value, clip, one.anchor) for one in anchors for clip, value in one.figures().items()
    ]
    clips = list(dict.fromkeys(clip for one in anchors for clip in one.clips))
    without = len(clips) * len(anchors) - len(figures)
    unknown = f" ({without} comparisons have no figure)" if without else ""
    beaten = sorted({clip for value, clip, _ in figures if value > 0})
    worst, clip, anchor = max(figures)
    first = (
        f"{split}, {test}: the strongest anchor is {strongest} ({percent(means[strongest])} on "
        f"average); weakest on {clip} against {anchor} ({percent(worst)})"
    )
    if not beaten:
        whole = sum(all(clip in one.figures() for one in anchors) for clip in clips)
        return (
            f"{first}; it needs the fewest bytes of all on {whole} of {len(clips)} clips{unknown}."
        )
    return (
        f"{first}; on {len(beaten)} of {len(clips)} clips some anchor needs fewer bytes: "
        f"{', '.join(beaten)}{unknown}."
    )


def _against_answer(split: str, test: str, answer: Comparison) -> str:
    figures = answer.figures()
    fewer = sum(value < 0 for value in figures.values())
    return (
        f"{split}, {test} against {answer.anchor}, which send the answer and no features: "
        f"{percent(answer.mean() or 0.0)} on average, fewer bytes on {fewer} of {len(figures)} "
        "clips."
    )


def _against_itself(split: str, own: Sequence[Comparison]) -> str:
    parts = []
    for one in own:
        worse = {clip: value for clip, value in one.figures().items() if value > 0}
        listed = ", ".join(f"{clip} {percent(value, 1)}" for clip, value in sorted(worse.items()))
        mean = f"{one.anchor} {percent(one.mean() or 0.0, 1)}"
        parts.append(f"{mean} (worse on {listed})" if worse else mean)
    return f"{split}, {OWN} against its own variants: " + "; ".join(parts) + "."


def _rows(points: Iterable[Point], names: Iterable[str], command: str) -> Iterator[dict[str, Any]]:
    figures = (*KEY, *RATES, *names, "peak_memory_mb", *PROVENANCE)
    for point in points:
        parts = point["per_frame"]["parts"]
        row = {name: point.get(name) for name in figures}
        row |= {f"bytes_{part}": round(sum(parts[part]), 2) for part in PARTS if part in parts}
        row |= {f"seconds_{stage}": point["seconds"].get(stage) for stage in STAGES}
        row |= {name: json.dumps(point[name]) for name in ("parameters", "versions", "machine")}
        yield row | {"command": command}


def _frame_rows(points: Iterable[Point]) -> Iterator[dict[str, Any]]:
    for point in points:
        frames = point["per_frame"]
        told = {name: found for name, found in frames.items() if name != "parts" and found}
        for number in range(point["frames"]):
            row = {name: point.get(name) for name in KEY} | {"frame": number}
            row |= {name: found[number] for name, found in told.items()}
            for part, values in frames["parts"].items():
                row[f"bytes_{part}"] = values[number]
            yield row


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


@contextmanager
def rows_of(path: Path) -> Iterator[tuple[Sequence[str], Iterator[dict[str, str]]]]:
    """Give the columns of a CSV, and its rows one by one; what is wrong with one names its line.

    Raises:
        click.ClickException: no text, a row that is too short or too long, or a `ValueError` in
            the body of the `with`.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)

        def rows() -> Iterator[dict[str, str]]:
            columns = reader.fieldnames or ()
            for row in reader:
                if None in row or None in row.values():
                    found = sum(value is not None for value in row.values())
                    raise ValueError(f"{found} cells under {len(columns)} columns")
                yield row

        try:
            yield reader.fieldnames or (), rows()
        except (ValueError, csv.Error) as error:
            raise click.ClickException(f"{path}, line {reader.line_num}: {error}") from error


def read_points(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a results.csv: what identifies a point, and its figures as numbers.

    Raises:
        click.ClickException: a column is missing, a figure is no number, or there is no row.
    """
    needed = ("clip", "split", "codec", "variant", "point", "frames", "bytes_per_frame")
    with rows_of(path) as (columns, rows):
        measures = _measures_in(path, columns)
        absent = [column for column in needed if column not in columns]
        if absent:
            raise click.ClickException(
                f"{path}: has no column {absent[0]!r}; expected the results.csv of a study"
            )
        points = []
        for row in rows:
            point: dict[str, Any] = dict(row)
            for name in ("point", *RATES, *(measure.name for measure in measures)):
                if name in row:
                    point[name] = float(row[name]) if row[name] else None
            point["frames"] = int(row["frames"])
            if point["bytes_per_frame"] is None or point[measures[0].name] is None:
                raise ValueError(f"a point without rate or {measures[0].label}")
            points.append(point)
    if not points:
        raise click.ClickException(f"{path}: no row in it")
    return points


def _measures_in(path: Path, columns: Iterable[str]) -> tuple[Measure, ...]:
    try:
        return measures_in(columns)
    except ValueError as error:
        raise click.ClickException(
            f"{path}: {error}; expected the results.csv of a study"
        ) from error


def parse_limits(
    context: click.Context, option: click.Parameter, value: str
) -> tuple[float, float]:
    """Read LOW:HIGH."""
    try:
        low, high = map(float, value.split(":"))
        if not 0 < low < high < float("inf"):
            raise ValueError(value)  # noqa: TRY301
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not LOW:HIGH, 0 < LOW < HIGH", context, option
        ) from error
    return low, high


limits_option = click.option(
    "--kl",
    "limits",
    default="0.005:1",
    show_default=True,
    metavar="LOW:HIGH",
    callback=parse_limits,
    help="Compare the curves of classifiers between these; those of other tasks, whole.",
)
