"""Compare codecs by BD-rate over KL divergence: the mean difference of rate at equal task loss.

    python -m tools.bd_rate TEST.csv ANCHORS.csv --split blocks.10      (needs the extra `study`)

TEST.csv comes from `tools.measure`, ANCHORS.csv from `tools.anchors` or from `tools.measure` too
(codec against codec).  Negative figures: the test needs fewer bytes than the anchor.

Rate is interpolated as a function of KL, both in logarithms, and the difference of the two curves
is averaged over the KL that both reach:

    log rate
       |  a..                    BD-rate = exp( mean over [low, high] of log r_b - log r_a ) - 1
       |  b. '''a.....
       |    ''b...    '''''a
       |          '''''b
       +----|----------|----> log KL
           low       high

    * A curve must fall strictly: fewer bytes, more loss.  `bd_rate` refuses one that does not; the
      command reduces every curve, test and anchor alike, to its Pareto front (`envelope`) first.
      All variants of an anchor make one front: the best of them at each rate.  A point that gains
      less than 5 % of KL on a cheaper one is left out: where KL stands still, log rate over log KL
      is nearly vertical, and Akima's interpolation shoots over.
    * At least four points on each curve, and an overlap of at least a quarter of the shorter curve
      and a factor of two in KL, else there is no figure but the reason.
    * The command limits the integral to --kl LOW:HIGH, and each curve to the points in that range
      and the next on either side, which say how it enters and leaves.

A front takes lucky points rather than mean ones, so a curve of more points or more variants comes
out better by the noise of KL: to the anchors' favour, as they are measured here.

Source: G. Bjøntegaard, VCEG-M33 (2001); the interpolations are those of the package `bjontegaard`.
Measures nothing itself.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import click
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import Akima1DInterpolator, PchipInterpolator

INTERPOLATORS = {"pchip": PchipInterpolator, "akima": Akima1DInterpolator}
MIN_POINTS = 4
MIN_OVERLAP = 0.25  # of the shorter curve, in log KL
MIN_RATIO = 2.0  # of the largest to the smallest KL of the overlap
MARGIN = 0.05  # what a point of a front must gain on the one before; noise of KL is more than that

# Columns that tell curves apart, if a file has them; a curve has one row for each value of `POINT`.
VARIANT = "variant"
POINT = ("point", "qp")


@dataclass(frozen=True, slots=True)
class BdRate:
    """How much more rate one curve needs than another.

    `percent` is negative where it needs less.  `low` and `high` are the KL between which the curves
    were compared, `overlap` is the share which that is of the shorter curve, in log KL.
    """

    percent: float
    low: float
    high: float
    overlap: float


# --- curves -----------------------------------------------------------------------------------


def bd_rate(
    rate_a: Sequence[float],
    quality_a: Sequence[float],
    rate_b: Sequence[float],
    quality_b: Sequence[float],
    method: str = "pchip",
    *,
    limits: tuple[float, float] = (0.0, math.inf),
) -> BdRate:
    """Compute how much more rate curve b needs than curve a at equal quality.

    Args:
        rate_a: rates of the anchor, positive, in any order; in any unit, the same for both.
        quality_a: the KL divergence at each, positive; it must fall where the rate rises.
        rate_b: rates of the test.
        quality_b: its KL divergences.
        method: `pchip` or `akima`.
        limits: compare between these KL only.

    Raises:
        ValueError: fewer than four points, values that are not positive, a curve that does not fall
            strictly, or too small an overlap.

    Example:
        >>> rate, kl = [100, 200, 400, 800], [0.8, 0.2, 0.05, 0.01]
        >>> round(bd_rate(rate, kl, [r / 2 for r in rate], kl).percent, 6)
        -50.0
    """
    if method not in INTERPOLATORS:
        raise ValueError(f"method {method!r}: expected one of {', '.join(INTERPOLATORS)}")
    curves = [_logarithms("anchor", rate_a, quality_a), _logarithms("test", rate_b, quality_b)]
    bounds = [math.log(limit) if limit > 0 else -math.inf for limit in limits]
    spans = [(max(kl[0], bounds[0]), min(kl[-1], bounds[1])) for kl, _ in curves]
    low, high = max(span[0] for span in spans), min(span[1] for span in spans)
    shorter = min(span[1] - span[0] for span in spans)
    if high - low < max(MIN_OVERLAP * shorter, math.log(MIN_RATIO)):
        ranges = " and ".join(
            f"{math.exp(kl[0]):.3g} to {math.exp(kl[-1]):.3g}" for kl, _ in curves
        )
        within = "" if math.isinf(bounds[1]) else f" within {limits[0]:g} to {limits[1]:g}"
        raise ValueError(
            f"the curves span KL {ranges}{within}; expected an overlap of at least "
            f"{MIN_OVERLAP:.0%} of the shorter and a factor of {MIN_RATIO:g}"
        )
    area_a, area_b = (
        float(INTERPOLATORS[method](kl, rate).integrate(low, high)) for kl, rate in curves
    )
    return BdRate(
        100 * math.expm1((area_b - area_a) / (high - low)),
        math.exp(low),
        math.exp(high),
        (high - low) / shorter,
    )


def _logarithms(
    name: str, rate: Sequence[float], quality: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return log KL, ascending, and log rate."""
    if len(rate) != len(quality) or len(rate) < MIN_POINTS:
        raise ValueError(
            f"the curve of the {name} has {len(rate)} rates and {len(quality)} KL; "
            f"expected at least {MIN_POINTS} of each"
        )
    values = np.array([rate, quality], np.float64)
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(f"the curve of the {name} has rates {rate} and KL {quality}; expected > 0")
    rates, qualities = np.log(values[:, np.argsort(values[1], kind="stable")])
    if not ((np.diff(qualities) > 0).all() and (np.diff(rates) < 0).all()):
        raise ValueError(
            f"the curve of the {name} does not fall: KL {list(quality)} at rates {list(rate)}; "
            "reduce it to its envelope"
        )
    return qualities, rates


def envelope(
    points: Iterable[tuple[float, float]], *, margin: float = 0.0
) -> list[tuple[float, float]]:
    """Keep the (rate, KL) pairs that no other one beats: the Pareto front, by rising rate.

    A point is beaten by another with no more rate and no more loss, and less of one of them; of
    equal points one is kept.  Between points nothing is drawn, so the front need not be convex.

    Args:
        points: pairs of rate and KL.
        margin: a point that costs more rate must lower KL by more than this share.
    """
    front: list[tuple[float, float]] = []
    for rate, kl in sorted(set(points)):
        if not front or kl < front[-1][1] * (1 - margin):
            front.append((rate, kl))
    return front


def restrict(
    front: Sequence[tuple[float, float]], limits: tuple[float, float]
) -> list[tuple[float, float]]:
    """Keep the points of a front with a KL inside `limits`, and the next on either side."""
    low, high = limits
    inside = [number for number, (_, kl) in enumerate(front) if low <= kl <= high]
    if not inside:
        return []
    return list(front[max(inside[0] - 1, 0) : inside[-1] + 2])


# --- files ------------------------------------------------------------------------------------

Row = dict[str, str]


def read_rows(path: Path, conditions: Sequence[tuple[str, str]]) -> list[Row]:
    """Read the rows of a CSV that fulfil every condition COLUMN=VALUE.

    Raises:
        click.ClickException: a column is missing, or no row is left.
    """
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or ()
        needed = ["clip", "split", "frames", "bytes_per_frame", "kl"]
        for column in [*needed, *(column for column, _ in conditions)]:
            if column not in columns:
                raise click.ClickException(f"{path}: has no column {column!r}")
        rows = [row for row in reader if all(row[key] == value for key, value in conditions)]
    if not rows:
        wanted = " and ".join(f"{key}={value}" for key, value in conditions)
        raise click.ClickException(f"{path}: no row {'has ' + wanted if wanted else 'in it'}")
    return rows


@dataclass(frozen=True, slots=True)
class Curve:
    """The front of one codec on one clip at one split, and over how many frames it was measured."""

    front: list[tuple[float, float]]
    frames: str

    @classmethod
    def from_rows(cls, path: Path, rows: Sequence[Row], option: str) -> Self:
        """Merge rows to a front.

        Raises:
            click.ClickException: two rows have the same variant and point, or frames differ.
        """
        seen: dict[tuple[str, ...], Row] = {}
        for row in rows:
            key = tuple(row.get(column, "") for column in (VARIANT, *POINT))
            other = seen.setdefault(key, row)
            if other is not row:
                measured = ("bytes", "kl", "nrmse", "top1", "seconds", "kbit", "bits", "key_frames")
                differing = [
                    f"{column}={other[column]} and {row[column]}"
                    for column in row
                    if row[column] != other[column] and not column.startswith(measured)
                ]
                raise click.ClickException(
                    f"{path}: {row['clip']} {row['split']} has two rows for point "
                    f"{' '.join(filter(None, key))} ({', '.join(differing) or 'nothing differs'}); "
                    f"choose with {option} COLUMN=VALUE"
                )
        frames = {row["frames"] for row in rows}
        if len(frames) > 1:
            raise click.ClickException(
                f"{path}: {rows[0]['clip']} was measured over {' and '.join(sorted(frames))} "
                f"frames; choose with {option} frames=VALUE"
            )
        points = ((float(row["bytes_per_frame"]), float(row["kl"])) for row in rows)
        front = envelope(points, margin=MARGIN)
        return cls(front, frames.pop())


def anchor_name(path: Path, row: Row) -> str:
    """Name what a row of the second file belongs to: its anchor, or the source of its motion."""
    return row.get("anchor") or f"{path.stem} {row.get('motion', '')}".strip()


# --- the table --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cell:
    """One clip against one anchor: figures by method, or why there are none."""

    results: dict[str, BdRate]
    refusal: str = ""

    @classmethod
    def compare(cls, anchor: Curve | None, test: Curve, limits: tuple[float, float]) -> Self:
        """Compare two curves by every method."""
        if anchor is None:
            return cls({}, "not measured")
        if anchor.frames != test.frames:
            return cls({}, f"measured over {anchor.frames} frames, not {test.frames}")
        pairs = [restrict(curve.front, limits) for curve in (anchor, test)]
        (rates_a, kls_a), (rates_b, kls_b) = (
            ([rate for rate, _ in front], [kl for _, kl in front]) for front in pairs
        )
        try:
            return cls(
                {
                    method: bd_rate(rates_a, kls_a, rates_b, kls_b, method, limits=limits)
                    for method in INTERPOLATORS
                }
            )
        except ValueError as error:
            return cls({}, str(error))

    def text(self) -> str:
        """Give the figures in one line."""
        if not self.results:
            return "refused"
        pchip, akima = self.results["pchip"], self.results["akima"]
        return f"{pchip.percent:+.1f} % ({akima.percent:+.1f} %) {pchip.low:.2g}–{pchip.high:.2g}"


def summary(cells: Mapping[str, Cell]) -> tuple[str, str, str]:
    """Give an anchor's mean, its mean of log ratios, and its worst clip."""
    found = {clip: cell.results["pchip"].percent for clip, cell in cells.items() if cell.results}
    if not found:
        return "–", "–", "–"
    of = "" if len(found) == len(cells) else f" (of {len(found)} clips)"
    logs = [math.log1p(percent / 100) for percent in found.values()]
    worst = max(found, key=lambda clip: found[clip])
    return (
        f"{np.mean(list(found.values())):+.1f} %{of}",
        f"{100 * math.expm1(np.mean(logs)):+.1f} %{of}",
        f"{found[worst]:+.1f} % {worst}",
    )


def render(title: str, table: Mapping[str, Mapping[str, Cell]]) -> str:
    """Lay out the table of one split: anchor -> clip -> cell."""
    clips = list(dict.fromkeys(clip for column in table.values() for clip in column))
    lines = [[title, *clips, "mean", "geometric mean", "worst"]]
    for anchor, column in table.items():
        lines.append([anchor, *(column[clip].text() for clip in clips), *summary(column)])
    widths = [max(map(len, column)) for column in lines]
    rows = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*lines, strict=True)
    ]
    rows += [
        f"refused: {clip} against {anchor}: {cell.refusal}"
        for anchor, column in table.items()
        for clip, cell in column.items()
        if cell.refusal
    ]
    return "\n".join(rows)


def curves_by(
    path: Path, rows: Iterable[Row], key: Callable[[Row], tuple[str, ...]], option: str
) -> dict[tuple[str, ...], Curve]:
    """Make the curve of every key that occurs."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return {name: Curve.from_rows(path, found, option) for name, found in groups.items()}


def parse_conditions(
    context: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> list[tuple[str, str]]:
    """Split each COLUMN=VALUE at its first equals sign."""
    pairs = [value.partition("=") for value in values]
    for column, equals, value in pairs:
        if not column or not equals:
            raise click.BadParameter(
                f"{column + equals + value!r} is not of the form COLUMN=VALUE", context, option
            )
    return [(column, value) for column, _, value in pairs]


def parse_limits(
    context: click.Context, option: click.Parameter, value: str
) -> tuple[float, float]:
    """Split LOW:HIGH."""
    try:
        low, high = map(float, value.split(":"))
    except ValueError:
        low = high = math.nan
    if not 0 < low < high < math.inf:
        raise click.BadParameter(
            f"{value!r} is not of the form LOW:HIGH, 0 < LOW < HIGH", context, option
        )
    return low, high


CSV = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("test", type=CSV)
@click.argument("anchors", type=CSV)
@click.option("--split", "splits", multiple=True, help="Only these splits; default: all of TEST.")
@click.option(
    "--test-where",
    multiple=True,
    metavar="COLUMN=VALUE",
    callback=parse_conditions,
    help="Take only these rows of TEST.",
)
@click.option(
    "--anchor-where",
    multiple=True,
    metavar="COLUMN=VALUE",
    callback=parse_conditions,
    help="Take only these rows of ANCHORS.",
)
@click.option(
    "--kl",
    "limits",
    default="0.005:1",
    show_default=True,
    metavar="LOW:HIGH",
    callback=parse_limits,
    help="Compare between these.",
)
def main(
    test: Path,
    anchors: Path,
    splits: tuple[str, ...],
    test_where: list[tuple[str, str]],
    anchor_where: list[tuple[str, str]],
    limits: tuple[float, float],
) -> None:
    """Print the BD-rate of TEST against every anchor in ANCHORS, per clip.

    A cell holds the figure by PCHIP, (by Akima), and the range of KL that was compared.
    """
    test_rows = read_rows(test, test_where)
    splits = splits or tuple(dict.fromkeys(row["split"] for row in test_rows))
    test_rows = [row for row in test_rows if row["split"] in splits]
    # An anchor without a split is the same at every split.
    anchor_rows = [row for row in read_rows(anchors, anchor_where) if row["split"] in (*splits, "")]
    models = {row["model"] for row in (*test_rows, *anchor_rows) if "model" in row}
    if len(models) > 1:
        raise click.ClickException(
            f"the files hold the models {', '.join(sorted(models))}; choose with "
            "--test-where and --anchor-where model=NAME"
        )
    tests = curves_by(test, test_rows, lambda row: (row["clip"], row["split"]), "--test-where")
    found = curves_by(
        anchors,
        anchor_rows,
        lambda row: (anchor_name(anchors, row), row["clip"], row["split"]),
        "--anchor-where",
    )
    for split in splits:
        clips = [clip for clip, where in tests if where == split]
        if not clips:
            raise click.ClickException(f"{test}: no row has split={split}")
        names = dict.fromkeys(name for name, _, where in found if where in {split, ""})
        if not names:
            raise click.ClickException(f"{anchors}: no row has split={split}")
        table = {
            name: {
                clip: Cell.compare(
                    found.get((name, clip, split)) or found.get((name, clip, "")),
                    tests[clip, split],
                    limits,
                )
                for clip in clips
            }
            for name in names
        }
        click.echo(render(split, table) + "\n")


if __name__ == "__main__":
    main()
