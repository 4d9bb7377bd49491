"""The rate-distortion study: clips, anchors, curves, BD-rates and a page, by one command.

    python -m tools.rate_distortion CLIPS... --split blocks.10 --qp 14:34:4 --anchors all -o study/

needs the extra `study`.  A network of one's own comes as for `lmc encode`:

    python -m tools.rate_distortion CLIPS... --model nanodet.pt2 --split add_11+add_18+add_27
        --preprocessing nanodet.toml --task detection.toml -o study/

In the folder are then

    index.html     the page; opens from disk, without network
    results.csv    a row per clip × codec × point, with what it was measured by
    frames.csv     the same frame by frame
    study.json     all of it
    figures/       curves and BD-rates as SVG and PNG
    jobs/          one file per measurement: the same command again does only what is not there

A codec of your own takes part by `--codec package.module:Name`; see tools/README.md.

Who takes part and how it is judged: `tools/contenders`; what follows from it: `study.py`; how it
does a lot: `tools/running`.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import torch

from codec.errors import FeatureCodecError
from codec.files.outputs import one_line
from codec.files.video import VideoReader
from codec.format.header import Preprocessing
from codec.format.profile import Profile
from codec.models import DEFAULT_MODEL
from codec.models.networks import Network, open_network
from codec.models.sources import is_file
from codec.models.submodels import SplitModel, split_model
from codec.pipeline.network_tasks import described, task_of
from codec.pipeline.profiles import profile_of_file
from codec.running.jobs import Store, complete
from codec.running.keys import file_hash
from tools.contenders.codecs import ANCHOR_NAMES, CODEC_NAMES, study_codecs
from tools.contenders.scene import preprocessing_of
from tools.rate_distortion.bd_rate import render
from tools.rate_distortion.figures import bd_rate_figure, rate_distortion_figure
from tools.rate_distortion.measurement import PointJob, ShowcaseJob
from tools.rate_distortion.page import study_page
from tools.rate_distortion.study import FIDELITIES, FILES, Study, limits_option, rows_of
from tools.report import provenance
from tools.report.figures import save
from tools.running.options import job_options
from tools.running.outputs import guarded, write_text

SHOWCASE_QP = 26
"""Where KL is about 0.1."""
TESTS = ("lmc", "lmc-effort7")
"""What is compared with all others; the task refinement is for classes only."""


def parse_range(context: click.Context, option: click.Parameter, value: str) -> tuple[int, ...]:
    """Read START:STOP:STEP, both ends included, as 14:34:4 is 14, 18, … 34; or one number."""
    try:
        numbers = [int(part) for part in value.split(":")]
        start, stop, step = numbers if len(numbers) == 3 else (numbers[0], numbers[0], 1)
        if len(numbers) not in {1, 3} or step < 1 or not 0 <= start <= stop <= 51:
            raise ValueError(value)  # noqa: TRY301
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not START:STOP:STEP with 0 <= START <= STOP <= 51", context, option
        ) from error
    return tuple(range(start, stop + 1, step))


def parse_names(context: click.Context, option: click.Parameter, value: str) -> tuple[str, ...]:
    """Read `all`, `none`, or names with commas between."""
    if value in {"all", "none"}:
        return ANCHOR_NAMES if value == "all" else ()
    names = tuple(name.strip() for name in value.split(","))
    _known(names, context, option)
    return names


def parse_codecs(
    context: click.Context, option: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    """Refuse names that nothing is known by."""
    _known(value, context, option)
    return value


def _known(names: Sequence[str], context: click.Context, option: click.Parameter) -> None:
    for name in names:
        try:
            study_codecs(name, qps=(24,))
        except ValueError as error:
            raise click.BadParameter(str(error), context, option) from error


def read_labels(path: Path) -> dict[str, dict[int, int] | int]:
    """Read true classes from a CSV: clip,class or clip,frame,class.

    Raises:
        click.ClickException: other columns, or a class that is no number.
    """
    found: dict[str, dict[int, int] | int] = {}
    with rows_of(path) as (columns, rows):
        if not {"clip", "class"} <= set(columns):
            raise click.ClickException(
                f"{path}: has the columns {', '.join(columns)}; expected "
                "clip,class or clip,frame,class"
            )
        for row in rows:
            if "frame" in row:
                frames = found.setdefault(row["clip"], {})
                assert isinstance(frames, dict)
                frames[int(row["frame"])] = int(row["class"])
            else:
                found[row["clip"]] = int(row["class"])
    return found


def describe_clip(
    path: Path,
    preprocessing: Preprocessing,
    frames: int,
    labels: dict[str, dict[int, int] | int],
) -> tuple[dict[str, Any], tuple[int, int], tuple[int, ...] | None]:
    """Look into a clip: what the page says of it, the size that the model sees, its labels.

    Raises:
        VideoError: it is none.
        click.ClickException: labels are missing for some frame.
    """
    with VideoReader(path, preprocessing, frames=(0, frames)) as reader:
        count = sum(1 for _ in reader)
        size = (reader.height, reader.width)
        clip = {
            "name": path.name,
            "width": reader.source_width,
            "height": reader.source_height,
            "frame_rate": float(Fraction(reader.frame_rate)),
            "frames": count,
            "sha256": file_hash(path),
        }
    given = labels.get(path.name)
    if given is None:
        return clip, size, None
    classes = (
        [given] * count if isinstance(given, int) else [given.get(n, -1) for n in range(count)]
    )
    if -1 in classes:
        raise click.ClickException(
            f"{path.name}: the labels say nothing of frame {classes.index(-1)}"
        )
    return clip, size, tuple(classes)


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
@click.option("--model", default=DEFAULT_MODEL, show_default=True)
@click.option("--weights", default="default", show_default=True)
@click.option("--split", "splits", multiple=True, default=("blocks.10",), show_default=True)
@click.option(
    "--preprocessing",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path),
    help="TOML: how frames become the input of a network of your own; known of those by name.",
)
@click.option(
    "--task",
    help="What the outputs of a network of your own stand for: classification, detection, masks, "
    "keypoints, segmentation, anything, or a TOML file.",
)
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path),
    help="A file of `lmc calibrate`, one for each split, which both sides have been given, so that "
    "it does not count.",
)
@click.option(
    "--qp",
    "qps",
    default="14:34:4",
    show_default=True,
    metavar="START:STOP:STEP",
    callback=parse_range,
    help="Of our own codec, both ends included.",
)
@click.option(
    "--codec",
    "tests",
    multiple=True,
    callback=parse_codecs,
    help="What is compared with all others; a name, or MODULE:NAME of your own; default: lmc, and "
    "of classifiers lmc-effort7.",
)
@click.option(
    "--anchors",
    default="all",
    show_default=True,
    metavar="NAMES",
    callback=parse_names,
    help=f"all, none, or some of: {', '.join(ANCHOR_NAMES)}.",
)
@click.option("--frames", default=64, show_default=True, type=click.IntRange(1))
@limits_option
@click.option(
    "--labels",
    "label_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="True classes, for accuracy: a CSV of clip,class or clip,frame,class.",
)
@job_options
@click.option("--pictures/--no-pictures", default=True, help="Frames and channels on the page.")
def main(
    clips: tuple[Path, ...],
    output: Path,
    model: str,
    weights: str,
    splits: tuple[str, ...],
    preprocessing: Path | None,
    task: str | None,
    profiles: tuple[Path, ...],
    qps: tuple[int, ...],
    tests: tuple[str, ...],
    anchors: tuple[str, ...],
    frames: int,
    limits: tuple[float, float],
    label_file: Path | None,
    workers: int,
    cluster: str | None,
    pictures: bool,
) -> None:
    """Measure CLIPS by every codec at every point, and make the page.

    Killed and started again, it goes on where it was.
    """
    torch.set_grad_enabled(False)
    inputs = [
        ("--labels", label_file),
        ("--weights", weights),
        ("--model", model),
        ("--preprocessing", preprocessing),
        ("--task", task),
        *(("--profile", profile) for profile in profiles),
    ]
    with guarded(_written_over(output), [*inputs, *(("CLIPS", clip) for clip in clips)]):
        pass  # what follows tells its own errors
    names = [path.name for path in clips]
    if len(set(names)) < len(names):
        raise click.UsageError("two clips have the same name; a study tells them apart by it")
    splits = tuple(dict.fromkeys(splits))
    try:
        labels = read_labels(label_file) if label_file else {}
        network = open_network(model, weights)
        kind = task_of(described(task), network.name).name
        taken = preprocessing_of(model, weights, preprocessing)
        looked = [describe_clip(path, taken, frames, labels) for path in clips]
        specs = {
            split: split_model(network.module, split, looked[0][1], network.name)
            for split in splits
        }
        given = profiles_by_split(profiles, network, splits)
    except (FeatureCodecError, OSError) as error:
        raise click.ClickException(one_line(error)) from error
    if labels and kind != "classification":
        raise click.UsageError(f"--labels are true classes, and the task of {model} is {kind}")
    tests = tests or (TESTS if kind == "classification" else TESTS[:1])

    if Path(weights).is_file():
        weights = str(Path(weights).resolve())
    if is_file(model):
        model = str(Path(model).resolve())
    if task is not None and Path(task).is_file():
        task = str(Path(task).resolve())
    scenes = [
        {
            "path": path,
            "content": clip["sha256"],
            "model": model,
            "weights": weights,
            "split": split,
            "frames": frames,
            "labels": classes,
            "preprocessing": preprocessing,
            "task": task,
        }
        for path, (clip, _, classes) in zip(clips, looked, strict=True)
        for split in ("", *splits)
    ]
    points = planned(scenes, dict.fromkeys((*tests, *anchors)), qps, given)
    showcases = [
        ShowcaseJob(
            **{name: scene[name] for name in scene if name != "labels"},
            qp=SHOWCASE_QP,
            profile=given.get(scene["split"]),
        )
        for scene in scenes
        if scene["split"] and pictures
    ]
    jobs: list[PointJob | ShowcaseJob] = [*points, *showcases]
    try:
        store = Store(output / "jobs")
        failed = complete(
            jobs, store, workers=workers, cluster=cluster, again=lambda result: "refused" in result
        )
        study = Study(
            settings={
                "model": network.name,
                "weights": Path(weights).name,
                "task": kind,
                "frames": frames,
                "test": list(dict.fromkeys(job.name for job in points if job.codec in tests)),
                "kl": list(limits),
                "splits": [_described(name, split) for name, split in specs.items()],
                "clips": [clip for clip, _, _ in looked],
            },
            provenance={
                "command": provenance.command("tools.rate_distortion", sys.argv[1:]),
                **provenance.stamp(),
            },
            **_measured(points, showcases, store),
        )
        publish(study, output)
    except (FeatureCodecError, OSError) as error:
        raise click.ClickException(one_line(error)) from error
    provenance.warn_of_other_code(study.points)
    _tell(study)
    click.echo(f"\n{output / 'index.html'}")
    if failed:
        raise click.ClickException(
            f"{len(failed)} of {len(jobs)} measurements failed and are not in the study, the "
            f"first: {failed[0]}"
        )


def profiles_by_split(
    paths: Sequence[Path], network: Network, splits: Sequence[str]
) -> dict[str, Path]:
    """Return the profile that was measured for each split, where there is one.

    Raises:
        click.UsageError: a profile is for none of the splits, or two are for one.
        ModelError: it was measured for another network.
    """
    found: dict[str, Path] = {}
    for path in paths:
        split = str(Profile.load(path).provenance.get("split", splits[0]))
        if split not in splits:
            raise click.UsageError(
                f"{path.name}: measured for the split {split}, asked for {', '.join(splits)}"
            )
        if split in found:
            raise click.UsageError(f"{found[split].name} and {path.name} are both for {split}")
        profile_of_file(path, network.name, split, network.hash)
        found[split] = path
    return found


def _described(name: str, split: SplitModel) -> dict[str, Any]:
    """Return what the page says of a split."""
    return {
        "name": name,
        "elements": sum(spec.elements for spec in split.tensors),
        "tensors": ", ".join("×".join(map(str, spec.shape)) for spec in split.tensors),
    }


def _measured(
    points: Sequence[PointJob], showcases: Sequence[ShowcaseJob], store: Store
) -> dict[str, Any]:
    """Return the results of jobs as fields of `Study`."""
    results = [store.read(job.key) for job in points if job.key in store]
    named = ("clip", "split", "codec", "variant", "point")
    return {
        "points": [result for result in results if "refused" not in result],
        "refused": [
            {**{name: one[name] for name in named}, "reason": one["refused"]}
            for one in results
            if "refused" in one
        ],
        "showcases": [store.read(job.key) for job in showcases if job.key in store],
    }


def _tell(study: Study) -> None:
    """Print the comparisons and what follows from them."""
    for split in study.splits:
        for test in study.settings["test"]:
            for measure in study.measures:
                if chosen := study.compared(split, test, measure):
                    click.echo(render(chosen) + "\n")
    for one in study.fidelities():
        shown = (f"{name} {one[name]:.3g}" for name in FIDELITIES if one[name] is not None)
        where = " ".join(filter(None, (one["codec"], one["split"])))
        click.echo(f"{where} at KL {one['kl']:g}, {one['clips']} clips: {', '.join(shown)}")
    for line in study.findings():
        click.echo(line)


def planned(
    scenes: Sequence[dict[str, Any]],
    names: Iterable[str],
    qps: Sequence[int],
    profiles: Mapping[str, Path] | None = None,
) -> list[PointJob]:
    """Make the jobs of every codec on every scene that it is for.

    Args:
        scenes: fields of `PointJob`.
        names: what `study_codecs` takes.
        qps: points of our own codec.
        profiles: by split, for our own codec.

    Raises:
        click.UsageError: two of them give codecs of one name, whose curves nobody could tell apart.
    """
    codecs = [(name, codec) for name in names for codec in study_codecs(name, qps=qps)]
    called: dict[str, str] = {}
    for name, codec in codecs:
        if called.setdefault(codec.name, name) != name:
            raise click.UsageError(f"{called[codec.name]} and {name} are both called {codec.name}")
    given = profiles or {}
    return [
        PointJob(
            **scene,
            codec=name,
            name=codec.name,
            variant=codec.variant,
            point=float(point),
            # what others measure does not depend on it
            profile=given.get(scene["split"]) if name in CODEC_NAMES else None,
        )
        for scene in scenes
        for name, codec in codecs
        if codec.needs_split == bool(scene["split"])
        for point in codec.points
    ]


def _written_over(output: Path) -> dict[str, str]:
    """Return the files of an earlier study, or of something else, that the new one replaces."""
    paths = [output / name for name in (*FILES, "index.html")]
    return {f"{path.name} of -o": str(path) for path in paths if path.is_file()}


def publish(study: Study, output: Path) -> None:
    """Write tables, figures and the page."""
    study.write(output)
    content = study.to_json()
    figures = output / "figures"
    figures.mkdir(exist_ok=True)
    for split in study.splits:
        save(rate_distortion_figure(content, split, None), figures / f"curves-{split}")
        for measure in study.measures:
            if measure.compared and measure != study.lead:
                drawn = rate_distortion_figure(content, split, None, measure)
                save(drawn, figures / f"curves-{split}-{measure.name}")
        for clip in study.settings["clips"]:
            name = f"curves-{split}-{clip['name']}"
            save(rate_distortion_figure(content, split, clip["name"]), figures / name)
        if any(one.split == split for one in study.comparisons):
            save(bd_rate_figure(content, split), figures / f"bd-rate-{split}")
    write_text(output / "index.html", study_page(content))
