"""BD-rate and BD-KL: the mean difference of rate at equal task loss, and of loss at equal rate.

Rate is interpolated as a function of KL divergence, both in logarithms, and the difference of the
two curves is averaged over the KL that both reach:

    log rate
       |  a..                    BD-rate = exp( mean over [low, high] of log r_b - log r_a ) - 1
       |  b. '''a.....
       |    ''b...    '''''a
       |          '''''b
       +----|----------|----> log KL
           low       high

BD-KL is the same with the axes exchanged: how much more KL at equal rate.

    * A curve must fall strictly: fewer bytes, more loss.  `bd_rate` refuses one that does not;
      `Comparison` reduces both curves to their Pareto fronts (`envelope`) first.  All variants of a
      codec make one front: the best of them at each rate.  A point that gains less than 5 % of KL
      on a cheaper one is left out: where KL stands still, log rate over log KL is nearly vertical,
      and Akima's interpolation shoots over.
    * At least four points on each curve, and an overlap of at least a quarter of the shorter curve
      and a factor of two in KL (1.25 in rate), else there is no figure but the reason.
    * What is said of KL holds of any loss: of another task's, the messages name that one.
    * `Comparison` limits each curve to the points in a range of KL and the next on either side,
      which say how it enters and leaves, and the integral of BD-rate to that range; that of BD-KL
      is over the rates of those points.

A front takes lucky points rather than mean ones, so a curve of more points or more variants comes
out better by the noise of KL: to the anchors' favour, as they are measured here.

Source: G. Bjøntegaard, VCEG-M33 (2001); the interpolations are those of the package `bjontegaard`.
Measures nothing itself.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import Akima1DInterpolator, PchipInterpolator

__all__ = ["BdRate", "Comparison", "Curve", "bd_kl", "bd_rate", "bootstrap", "envelope", "restrict"]

INTERPOLATORS = {"pchip": PchipInterpolator, "akima": Akima1DInterpolator}
MIN_POINTS = 4
MIN_OVERLAP = 0.25  # of the shorter curve, in logarithms
# Of the largest to the smallest of the overlap.
MIN_LOSS_RATIO = 2.0
MIN_RATE_RATIO = 1.25
MARGIN = 0.05  # what a point of a front must gain on the one before; noise of KL is more than that
DRAWS = 10_000  # of the bootstrap
LOSSLESS = 1e-6  # what has less KL than that has none, but for rounding


@dataclass(frozen=True, slots=True)
class BdRate:
    """How much more rate one curve needs than another; for BD-KL, how much more KL.

    `percent` is negative where it needs less.  `low` and `high` are the KL (BD-KL: the rates)
    between which the curves were compared, `overlap` is the share which that is of the shorter
    curve, in logarithms.
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
    loss: str = "KL",
) -> BdRate:
    """Compute how much more rate curve b needs than curve a at equal quality.

    Args:
        rate_a: rates of the anchor, positive, in any order; in any unit, the same for both.
        quality_a: the KL divergence at each, positive; it must fall where the rate rises.
        rate_b: rates of the test.
        quality_b: its KL divergences.
        method: `pchip` or `akima`.
        limits: compare between these KL only.
        loss: what to call KL in messages, where it is another loss.

    Raises:
        ValueError: fewer than four points, values that are not positive, a curve that does not fall
            strictly, or too small an overlap.

    Example:
        >>> rate, kl = [100, 200, 400, 800], [0.8, 0.2, 0.05, 0.01]
        >>> round(bd_rate(rate, kl, [r / 2 for r in rate], kl).percent, 6)
        -50.0
    """
    curves = [
        _logarithms("anchor", rate_a, quality_a, loss),
        _logarithms("test", rate_b, quality_b, loss),
    ]
    return _mean_difference(curves, method, limits, loss)


def bd_kl(
    rate_a: Sequence[float],
    quality_a: Sequence[float],
    rate_b: Sequence[float],
    quality_b: Sequence[float],
    method: str = "pchip",
) -> BdRate:
    """Compute how much more KL curve b has than curve a at equal rate.

    Args and errors are those of `bd_rate`.

    Example:
        >>> rate, kl = [100, 200, 400, 800], [0.8, 0.2, 0.05, 0.01]
        >>> round(bd_kl(rate, kl, rate, [k / 2 for k in kl]).percent, 6)
        -50.0
    """
    curves = [_logarithms("anchor", rate_a, quality_a), _logarithms("test", rate_b, quality_b)]
    exchanged = [(rate[::-1], kl[::-1]) for kl, rate in curves]
    return _mean_difference(exchanged, method, (0.0, math.inf), "rate")


def _mean_difference(
    curves: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
    method: str,
    limits: tuple[float, float],
    axis: str,
) -> BdRate:
    """Average ordinate b - ordinate a over the abscissae, ascending, that both curves have."""
    if method not in INTERPOLATORS:
        raise ValueError(f"method {method!r}: expected one of {', '.join(INTERPOLATORS)}")
    bounds = [math.log(limit) if limit > 0 else -math.inf for limit in limits]
    spans = [(max(x[0], bounds[0]), min(x[-1], bounds[1])) for x, _ in curves]
    low, high = max(span[0] for span in spans), min(span[1] for span in spans)
    shorter = min(span[1] - span[0] for span in spans)
    ratio = MIN_RATE_RATIO if axis == "rate" else MIN_LOSS_RATIO
    if high - low < max(MIN_OVERLAP * shorter, math.log(ratio)):
        ranges = " and ".join(f"{math.exp(x[0]):.3g} to {math.exp(x[-1]):.3g}" for x, _ in curves)
        within = "" if math.isinf(bounds[1]) else f" within {limits[0]:g} to {limits[1]:g}"
        raise ValueError(
            f"the curves span {axis} {ranges}{within}; expected an overlap of at least "
            f"{MIN_OVERLAP:.0%} of the shorter and a factor of {ratio:g}"
        )
    area_a, area_b = (float(INTERPOLATORS[method](x, y).integrate(low, high)) for x, y in curves)
    return BdRate(
        100 * math.expm1((area_b - area_a) / (high - low)),
        math.exp(low),
        math.exp(high),
        (high - low) / shorter,
    )


def _logarithms(
    name: str, rate: Sequence[float], quality: Sequence[float], loss: str = "KL"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return log KL, ascending, and log rate."""
    if len(rate) != len(quality) or len(rate) < MIN_POINTS:
        raise ValueError(
            f"the curve of the {name} has {len(rate)} rates and {len(quality)} {loss}; "
            f"expected at least {MIN_POINTS} of each"
        )
    values = np.array([rate, quality], np.float64)
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(
            f"the curve of the {name} has rates {rate} and {loss} {quality}; expected > 0"
        )
    rates, qualities = np.log(values[:, np.argsort(values[1], kind="stable")])
    if not ((np.diff(qualities) > 0).all() and (np.diff(rates) < 0).all()):
        raise ValueError(
            f"the curve of the {name} does not fall: {loss} {list(quality)} at rates {list(rate)}; "
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


# --- comparisons ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Curve:
    """The front of one codec on one clip, and over how many frames it was measured."""

    front: tuple[tuple[float, float], ...]
    frames: int

    @classmethod
    def from_points(cls, points: Iterable[tuple[float, float]], frames: int) -> Self:
        """Merge the (bytes per frame, KL) of all variants; points without loss are on no curve."""
        lossy = [(rate, kl) for rate, kl in points if kl > LOSSLESS and rate > 0]
        return cls(tuple(envelope(lossy, margin=MARGIN)), frames)


MEASURES = {"bd_rate": "BD-rate", "bd_kl": "BD-KL"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One codec against another, clip by clip: figures by method, or why there are none."""

    split: str
    test: str
    anchor: str
    measure: str
    clips: Mapping[str, Mapping[str, BdRate] | str] = field(default_factory=dict)
    figure: str = "kl"

    @classmethod
    def of(
        cls,
        split: str,
        names: tuple[str, str],
        anchor: Mapping[str, Curve],
        test: Mapping[str, Curve],
        *,
        limits: tuple[float, float],
        measure: str = "bd_rate",
        figure: str = "kl",
    ) -> Self:
        """Compare the curves of every clip that the test was measured on.

        Args:
            split: for the record.
            names: of the test and of the anchor.
            anchor: curves by clip.
            test: curves by clip.
            limits: of KL, or whatever loss the curves are of.
            measure: one of `MEASURES`.
            figure: name of that loss.
        """
        clips = {
            clip: _compare(anchor.get(clip), test[clip], limits, (measure, figure)) for clip in test
        }
        return cls(split, *names, measure, clips, figure)

    def figures(self) -> dict[str, float]:
        """Return the percentages by PCHIP of the clips that have one."""
        return {
            clip: cell["pchip"].percent
            for clip, cell in self.clips.items()
            if not isinstance(cell, str)
        }

    def mean(self) -> float | None:
        """Return the mean of the clips that have a figure."""
        found = list(self.figures().values())
        return float(np.mean(found)) if found else None

    def to_json(self) -> dict[str, Any]:
        """Return all of it, with the mean and its interval, as JSON can say it."""
        return {
            "split": self.split,
            "test": self.test,
            "anchor": self.anchor,
            "measure": self.measure,
            "figure": self.figure,
            "clips": {clip: _cell_json(cell) for clip, cell in self.clips.items()},
            "mean": self.mean(),
            "interval": bootstrap(list(self.figures().values())),
            "clips_compared": len(self.figures()),
        }


def _compare(
    anchor: Curve | None, test: Curve, limits: tuple[float, float], asked: tuple[str, str]
) -> dict[str, BdRate] | str:
    if anchor is None:
        return "not measured"
    if anchor.frames != test.frames:
        return f"measured over {anchor.frames} frames, not {test.frames}"
    (rates_a, kls_a), (rates_b, kls_b) = (
        ([rate for rate, _ in front], [kl for _, kl in front])
        for front in (restrict(curve.front, limits) for curve in (anchor, test))
    )
    measure, figure = asked
    loss = "KL" if figure == "kl" else figure
    try:
        if measure == "bd_kl":
            return {
                method: bd_kl(rates_a, kls_a, rates_b, kls_b, method) for method in INTERPOLATORS
            }
        return {
            method: bd_rate(rates_a, kls_a, rates_b, kls_b, method, limits=limits, loss=loss)
            for method in INTERPOLATORS
        }
    except ValueError as error:
        return str(error)


def _cell_json(cell: Mapping[str, BdRate] | str) -> dict[str, Any]:
    if isinstance(cell, str):
        return {"refusal": cell}
    first = cell["pchip"]
    return {
        **{method: found.percent for method, found in cell.items()},
        "low": first.low,
        "high": first.high,
        "overlap": first.overlap,
    }


def bootstrap(values: Sequence[float], *, seed: int = 0) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of the mean over clips, by drawing clips with return.

    Three clips are the least that say anything about others; below, None.
    """
    if len(values) < 3:
        return None
    draws = np.random.default_rng(seed).choice(np.array(values, np.float64), (DRAWS, len(values)))
    low, high = np.percentile(draws.mean(1), (2.5, 97.5))
    return float(low), float(high)


def render(comparisons: Sequence[Comparison]) -> str:
    """Lay out comparisons of one test at one split: a line per clip, a column per anchor.

    A cell holds the figure by PCHIP, (by Akima).
    """
    clips = list(dict.fromkeys(clip for one in comparisons for clip in one.clips))
    first = comparisons[0]
    title = f"{MEASURES[first.measure]} of {first.test}" + (
        f" at {first.split}" if first.split else ""
    )
    if first.figure != "kl":
        title += f", equal {first.figure}"
    columns = [[title, *clips, "mean", "95 % interval", "worst"]]
    for one in comparisons:
        figures = one.figures()
        interval = bootstrap(list(figures.values()))
        worst = max(figures, key=lambda clip: figures[clip], default="")
        of = "" if len(figures) == len(clips) else f" (of {len(figures)} clips)"
        columns.append(
            [
                one.anchor,
                *(_cell_text(one.clips.get(clip, "not measured")) for clip in clips),
                f"{np.mean(list(figures.values())):+.1f} %{of}" if figures else "–",
                f"{interval[0]:+.1f} … {interval[1]:+.1f}" if interval else "–",
                f"{figures[worst]:+.1f} % {worst}" if worst else "–",
            ]
        )
    widths = [max(map(len, column)) for column in columns]
    rows = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]
    rows += [
        f"refused: {clip} against {one.anchor}: {cell}"
        for one in comparisons
        for clip, cell in one.clips.items()
        if isinstance(cell, str) and cell != "not measured"
    ]
    return "\n".join(rows)


def _cell_text(cell: Mapping[str, BdRate] | str) -> str:
    if isinstance(cell, str):
        return "–" if cell == "not measured" else "refused"
    return f"{cell['pchip'].percent:+.1f} % ({cell['akima'].percent:+.1f})"
