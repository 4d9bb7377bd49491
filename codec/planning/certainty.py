"""How sure a ranking of few frames is: the same figures again, from resampled frames and clips.

Frames that follow each other are alike, so runs of `RUN` consecutive frames are drawn, with
replacement; of several clips, the clips are drawn as well.  All options of a plan see the same
draws: what is hard for one is hard for all, and it is their differences that are asked about.

Times are noisy beside: those of each option get a random factor, as large as repeating them showed.

This tells what other frames *of such clips* would say.  Of other scenes it knows what the given
clips differ in, and of one clip nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["RESAMPLINGS", "Draws", "Ranking", "draws_of", "interval", "rank"]

Floats = NDArray[np.float64]

RESAMPLINGS = 500
RUN = 4
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Draws:
    """How often everything counts in each resampling; the first row of each is the plain mean.

    `frames`: one (R, F) for each clip; `clips`: (R, clips); `timed`: (R, T), of the frames that
    times are of; `noise`: (R, options), standard normal.
    """

    frames: tuple[Floats, ...]
    clips: Floats
    timed: Floats
    noise: Floats


def draws_of(frames: Sequence[int], timed: int, *, options: int, seed: int = 0) -> Draws:
    """Draw resamplings.

    Args:
        frames: number of frames of each clip.
        timed: number of frames that times are of.
        options: how many there are.
        seed: of the generator.
    """
    random = np.random.default_rng(seed)
    of_clips = [_runs(count, random) for count in frames]
    clips = np.ones((RESAMPLINGS + 1, len(frames)))
    if len(frames) > 1:
        clips[1:] = random.multinomial(
            len(frames), [1 / len(frames)] * len(frames), size=RESAMPLINGS
        )
    noise = np.zeros((RESAMPLINGS + 1, options))
    noise[1:] = random.standard_normal((RESAMPLINGS, options))
    return Draws(tuple(of_clips), clips, _runs(timed, random), noise)


def _runs(count: int, random: np.random.Generator) -> Floats:
    """Count how often each of some frames is in runs drawn from them, which wrap around."""
    weights = np.ones((RESAMPLINGS + 1, count))
    run = min(RUN, count)
    starts = random.integers(count, size=(RESAMPLINGS, -(-count // run)))
    drawn = ((starts[..., None] + np.arange(run)) % count).reshape(RESAMPLINGS, -1)
    for row, numbers in zip(weights[1:], drawn, strict=True):
        row[:] = np.bincount(numbers, minlength=count)
    return weights


def interval(values: Floats) -> tuple[float, float]:
    """Return the interval that holds `LEVEL` of the resamplings."""
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(values[1:], [tail, 100 - tail])
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Who is best by one figure, the smaller the better.

    `share`: of the resamplings in which it is the best, too; `rivals`: those whose difference from
    it has both signs among `LEVEL` of the resamplings, nearest first.
    """

    best: str
    share: float
    rivals: tuple[str, ...]


def rank(values: dict[str, Floats]) -> Ranking:
    """Rank options.

    Args:
        values: by name, (R + 1,) each, the first of which is the plain estimate.
    """
    names = list(values)
    table = np.stack([values[name] for name in names])
    best = int(table[:, 0].argmin())
    winners = table[:, 1:].argmin(0)
    rivals = [
        number
        for number in range(len(names))
        if number != best and interval(table[number] - table[best])[0] <= 0
    ]
    rivals.sort(key=lambda number: float(table[number, 0]))
    return Ranking(
        names[best], float((winners == best).mean()), tuple(names[number] for number in rivals)
    )
