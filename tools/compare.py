"""Did a change help?  Two studies side by side: BD-rates, or curve by curve where they are short.

    python -m tools.compare BEFORE/results.csv AFTER/results.csv        (needs the extra `study`)

Every codec that both files hold is compared with itself, clip by clip; negative figures: AFTER
needs fewer bytes at equal KL, or at equal loss of another task's first figure, which then stands
for KL in what follows.  Curves of fewer than four points have no BD-rate.  Of these the figures are
listed whose mean ratio over the points of a curve moved by more than --tolerance per cent (bytes,
NRMSE) or --kl-tolerance (KL, which moves by some per cent between processors that round
differently).  With --check that is the whole answer, and the exit code is 1 if any did.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from tools.rate_distortion.bd_rate import MIN_POINTS, Comparison, render
from tools.rate_distortion.measures import measures_in
from tools.rate_distortion.study import curves, limits_option, read_points

MOST = 5  # clips that moved most
CURVE = ("clip", "split", "codec", "variant")
CONDITIONS = ("model", "weights", "frames")
TOLERANCE = 1.0  # per cent
KL_TOLERANCE = 10.0


def moved_curves(
    before: Iterable[Mapping[str, Any]],
    after: Iterable[Mapping[str, Any]],
    *,
    tolerance: float = TOLERANCE,
    kl_tolerance: float = KL_TOLERANCE,
    lead: str = "kl",
) -> list[str]:
    """List, a line each, the curves whose figures moved by more than a tolerance, in per cent.

    The move of a figure is the geometric mean of its ratios over the points of a curve.  Curves of
    other points or conditions than before have moved, and so have figures that one side lacks.
    """
    limits = {"bytes_per_frame": tolerance, lead: kl_tolerance, "nrmse": tolerance}
    sides = [_by_curve(side) for side in (before, after)]
    lines = []
    for key in dict.fromkeys((*sides[0], *sides[1])):
        name = " ".join(part for part in key if part)
        old, new = (side.get(key, {}) for side in sides)
        if old.keys() != new.keys():
            shown = (" ".join(f"{point:g}" for point in side) or "none" for side in (old, new))
            lines.append(f"{name}: points {' before, '.join(shown)} after")
            continue
        changed = {
            f"{condition} {old[point].get(condition)} before, {new[point].get(condition)} after"
            for point in old
            for condition in CONDITIONS
            if old[point].get(condition) != new[point].get(condition)
        }
        lines += [f"{name}: {change}" for change in sorted(changed)]
        for figure, limit in limits.items():
            pairs = [(old[point].get(figure), new[point].get(figure)) for point in old]
            if any(bool(a) != bool(b) for a, b in pairs):
                lines.append(f"{name}: {figure} is missing or zero on one side")
                continue
            logs = [math.log(b / a) for a, b in pairs if a and b]
            percent = 100 * math.expm1(sum(logs) / len(logs)) if logs else 0.0
            if not abs(percent) <= limit:  # nor is what is no number
                lines.append(f"{name}: {figure} {percent:+.2f} %")
    return lines


def _by_curve(
    points: Iterable[Mapping[str, Any]],
) -> dict[tuple[str, ...], dict[float, Mapping[str, Any]]]:
    found: dict[tuple[str, ...], dict[float, Mapping[str, Any]]] = defaultdict(dict)
    for point in points:
        found[tuple(point[name] for name in CURVE)][point["point"]] = point
    return dict(found)


def most_moved(comparisons: Sequence[Comparison]) -> list[str]:
    """List the clips whose rate moved most, in either direction."""
    moves = [
        (percent, f"{clip} {one.split} {one.anchor.removesuffix(' before')}")
        for one in comparisons
        for clip, percent in one.figures().items()
    ]
    moves.sort(key=lambda move: -abs(move[0]))
    return [f"{percent:+.2f} %  {name}" for percent, name in moves[:MOST]]


CSV = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("before", type=CSV)
@click.argument("after", type=CSV)
@click.option("--codec", "codecs", multiple=True, help="Only these; default: all that both hold.")
@click.option("--split", "splits", multiple=True, help="Only these; default: all that both hold.")
@limits_option
@click.option(
    "--tolerance", default=TOLERANCE, show_default=True, help="Of bytes and NRMSE, per cent."
)
@click.option("--kl-tolerance", default=KL_TOLERANCE, show_default=True, help="Of KL, per cent.")
@click.option("--check", is_flag=True, help="Only say what moved, and exit 1 if anything did.")
def main(
    before: Path,
    after: Path,
    codecs: tuple[str, ...],
    splits: tuple[str, ...],
    limits: tuple[float, float],
    tolerance: float,
    kl_tolerance: float,
    check: bool,
) -> None:
    """Compare the studies BEFORE and AFTER a change."""
    sides = [
        [
            point
            for point in read_points(path)
            if (not codecs or point["codec"] in codecs)
            and (not splits or point["split"] in ("", *splits))
        ]
        for path in (before, after)
    ]
    for path, side in zip((before, after), sides, strict=True):
        if not side:
            raise click.ClickException(f"{path}: no row of the codecs and splits asked for")
    lead, other = (measures_in(side[0])[0] for side in sides)
    if lead != other:
        raise click.ClickException(
            f"{before} is of {lead.name}, {after} of {other.name}; expected one task"
        )
    moves = partial(moved_curves, tolerance=tolerance, kl_tolerance=kl_tolerance, lead=lead.name)
    if check:
        moved = moves(*sides)
        click.echo(
            "\n".join(moved)
            or f"nothing moved by more than {tolerance:g} %, "
            f"{'KL' if lead.name == 'kl' else lead.label} by {kl_tolerance:g} %"
        )
        if moved:
            raise click.exceptions.Exit(1)
        return

    old, new = (curves(side, lead) for side in sides)
    common = [key for key in old if key in new]
    if not common:
        raise click.ClickException(f"{before} and {after} have no codec and split in common")
    comparisons, short = [], []
    for split, codec in common:
        fronts = [len(curve.front) for side in (old, new) for curve in side[split, codec].values()]
        if max(fronts) < MIN_POINTS:
            short.append((split, codec))
            continue
        comparisons.append(
            Comparison.of(
                split,
                (f"{after.stem} after", f"{codec} before"),
                old[split, codec],
                new[split, codec],
                limits=limits if lead.name == "kl" else (0.0, math.inf),
                figure=lead.name,
            )
        )
    for split in dict.fromkeys(one.split for one in comparisons):
        click.echo(render([one for one in comparisons if one.split == split]) + "\n")
    if comparisons:
        click.echo("moved most:\n" + "\n".join(most_moved(comparisons)))
    if short:
        chosen = [
            [point for point in side if (point["split"], point["codec"]) in short] for side in sides
        ]
        moved = moves(*chosen)
        click.echo("too few points for BD-rate; moved:\n" + ("\n".join(moved) or "none"))


if __name__ == "__main__":
    main()
