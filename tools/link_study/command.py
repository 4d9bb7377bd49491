"""The link study: what losses cost, and how each way of mending them fares.

    python -m tools.link_study CLIPS... -o study/                        (needs the extra `study`)
    python -m tools.link_study CLIPS... -o study/ --model nanodet.pt2 --split cat_4
        --preprocessing input.toml --task detection.toml --profile cat_4.safetensors

In the folder are then

    results.csv    a row per clip × strategy × concealment × loss × seed
    means.csv      their means over seeds and clips
    parity.csv     what forward error correction would be worth, an estimate (`summary.estimates`)
    study.json     settings and provenance
    loss.svg .png  the figure
    jobs/          one file per measurement: the same command again does only what is not there

Every frame of a clip counts: decoded ones by what was decoded, missing ones by what stands in for
them, skipped ones by the result before.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import torch

from codec.cli.parameters import MODEL, PREPROCESSING, TASK, WEIGHTS, FiniteRange
from codec.models import DEFAULT_MODEL
from codec.models.sources import is_file
from codec.running.jobs import Store, complete
from codec.running.keys import file_hash
from tools.link_study.ends import STRATEGIES, Terms
from tools.link_study.figures import link_figure
from tools.link_study.link import Condition
from tools.link_study.measurement import ANCHOR, LinkJob, PixelsJob, Setting
from tools.link_study.summary import estimates, lead_of, means
from tools.report import provenance
from tools.report.figures import save
from tools.running.options import job_options
from tools.running.outputs import guarded, write_text

SPLIT = "blocks.10"
COARSER = (3, 6)
"""By how many qp the lossless runs are that tell what rate is worth, for the estimate of parity."""
FILES = ("results.csv", "means.csv", "parity.csv", "study.json", "loss.svg", "loss.png")
LIVE = "live"


def parse_numbers(context: click.Context, option: click.Parameter, value: str) -> tuple[float, ...]:
    """Read numbers from 0 to 50 with commas between."""
    try:
        numbers = tuple(float(part) for part in value.split(","))
        if not all(0 <= number <= 50 for number in numbers):
            raise ValueError(value)  # noqa: TRY301
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not a list of per cents from 0 to 50", context, option
        ) from error
    return tuple(dict.fromkeys((0.0, *numbers)))


def parse_strategies(
    context: click.Context, option: click.Parameter, value: str
) -> tuple[str, ...]:
    """Read names with commas between."""
    known = (*STRATEGIES, ANCHOR)
    names = known if value == "all" else tuple(name.strip() for name in value.split(","))
    for name in names:
        if name not in known:
            raise click.BadParameter(f"{name!r} is none of {', '.join(known)}", context, option)
    return names


@click.command()
@click.argument(
    "clips",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path),
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder.",
)
@MODEL
@WEIGHTS
@click.option("--split", help=f"Default: {SPLIT} of EfficientNet-Lite0.")
@PREPROCESSING
@TASK
@click.option(
    "--profile",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path),
    help="Given to both sides; default: the shipped one, or one of the clip.",
)
@click.option("--qp", default=20, show_default=True, type=click.IntRange(0, 51))
@click.option(
    "--bitrate",
    type=FiniteRange(min=8),
    help="kbit/s on the link, kept by the session: qp is then the finest; default: that qp always.",
)
@click.option("--frames", default=96, show_default=True, type=click.IntRange(2))
@click.option(
    "--loss",
    "losses",
    default="0,1,5,10,20,30",
    show_default=True,
    callback=parse_numbers,
    help="Per cent of datagrams; 0 is always there.",
)
@click.option("--burst", default=3.0, show_default=True, help="Datagrams lost in a row, mean.")
@click.option("--rtt", default=100.0, show_default=True, help="Round trip, ms.")
@click.option(
    "--jitter", default=0.0, show_default=True, help="Most further delay, ms: datagrams overtake."
)
@click.option("--bandwidth", type=float, help="kbit/s; default: without bound.")
@click.option("--max-latency", default=200.0, show_default=True, help="ms beyond the link's delay.")
@click.option("--references", default=8, show_default=True, type=click.IntRange(2, 16))
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1), help="Of losses.")
@click.option(
    "--strategies",
    default="all",
    show_default=True,
    callback=parse_strategies,
    help=f"all, or some of: {', '.join((*STRATEGIES, ANCHOR))}.",
)
@job_options
def main(
    clips: tuple[Path, ...],
    output: Path,
    model: str,
    weights: str,
    split: str | None,
    preprocessing: Path | None,
    task: str | None,
    profile: Path | None,
    qp: int,
    bitrate: float | None,
    frames: int,
    losses: tuple[float, ...],
    burst: float,
    rtt: float,
    jitter: float,
    bandwidth: float | None,
    max_latency: float,
    references: int,
    seeds: int,
    strategies: tuple[str, ...],
    workers: int,
    cluster: str | None,
) -> None:
    """Send CLIPS over simulated links, and tell what arrives.

    Killed and started again, it goes on where it was.
    """
    if split is None and model != DEFAULT_MODEL:
        raise click.UsageError(f"--split is needed for {model}")
    names = [clip.name for clip in clips]
    if len(set(names)) < len(names):
        raise click.UsageError("two clips have the same name; a study tells them apart by it")
    torch.set_grad_enabled(False)
    written = {f"{name} of -o": output / name for name in FILES}
    replaced = {name: str(path) for name, path in written.items() if path.is_file()}
    with guarded(replaced, [("CLIPS", clip) for clip in clips]):
        weights, model = (
            str(Path(name).resolve()) if Path(name).is_file() else name for name in (weights, model)
        )
        settings = [
            Setting(
                path=clip,
                content=file_hash(clip),
                model=str(Path(model).resolve()) if is_file(model) else model,
                weights=weights,
                split=split or SPLIT,
                frames=frames,
                preprocessing=None if preprocessing is None else preprocessing.resolve(),
                task=str(Path(task).resolve()) if task and Path(task).is_file() else task,
                profile=profile,
            )
            for clip in clips
        ]
        conditions = tuple(
            Condition(
                delay=rtt / 2000,
                bandwidth=None if bandwidth is None else bandwidth * 1000,
                loss=loss / 100,
                burst=burst,
                jitter=jitter / 1000,
            )
            for loss in losses
        )
        terms = Terms(
            strategy=LIVE,
            qp=qp,
            condition=conditions[0],
            references=references,
            max_latency=max_latency / 1000,
            bitrate=None if bitrate is None else bitrate * 1000,
        )
        store = Store(output / "jobs")
        ours = _planned(settings, terms, strategies, conditions, seeds)
        failed = complete(ours, store, workers=workers, cluster=cluster)
        results = [store.read(job.key) for job in ours if job.key in store]
        if ANCHOR in strategies:
            anchors = _anchors(settings, terms, conditions, seeds, _rows(results))
            failed += complete(anchors, store, workers=workers, cluster=cluster)
            results += [store.read(job.key) for job in anchors if job.key in store]
        rows = _rows(results)
        if not rows:
            raise click.ClickException(f"nothing was measured; the first failure: {failed[0]}")
        found = means(rows)
        parity = []
        if any(row["strategy"] == LIVE and row.get("qp") == qp for row in found):
            parity = estimates(
                found,
                strategy=LIVE,
                qp=qp,
                condition=conditions[0],
                max_latency=max_latency / 1000,
                frame_rate=_frame_rate(rows),
            )
        stamp = {
            "command": provenance.command("tools.link_study", sys.argv[1:]),
            **provenance.stamp(),
        }
        described = {
            "provenance": stamp,
            "terms": asdict(terms),
            "conditions": [asdict(condition) for condition in conditions],
            "clips": {one.path.name: one.content for one in settings},
        }
        write_text(output / "results.csv", _table(rows))
        write_text(output / "means.csv", _table(found))
        write_text(output / "parity.csv", _table(parity))
        write_text(output / "study.json", json.dumps(described, indent=1))
        title = (
            f"{len(clips)} clips, {frames} frames, qp {qp}: losses in bursts of {burst:g}, round "
            f"trip {rtt:g} ms"
        )
        save(link_figure(found, qp=qp, title=title), output / "loss")
        provenance.warn_of_other_code(results)
        _tell(found, parity, qp)
        if failed:
            raise click.ClickException(f"{len(failed)} measurements failed, the first: {failed[0]}")


def _planned(
    settings: Sequence[Setting],
    terms: Terms,
    strategies: Sequence[str],
    conditions: Sequence[Condition],
    seeds: int,
) -> list[LinkJob]:
    jobs = []
    for setting in settings:
        for strategy in strategies:
            if strategy == ANCHOR:
                continue
            jobs += [
                LinkJob(setting, replace(terms, strategy=strategy, condition=condition, seed=seed))
                for condition in conditions
                for seed in range(seeds if condition.loss else 1)
            ]
        if LIVE in strategies and terms.bitrate is None:
            jobs += [
                LinkJob(setting, replace(terms, qp=min(terms.qp + more, 51))) for more in COARSER
            ]
    return jobs


def _anchors(
    settings: Sequence[Setting],
    terms: Terms,
    conditions: tuple[Condition, ...],
    seeds: int,
    rows: Sequence[Mapping[str, Any]],
) -> list[PixelsJob]:
    """Give the anchor the rate that ours has on the same clip without loss."""
    jobs = []
    for setting in settings:
        rates = [
            row["kbit_per_s"]
            for row in rows
            if row["clip"] == setting.path.name
            and row["loss"] == 0
            and row["qp"] == terms.qp
            and row["strategy"] != "acknowledged"
        ]
        if rates:
            seeded = tuple(range(seeds))
            jobs.append(PixelsJob(setting, rates[0], conditions, seeded, terms.max_latency))
    return jobs


def _rows(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "commit": result["commit"]} for result in results for row in result["rows"]]


def _frame_rate(rows: Sequence[Mapping[str, Any]]) -> float:
    """Return the least frame rate of the clips: of what fits all of them."""
    return min(float(row["frame_rate"]) for row in rows)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    file = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _tell(found: Sequence[Mapping[str, Any]], parity: Sequence[Mapping[str, Any]], qp: int) -> None:
    lead = lead_of(found)
    click.echo(f"{'strategy':14}{'concealment':12}{'loss':>6}{lead:>16}{'kbit/s':>9}{'keys':>6}")
    for row in found:
        if row["qp"] in (None, qp):
            click.echo(
                f"{row['strategy']:14}{row['concealment']:12}{100 * row['loss']:5g}%"
                f"{row[lead]:16.4f}{row['kbit_per_s']:9.1f}{row['key_frames_after_first']:6.1f}"
            )
    for row in parity:
        click.echo(
            f"{row['parity']} at {100 * row['loss']:g} %: {100 * row['lost_after_parity']:.1f} % "
            f"stay lost; {lead} {row[lead]:.4f} for {row[f'{lead}_without']:.4f} without (estimate)"
        )
