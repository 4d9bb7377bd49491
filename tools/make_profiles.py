"""Measure the shipped profiles on a folder of photographs.

    python -m tools.make_profiles PHOTOGRAPHS

One per bundled split of EfficientNet-Lite0, by `codec.calibrate`, as `lmc calibrate` does; and
the index by which they are found.  A run that was interrupted goes on where it was.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
import torch

from codec.files.outputs import ended_by_signals, open_output
from codec.format.profile import Profile
from codec.models.preprocessing import default_preprocessing
from codec.models.sources import DEFAULT_MODEL, load_model
from codec.models.split_points import BUNDLED_SPLITS
from codec.models.submodels import split_model
from codec.models.weights import weights_hash
from codec.pipeline.calibration import CalibrationOptions, calibrate
from tools.outputs import guarded

PROFILES = Path(__file__).parent.parent / "codec" / "format" / "profiles"


@click.command()
@click.argument("photographs", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--split", "splits", multiple=True, default=BUNDLED_SPLITS, show_default=True)
@click.option("--views", default=4, show_default=True, help="Of each photograph.")
@click.option("--probes", default=4, show_default=True, help="Of the cloud sub-model, per view.")
@click.option("--folder", default=PROFILES, show_default=True, type=click.Path(path_type=Path))
def main(photographs: Path, splits: tuple[str, ...], views: int, probes: int, folder: Path) -> None:
    """Write *.safetensors and their index from PHOTOGRAPHS (*.jpg)."""
    with guarded():
        _make(photographs, splits, views, probes, folder)


def _make(photographs: Path, splits: Sequence[str], views: int, probes: int, folder: Path) -> None:
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)  # the files do not depend on how many cores there are
    files = sorted(photographs.glob("*.jpg"))
    if not files:
        raise click.UsageError(f"{photographs} holds no *.jpg")
    folder.mkdir(exist_ok=True)
    model = load_model(DEFAULT_MODEL)
    preprocessing = default_preprocessing(DEFAULT_MODEL, native=False)
    for split in splits:
        start = time.perf_counter()
        path = folder / f"{DEFAULT_MODEL}_{split.replace('.', '_')}.safetensors"
        partial = path.with_suffix(".partial")
        profile = calibrate(
            split_model(model, split, (224, 224), DEFAULT_MODEL),
            files,
            preprocessing,
            CalibrationOptions(views=views, probes=probes),
            weights_hash=weights_hash(model),
            checkpoint=partial,
            warn=lambda text: click.echo(text, sys.stderr),
        )
        with open_output(str(path), force=True) as file:
            profile.to_file(file)
        partial.unlink(missing_ok=True)
        size, seconds = path.stat().st_size, time.perf_counter() - start
        click.echo(f"{path.name}: {size} bytes, {seconds:.0f} s; {profile.provenance}", sys.stderr)
        write_index(folder)


def write_index(folder: Path) -> None:
    """Write index.json: model@split and hash of every profile in the folder -> its file."""
    index: dict[str, str] = {}
    for path in sorted(folder.glob("*.safetensors")):
        profile = Profile.load(path)
        index["{model}@{split}".format_map(profile.provenance)] = path.name
        index[profile.hash.hex()] = path.name
    with open_output(str(folder / "index.json"), force=True) as file:
        file.write((json.dumps(index, indent=1) + "\n").encode())


if __name__ == "__main__":
    with ended_by_signals():
        main()
