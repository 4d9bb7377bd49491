"""Ulhaq & Bajić 2021 (arXiv:2102.04018), reproduced with this library's own code and carried on.

    python -m tools.motion_study all -o study/                   (needs the extra `study`)
    python -m tools.motion_study sweep -o study/ --weights-dir WEIGHTS --images PHOTOGRAPHS

Every experiment writes CSV, SVG and PNG; `all` adds `motion.html`, which sets each beside what the
paper reports, and says whether the two agree.  Verdicts are computed from the numbers.  In `jobs/`
is a file per experiment and network: the same command again does only what is not there.

Commands and files are here; each experiment is a module (`experiments.py` names them).
"""

from __future__ import annotations

import csv
import io
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codec.cli.parameters import FiniteRange
from tools.motion_study.settings import NETWORKS, SHIPPED_CLIP, Settings
from tools.running.options import job_options

if TYPE_CHECKING:  # imported inside commands, so that --help is instant
    from codec.running.jobs import Result, Store
    from tools.motion_study.experiments import ExperimentJob
    from tools.motion_study.verdicts import Report

__all__ = ["main"]

EXPERIMENTS = ("flow", "transforms", "sweep", "histogram", "hevc", "operations", "further")
HELP = {
    "flow": "Fig. 2: motion of a frame and of channels, by block matching.",
    "transforms": "Fig. 4: one picture under four motions, predicted by (12).",
    "sweep": "Fig. 5: NRMSE over the range of each motion.",
    "histogram": "Fig. 6: NRMSE over random affine motion.",
    "hevc": "Equation (14): luma frames against their tensors, same vectors.",
    "operations": "Section 2: each operation of a network alone.",
    "further": "Depth, magnitude, phase, filters, real motion, offsets.",
    "all": "Everything, and the page that sets it beside the paper.",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Reproduce "Latent space motion analysis for collaborative intelligence"."""


def _existing(**kinds: bool) -> click.Path:
    return click.Path(exists=True, path_type=Path, **kinds)


OPTIONS = (
    click.option(
        "-o",
        "--output",
        default="study",
        show_default=True,
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder for CSV files, figures and the page.",
    ),
    click.option(
        "--weights-dir",
        type=click.Path(path_type=Path),
        help="Folder with resnet34*.pth and densenet121*.pth; default: torchvision's own.",
    ),
    click.option(
        "--network",
        "networks",
        multiple=True,
        type=click.Choice(tuple(NETWORKS)),
        help="Only these (repeatable); default: all whose weights can be had.",
    ),
    click.option(
        "--images",
        type=_existing(file_okay=False),
        help="Folder of photographs; default: frames of the clips.",
    ),
    click.option(
        "--clip",
        "clips",
        multiple=True,
        type=_existing(dir_okay=False),
        help="Video (repeatable); default: the shipped clip.",
    ),
    click.option(
        "--pictures",
        default=8,
        show_default=True,
        type=click.IntRange(1),
        help="How many, spread evenly over what there is.",
    ),
    click.option(
        "--draws",
        default=1000,
        show_default=True,
        type=click.IntRange(8),
        help="Random motions of the histogram.",
    ),
    click.option(
        "--frames",
        default=24,
        show_default=True,
        type=click.IntRange(2),
        help="Frames of each clip for hevc and real motion.",
    ),
    click.option(
        "--pair",
        type=(int, int),
        help="Frames of the first clip for flow; default: where most moves.",
    ),
    click.option("--picture", default=0, type=click.IntRange(0), help="Which one for transforms."),
    click.option(
        "--step",
        default=1.0,
        type=FiniteRange(0.125),
        show_default=True,
        help="Factor on the steps of sweeps.",
    ),
    click.option(
        "--seed",
        default=0,
        show_default=True,
        type=click.IntRange(0),
        help="Of all random choices.",
    ),
    job_options,
)


def _command(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a subcommand with the options that all share."""

    def decorate(function: Callable[..., None]) -> click.Command:
        for option in reversed(OPTIONS):
            function = option(function)
        return main.command(name, help=HELP[name], short_help=HELP[name])(function)

    return decorate


def _settings(options: Mapping[str, Any]) -> Settings:
    folder = options["weights_dir"]
    if folder is not None and str(folder).startswith("random"):
        raise click.UsageError(
            "random weights are no reproduction; give a folder with trained ones"
        )
    if folder is not None and not folder.is_dir():
        raise click.UsageError(f"--weights-dir {folder}: there is no such folder")
    return Settings(
        images=options["images"],
        clips=options["clips"] or (SHIPPED_CLIP,),
        weights_dir=folder,
        networks=options["networks"] or tuple(NETWORKS),
        pictures=options["pictures"],
        draws=options["draws"],
        frames=options["frames"],
        pair=options["pair"],
        picture=options["picture"],
        seed=options["seed"],
        step=options["step"],
        progress=sys.stderr.isatty() and options["workers"] == 1,
    )


PARTS = {"further": ("depth", "magnitude", "filters", "real", "coded", "offsets")}
"""Experiments that are several."""
SINGLE = {"flow", "transforms", "operations"}
"""Those that one network is enough for: the first that there is."""


def _available(settings: Settings, asked: Sequence[str]) -> dict[str, str]:
    """Tell which networks there are weights for: name to "", or to what is missing.

    Raises:
        click.ClickException: one that was asked for has none.
    """
    from tools.motion_study.networks import load_network  # noqa: PLC0415

    found = {}
    for name in settings.networks:
        try:
            load_network(name, settings)
        except click.ClickException as error:
            if name in asked:
                raise
            found[name] = error.message
            click.echo(f"left out: {error.message}", err=True)
        else:
            found[name] = ""
    return found


def _run(names: Sequence[str], options: Mapping[str, Any]) -> None:
    """Do experiments, write their files, and with all of them the page."""
    from codec.errors import FeatureCodecError  # noqa: PLC0415
    from codec.files.outputs import one_line  # noqa: PLC0415
    from codec.running.jobs import Store, complete  # noqa: PLC0415
    from tools.motion_study.experiments import ExperimentJob  # noqa: PLC0415

    start = time.monotonic()
    settings = _settings(options)
    output: Path = options["output"]
    try:
        there = _available(settings, options["networks"])
        networks = [name for name, missing in there.items() if not missing]
        jobs = [
            ExperimentJob(part, network, settings)
            for name in names
            for part in PARTS.get(name, (name,))
            for network in (networks[:1] if part in SINGLE else networks)
        ]
        store = Store(output / "jobs")
        failed = complete(jobs, store, workers=options["workers"], cluster=options["cluster"])
        reports = _published(jobs, store, output)
        if set(names) == set(EXPERIMENTS):
            missing = [missing for missing in there.values() if missing] + failed
            _write_page(reports, missing, settings, output)
    except (FeatureCodecError, OSError) as error:
        raise click.ClickException(one_line(error)) from error
    click.echo(f"{time.monotonic() - start:.0f} s", err=True)
    if failed:
        raise click.ClickException(
            f"{len(failed)} of {len(jobs)} experiments failed, the first: {failed[0]}"
        )


def _published(jobs: Sequence[ExperimentJob], store: Store, output: Path) -> list[Report]:
    """Write tables and figures of what was measured, and say what was found."""
    from tools.motion_study.experiments import report  # noqa: PLC0415
    from tools.report.provenance import warn_of_other_code  # noqa: PLC0415
    from tools.running.outputs import write_text  # noqa: PLC0415

    results: dict[str, list[Result]] = {}
    for job in jobs:
        if job.key in store:
            results.setdefault(job.experiment, []).append(store.read(job.key))
    reports = [report(name, found, output) for name, found in results.items()]
    for one in reports:
        for name, rows in one.tables.items():
            write_text(output / f"{name}.csv", _csv(rows))
        for finding in one.findings:
            click.echo(finding.line())
    warn_of_other_code(result for found in results.values() for result in found)
    return reports


def _write_page(
    reports: Sequence[Report], missing: Sequence[str], settings: Settings, output: Path
) -> None:
    from tools.motion_study.page import page  # noqa: PLC0415
    from tools.running.outputs import write_text  # noqa: PLC0415

    text = page(reports, missing=missing, provenance=_provenance(reports, settings))
    write_text(output / "motion.html", text)
    click.echo(f"\n{output / 'motion.html'}")


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay out rows: floats to seven digits, nothing where there is no number."""
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(column, "")) for column in columns])
    return text.getvalue()


def _cell(value: Any) -> Any:  # noqa: ANN401 - whatever rows hold
    if isinstance(value, float):
        return f"{value:.7g}" if math.isfinite(value) else ""
    return value


def _provenance(reports: Sequence[Report], settings: Settings) -> dict[str, Any]:
    from tools.report.provenance import command, stamp  # noqa: PLC0415

    weights = {
        f"{row['network']} ({row['weights']})": row["weights_hash"]
        for report in reports
        for rows in report.tables.values()
        for row in rows
        if "weights_hash" in row
    }
    return {
        "command": command("tools.motion_study", sys.argv[1:]),
        **stamp(),
        "seed": settings.seed,
        "pictures": f"{settings.pictures} "
        + ("frames of the clips" if settings.images is None else f"of {settings.images.name}/"),
        "clips": ", ".join(clip.name for clip in settings.clips),
        "weights": weights,
    }


def _make_commands() -> None:
    for name in (*EXPERIMENTS, "all"):

        def command(_name: str = name, **options: Any) -> None:  # noqa: ANN401
            _run(EXPERIMENTS if _name == "all" else (_name,), options)

        _command(name)(command)


_make_commands()
