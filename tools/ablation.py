"""What each tool of the encoder is worth: BD-rate and time, with it and without.

    python -m tools.ablation CLIPS... -o ablation.csv                   (needs the extra `study`)
    python -m tools.ablation CLIPS... -o ablation.csv --model nanodet.pt2 --split cat_4
        --preprocessing input.toml --task detection.toml --profile cat_4.safetensors

The reference is the default effort.  A tool that it has is taken away; one that it lacks is added;
of importance, where the profile knows of it, other exponents are tried.
Rates and losses are those of the rate-distortion study (of classes KL, else what its page leads
with), streams decoded and checked, and so is the comparison.  Decoder-side tools are not here:
without them there is no stream to decode.
"""

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from codec.cli.parameters import MODEL, PREPROCESSING, TASK, WEIGHTS
from codec.encoding.config import EncoderConfig
from codec.files.outputs import ended_by_signals, naming
from codec.format.profile import Profile
from codec.models import DEFAULT_MODEL
from codec.models.sources import model_name
from codec.pipeline.network_tasks import described, task_of
from tools.contenders.codecs import LatentMotionCodec
from tools.contenders.scene import Scene
from tools.rate_distortion.bd_rate import MARGIN, bd_rate, envelope
from tools.rate_distortion.measures import Measure, lead_of
from tools.running.outputs import guarded

SPLIT = "blocks.10"
ROUNDING = 0.3
"""Of magnitudes, where levels are not chosen by rate and distortion: a plain dead zone."""
DEFAULT = EncoderConfig().decided_by()

REFERENCE = "default"
CLASSES_ONLY = "with the task refinement of effort 5"
SETTINGS: dict[str, dict[str, Any]] = {
    REFERENCE: {},
    "without rate-distortion optimised levels": {"decisions": replace(DEFAULT, rounding=ROUNDING)},
    "without finer key frames": {"decisions": replace(DEFAULT, key_offset=0)},
    "without the choice between field and none": {
        "decisions": replace(DEFAULT, field_or_none=False)
    },
    "with every block tried intra": {"decisions": replace(DEFAULT, intra_margin=1e9)},
    "without intra blocks between key frames": {"decisions": replace(DEFAULT, intra_margin=0)},
    "with whole-pixel vectors": {"decisions": replace(DEFAULT, finest=2)},
    CLASSES_ONLY: {"effort": 5},
    "with a 16-pixel grid": {"grid": 16},
    "without motion": {"motion": "zero"},
    "without prediction": {"motion": "none"},
}
"""Fields of the codec."""
EXPONENTS = {
    "without importance": {"decisions": replace(DEFAULT, importance=0)},
    **{
        f"with importance to the power of {exponent}": {
            "decisions": replace(DEFAULT, importance=exponent)
        }
        for exponent in (0.5, 1.5)
    },
}
"""Where a profile tells how the importance of blocks is told."""


@click.command()
@click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path))
@MODEL
@WEIGHTS
@click.option("--split", help=f"Default: {SPLIT} of EfficientNet-Lite0.")
@PREPROCESSING
@TASK
@click.option(
    "--profile",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Given to both sides, and not counted; default: the shipped one, or one of the clip.",
)
@click.option("--qp", "qps", multiple=True, type=int, default=tuple(range(20, 40, 2)))
@click.option("--frames", default=64, show_default=True)
def main(
    clips: tuple[Path, ...],
    output: Path,
    model: str,
    weights: str,
    split: str | None,
    preprocessing: Path | None,
    task: str | None,
    profile: Path | None,
    qps: tuple[int, ...],
    frames: int,
) -> None:
    """Measure CLIPS with and without each tool; print BD-rates, write one CSV row a point."""
    if split is None and model != DEFAULT_MODEL:
        raise click.UsageError(f"--split is needed for {model}")
    with guarded({"-o": str(output)}, [("CLIPS", clip) for clip in clips]):
        lead = lead_of(task_of(described(task), model_name(model)).name)
        scenes = [
            replace(
                Scene.load(
                    clip,
                    model=model,
                    weights=weights,
                    split=split or SPLIT,
                    frames=frames,
                    preprocessing_file=preprocessing,
                    task_named=task,
                ),
                profile=profile,
            )
            for clip in clips
        ]
        known = profile is not None and Profile.load(profile).importance is not None
        settings = {**SETTINGS, **(EXPONENTS if known else {})}
        if not scenes[0].classifies:
            del settings[CLASSES_ONLY]
        _measure(scenes, output, settings, lead, split or SPLIT, qps)


def _measure(
    scenes: Sequence[Scene],
    output: Path,
    settings: Mapping[str, dict[str, Any]],
    lead: Measure,
    split: str,
    qps: Sequence[int],
) -> None:
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    # row by row: what an interruption leaves is of use
    with output.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            ("setting", "clip", "split", "qp", "bytes_per_frame", lead.name, "seconds_encode")
        )
        for setting, fields in settings.items():
            found[setting] = {scene.clip: [] for scene in scenes}
            codec = LatentMotionCodec(setting, tuple(map(float, qps)), **fields)
            for scene in scenes:
                for qp in codec.points:
                    coded = codec.code(scene, qp)
                    figures = scene.judge(coded).figures()
                    loss = lead.loss(figures)
                    assert loss is not None  # every task has the figure that leads
                    rate, seconds = coded.size / scene.frames, coded.seconds["encode"]
                    found[setting][scene.clip].append(
                        {"rate": rate, "loss": loss, "seconds": seconds}
                    )
                    with naming(str(output)):
                        rows.writerow(
                            (setting, scene.clip, split, int(qp), rate, figures[lead.name], seconds)
                        )
                        file.flush()
            click.echo(_line(setting, found), file=sys.stdout)


def _line(setting: str, found: dict[str, dict[str, list[dict[str, float]]]]) -> str:
    """Compare one setting with the default."""
    cells, seconds = [], [0.0, 0.0]
    for clip, reports in found[setting].items():
        both = (found[REFERENCE][clip], reports)
        fronts = [
            envelope(((row["rate"], row["loss"]) for row in one), margin=MARGIN) for one in both
        ]
        for number, one in enumerate(both):
            seconds[number] += sum(row["seconds"] for row in one)
        (rate_a, loss_a), (rate_b, loss_b) = (tuple(zip(*front, strict=True)) for front in fronts)
        try:
            cells.append(bd_rate(rate_a, loss_a, rate_b, loss_b).percent)
        except ValueError:
            cells.append(float("nan"))
    listed = " ".join(f"{cell:+7.1f}" for cell in cells)
    mean = np.nanmean(cells) if not np.isnan(cells).all() else float("nan")
    return (
        f"{setting:52} {listed}   mean {mean:+6.1f} %, coding time x {seconds[1] / seconds[0]:.2f}"
    )


if __name__ == "__main__":
    with ended_by_signals():
        main()
