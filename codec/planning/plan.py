"""A plan as a value: every option over the link, who is best at what, and how sure that is.

    measured options ─┐
    Terms ────────────┴─► Plan ─► rows, rankings, who is best at which rate ─► JSON

`Plan.to_json` returns, with units in the names of all figures,

    format       1
    provenance   command, date, versions, machine
    settings     model, task, loss and target, frames, clips, link, slowdown, how cuts were chosen
    options      one object per option, see `Row`
    refused      split, reason
    rankings     latency (of all, and of cuts alone), rate, edge load: best, share, rivals
    rates        which option has the least latency from which rate of the link on
    findings     in words

Nothing here measures or draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from codec.planning.certainty import Draws, Ranking, draws_of, interval, rank
from codec.planning.search import KEYINT, Curve
from codec.planning.stages import Estimate, Link, Stages, Terms, edge_load, estimate, latency

__all__ = ["EDGE_ONLY", "REMOTE", "Option", "Plan", "RateRange", "Row"]

Floats = NDArray[np.float64]

REMOTE, EDGE_ONLY = "pixels by x265", "edge only"
RATE_GRID = np.geomspace(1e4, 1e9, 501)
"""Bits per second at which latencies are compared."""
Kind = Literal["cut", "remote", "edge"]


@dataclass(frozen=True, slots=True)
class Option:
    """A way to an answer, as it was measured.

    Args:
        name: of the cut, or `REMOTE`, or `EDGE_ONLY`.
        kind: which of these.
        curves: of each clip; none of `EDGE_ONLY`.
        seconds: of every timed frame by stage, `edge`, `encode`, `decode`, `cloud`; a stage that
            takes nothing is not there.
        facts: what else is known: elements, tensors, where the profile is from, multiplications.
    """

    name: str
    kind: Kind
    curves: tuple[Curve, ...]
    seconds: Mapping[str, tuple[float, ...]]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool:
        """Tell whether the loss that was asked for is reached on all clips."""
        return all(curve.reached for curve in self.curves)

    @property
    def exceeded(self) -> bool:
        """Tell whether less is lost even at the coarsest, on some clip."""
        return any(curve.exceeded for curve in self.curves)


@dataclass(frozen=True, slots=True)
class Row:
    """An option over the link.

    `latency_interval_seconds` and `bytes_interval` hold 95 % of the resamplings; `bytes_by_clip` is
    what each clip takes per frame; `key_frame_latency_seconds` is the latency of a key frame by its
    bytes, as if it were computed as fast as others.
    """

    name: str
    kind: Kind
    reached: bool
    stages: Stages
    estimate: Estimate
    latency_interval_seconds: tuple[float, float]
    bytes_interval: tuple[float, float]
    bytes_by_clip: tuple[float, ...]
    key_frame_latency_seconds: float
    loss: float | None
    parameters: tuple[int, ...]
    figures: Mapping[str, float]
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RateRange:
    """Rates of the link at which one option has the least latency; the last has no end."""

    from_bits_per_second: float
    to_bits_per_second: float | None
    best: str


@dataclass(frozen=True)
class Plan:
    """Options over a link.

    Args:
        options: cuts in the order of the network, or as they were asked for; the whole of it on
            either side last.
        terms: link, slowdown, power.
        settings: as in the module's docstring.
        provenance: of the command.
        refused: cuts that could not be measured, and why.
        times_excess: by what share times are longer when they are taken again.
        seed: of the resamplings.
    """

    options: Sequence[Option]
    terms: Terms
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    refused: Sequence[Mapping[str, str]] = ()
    times_excess: float = 0.0
    seed: int = 0

    @cached_property
    def _draws(self) -> Draws:
        curves = next(option.curves for option in self.options if option.curves)
        frames = [len(curve.points[0].losses) for curve in curves]
        timed = len(next(iter(self.options[0].seconds.values())))
        return draws_of(frames, timed, options=len(self.options), seed=self.seed)

    @cached_property
    def _resampled(self) -> dict[str, dict[str, Floats]]:
        """Return by option what each stage takes, (R + 1,), the plain estimate first."""
        return {
            option.name: self._stages_of(option, number)
            for number, option in enumerate(self.options)
        }

    def _stages_of(self, option: Option, number: int) -> dict[str, Floats]:
        draws = self._draws
        nothing = np.zeros(len(draws.clips))
        of_timed = draws.timed / draws.timed.sum(1, keepdims=True)
        noise = np.exp(self.times_excess * draws.noise[:, number])
        found = {
            stage: noise * (of_timed @ np.array(option.seconds[stage], np.float64))
            if stage in option.seconds
            else nothing
            for stage in ("edge", "encode", "decode", "cloud")
        }
        if not option.curves:
            return {**found, "bytes": nothing}
        of_clips = draws.clips / draws.clips.sum(1, keepdims=True)
        by_clip = [
            curve.bytes_per_frame(weights)
            for curve, weights in zip(option.curves, draws.frames, strict=True)
        ]
        return {**found, "bytes": (of_clips * np.stack(by_clip, axis=1)).sum(1)}

    def _latencies(self, name: str, bits_per_second: float) -> Floats:
        found = self._resampled[name]
        return latency(
            edge_load(found["edge"], found["encode"], self.terms),
            found["bytes"],
            found["decode"] + found["cloud"],
            replace(self.terms.link, bits_per_second=bits_per_second),
        )

    @cached_property
    def rows(self) -> list[Row]:
        """Return every option over the link."""
        return [self._row(option) for option in self.options]

    def _row(self, option: Option) -> Row:
        found = self._resampled[option.name]
        stages = Stages(
            edge_seconds=float(found["edge"][0]),
            encode_seconds=float(found["encode"][0]),
            bytes_sent=float(found["bytes"][0]),
            decode_seconds=float(found["decode"][0]),
            cloud_seconds=float(found["cloud"][0]),
        )
        nearest = [curve.nearest for curve in option.curves]
        key = replace(
            stages,
            bytes_sent=float(np.mean([each.frame_bytes[0] for each in nearest]))
            if nearest
            else 0.0,
        )
        names = set.intersection(*(set(each.figures) for each in nearest)) if nearest else set()
        return Row(
            name=option.name,
            kind=option.kind,
            reached=option.reached,
            stages=stages,
            estimate=estimate(stages, self.terms),
            latency_interval_seconds=interval(
                self._latencies(option.name, self.terms.link.bits_per_second)
            ),
            bytes_interval=interval(found["bytes"]),
            bytes_by_clip=tuple(curve.plain_bytes_per_frame() for curve in option.curves),
            key_frame_latency_seconds=estimate(key, self.terms).latency_seconds,
            loss=_mean([each.loss for each in nearest]),
            parameters=tuple(each.parameter for each in nearest),
            figures={
                name: float(np.mean([each.figures[name] for each in nearest]))
                for name in sorted(names)
            },
            facts=option.facts,
        )

    def row(self, name: str) -> Row:
        """Return the row of an option."""
        return next(row for row in self.rows if row.name == name)

    @property
    def ranked(self) -> list[Option]:
        """Return the options that reach the loss, which alone are compared."""
        return [option for option in self.options if option.reached]

    @cached_property
    def rankings(self) -> dict[str, Ranking]:
        """Rank by latency, all options and cuts alone; by rate, all that send something to compute
        from; and by what the edge is busy with, cuts alone.  Empty where no cut reaches the loss.
        """
        found, terms = self._resampled, self.terms
        cuts = [option.name for option in self.ranked if option.kind == "cut"]
        if not cuts:
            return {}
        rate = terms.link.bits_per_second
        latencies = {option.name: self._latencies(option.name, rate) for option in self.ranked}
        sending = [option.name for option in self.ranked if option.curves]
        loads = {
            name: edge_load(found[name]["edge"], found[name]["encode"], terms) for name in cuts
        }
        return {
            "latency": rank(latencies),
            "latency_of_cuts": rank({name: latencies[name] for name in cuts}),
            "rate": rank({name: found[name]["bytes"] for name in sending}),
            "rate_of_cuts": rank({name: found[name]["bytes"] for name in cuts}),
            "edge_load_of_cuts": rank(loads),
        }

    @cached_property
    def rates(self) -> list[RateRange]:
        """Say which option has the least latency at which rates of the link."""
        names = [option.name for option in self.ranked]
        table = np.stack([self.latencies_over(name) for name in names])
        best = table.argmin(0)
        starts = [0, *(np.flatnonzero(np.diff(best)) + 1)]
        ends = [float(RATE_GRID[start]) for start in starts[1:]]
        return [
            RateRange(float(RATE_GRID[start]) if start else 0.0, end, names[best[start]])
            for start, end in zip(starts, [*ends, None], strict=True)
        ]

    def latencies_over(self, name: str, rates: Floats = RATE_GRID) -> Floats:
        """Return the latency of an option at rates of the link, round trip as it is."""
        stages = self.row(name).stages
        return np.array(
            [
                estimate(
                    stages, replace(self.terms, link=Link(rate, self.terms.link.rtt_seconds))
                ).latency_seconds
                for rate in rates
            ]
        )

    def difference(self, name: str, other: str) -> tuple[float, float, float]:
        """Return how much more latency an option has than another, seconds, and the interval."""
        rate = self.terms.link.bits_per_second
        found = self._latencies(name, rate) - self._latencies(other, rate)
        return (float(found[0]), *interval(found))

    def findings(self) -> list[str]:
        """Say in words who is best, how sure that is, and whether cutting pays at all."""
        return [*self.answers(), *self.remarks()]

    def answers(self) -> list[str]:
        """Say who is best at what."""
        said = self.rankings
        if not said:
            return ["No cut comes to the loss that was asked for."]
        return [
            self._named("Least latency of all", said["latency"], "latency"),
            self._named("Least latency of the cuts", said["latency_of_cuts"], "latency"),
            self._named("Fewest bytes", said["rate"], "bytes"),
            self._named("Least work at the edge of the cuts", said["edge_load_of_cuts"], "load"),
        ]

    def remarks(self) -> list[str]:
        """Say what is not ranked, what the best cut is against both ends, and how far that goes."""
        target = self.settings.get("target")
        lines = [
            f"{option.name} does not come to a loss of {target:g} at its finest and is not ranked."
            for option in self.options
            if not option.reached
        ]
        lines += [
            f"{option.name} loses less than {target:g} even at its coarsest: its bytes are more "
            "than are needed."
            for option in self.ranked
            if option.exceeded
        ]
        if self.rankings:
            cut = self.rankings["latency_of_cuts"].best
            lines += [
                self._against(cut, option.name) for option in self.ranked if option.kind != "cut"
            ]
        clips = len(self._draws.frames)
        lines.append(
            "The intervals are from one clip: they say what other frames of it would, and nothing "
            "of other scenes."
            if clips == 1
            else f"The intervals are over {clips} clips and their frames."
        )
        return lines

    def _named(self, what: str, ranking: Ranking, figure: str) -> str:
        row = self.row(ranking.best)
        value = {
            "latency": f"{1000 * row.estimate.latency_seconds:.0f} ms",
            "bytes": f"{row.stages.bytes_sent:.0f} bytes a frame",
            "load": f"{1000 * row.estimate.edge_load_seconds:.0f} ms a frame",
        }[figure]
        sure = f"best in {100 * ranking.share:.0f} % of the resamplings"
        rivals = (
            f"not told apart from {', '.join(ranking.rivals)}"
            if ranking.rivals
            else "told apart from all others"
        )
        return f"{what}: {ranking.best}, {value}; {sure}, {rivals}."

    def _against(self, cut: str, other: str) -> str:
        difference, low, high = (1000 * value for value in self.difference(cut, other))
        shown = f"{_signed(difference)} ms ({_signed(low)} … {_signed(high)})"
        if low <= 0 <= high:
            return (
                f"{cut} against {other}: no difference in latency that these frames show, {shown}."
            )
        more = "less" if difference < 0 else "more"
        return f"{cut} against {other}: {more} latency, {shown}."

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON can say it."""
        return {
            "format": 1,
            "provenance": dict(self.provenance),
            "settings": {
                **self.settings,
                **asdict(self.terms),
                "key_frame_interval": KEYINT,
                "times_excess": self.times_excess,
            },
            "options": [asdict(row) for row in self.rows],
            "refused": [dict(each) for each in self.refused],
            "rankings": {name: asdict(ranking) for name, ranking in self.rankings.items()},
            "rates": [asdict(each) for each in self.rates],
            "findings": self.findings(),
        }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _signed(value: float) -> str:
    return f"{value:+.0f}".replace("-", "−")
