"""What each tool of the encoder is worth: BD-rate and time, with it and without.

    python -m tools.ablation CLIPS... -o ablation.csv                   (needs the extra `study`)

The reference is the default effort.  A tool that it has is taken away; one that it lacks is added.
Rates and KL are those of the rate-distortion study, streams decoded and checked, and so is the
comparison.  Decoder-side tools are not here: without them there is no stream to decode.
"""

import csv
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from codec.encoding.config import EncoderConfig
from codec.files.outputs import ended_by_signals, naming
from codec.models import DEFAULT_MODEL
from tools.contenders.codecs import LatentMotionCodec
from tools.contenders.scene import Scene
from tools.rate_distortion.bd_rate import MARGIN, bd_rate, envelope
from tools.running.outputs import guarded

FIGURES = ("bytes_per_frame", "kl", "seconds_encode")
ROUNDING = 0.3
"""Of magnitudes, where levels are not chosen by rate and distortion: a plain dead zone."""
DEFAULT = EncoderConfig().decided_by()

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "without rate-distortion optimised levels": {"decisions": replace(DEFAULT, rounding=ROUNDING)},
    "without finer key frames": {"decisions": replace(DEFAULT, key_offset=0)},
    "without the choice between field and none": {
        "decisions": replace(DEFAULT, field_or_none=False)
    },
    "with every block tried intra": {"decisions": replace(DEFAULT, intra_margin=1e9)},
    "with the task refinement of effort 5": {"effort": 5},
    "with a 16-pixel grid": {"grid": 16},
    "without motion": {"motion": "zero"},
    "without prediction": {"motion": "none"},
}
"""Fields of the codec."""


@click.command()
@click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--split", default="blocks.10", show_default=True)
@click.option("--qp", "qps", multiple=True, type=int, default=tuple(range(20, 40, 2)))
@click.option("--frames", default=64, show_default=True)
def main(
    clips: tuple[Path, ...], output: Path, split: str, qps: tuple[int, ...], frames: int
) -> None:
    """Measure CLIPS with and without each tool; print BD-rates, write one CSV row a point."""
    with guarded({"-o": str(output)}, [("CLIPS", clip) for clip in clips]):
        _measure(clips, output, split, qps, frames)


def _measure(
    clips: Sequence[Path], output: Path, split: str, qps: Sequence[int], frames: int
) -> None:
    scenes = [
        Scene.load(clip, model=DEFAULT_MODEL, weights="default", split=split, frames=frames)
        for clip in clips
    ]
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    # row by row: what an interruption leaves is of use
    with output.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("setting", "clip", "split", "qp", *FIGURES))
        for setting, fields in SETTINGS.items():
            found[setting] = {scene.clip: [] for scene in scenes}
            codec = LatentMotionCodec(setting, tuple(map(float, qps)), **fields)
            for scene in scenes:
                for qp in codec.points:
                    coded = codec.code(scene, qp)
                    kl = scene.judge(coded).figures()["kl"]
                    figures = (coded.size / scene.frames, kl, coded.seconds["encode"])
                    found[setting][scene.clip].append(dict(zip(FIGURES, figures, strict=True)))
                    with naming(str(output)):
                        rows.writerow((setting, scene.clip, split, int(qp), *figures))
                        file.flush()
            click.echo(_line(setting, found), file=sys.stdout)


def _line(setting: str, found: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """Compare one setting with the default."""
    cells, seconds = [], [0.0, 0.0]
    for clip, reports in found[setting].items():
        both = (found["default"][clip], reports)
        fronts = [
            envelope(((row["bytes_per_frame"], row["kl"]) for row in one), margin=MARGIN)
            for one in both
        ]
        for number, one in enumerate(both):
            seconds[number] += sum(row["seconds_encode"] for row in one)
        (rate_a, kl_a), (rate_b, kl_b) = (tuple(zip(*front, strict=True)) for front in fronts)
        try:
            cells.append(bd_rate(rate_a, kl_a, rate_b, kl_b).percent)
        except ValueError:
            cells.append(float("nan"))
    listed = " ".join(f"{cell:+7.1f}" for cell in cells)
    return (
        f"{setting:52} {listed}   mean {np.nanmean(cells):+6.1f} %, "
        f"coding time x {seconds[1] / seconds[0]:.2f}"
    )


if __name__ == "__main__":
    with ended_by_signals():
        main()
