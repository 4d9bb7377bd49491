"""`lmc calibrate`."""

from __future__ import annotations

from pathlib import Path

import click

from codec.cli.group import main
from codec.cli.parameters import (
    DEVICE,
    FORCE,
    MODEL,
    PREPROCESSING,
    SPLIT,
    TASK,
    WEIGHTS,
    split_or_default,
    usable_device,
    weight_file,
)
from codec.cli.terminal import check_files, print_report, progress, say
from codec.files.outputs import open_output

__all__ = ["calibrate"]


@main.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("-o", "--output", required=True, help="Profile to write, usually *.safetensors.")
@MODEL
@SPLIT
@WEIGHTS
@PREPROCESSING
@TASK
@click.option(
    "--views",
    type=click.IntRange(1, 4096),
    default=2,
    show_default=True,
    help="Views cut from a photograph, pairs of frames taken from a video.",
)
@click.option(
    "--probes",
    type=click.IntRange(1, 4096),
    default=4,
    show_default=True,
    help="Random gradients of the task for each of them.",
)
@click.option(
    "--budget",
    type=click.IntRange(1),
    help="Bytes that the matrices of all tensors may take together, about the size of the profile; "
    "with less, frequencies share matrices, and tensors for which none is left have a higher rate. "
    "Default: 1500000 for each tensor.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of views and probes."
)
@click.option("-q", "--quiet", is_flag=True, help="Nothing on the terminal.")
@DEVICE
@FORCE
def calibrate(
    sources: tuple[Path, ...],
    output: str,
    model: str,
    split: str | None,
    weights: str,
    preprocessing: Path | None,
    task: str | None,
    views: int,
    probes: int,
    budget: int | None,
    seed: int,
    quiet: bool,
    device: str,
    force: bool,
) -> None:
    """Measure the profile of a model and split on SOURCES: photographs or videos, no labels.

    A few hundred photographs of any kind do well. A run that was interrupted goes on from
    OUTPUT.partial when it is started again with the same arguments; the file is the same.
    """
    import torch

    from codec.files.video import VideoReader
    from codec.models.networks import open_network
    from codec.models.preprocessing import default_preprocessing, read_preprocessing
    from codec.models.submodels import split_model
    from codec.pipeline.calibration import CalibrationOptions, calibrate, steps_of
    from codec.pipeline.network_tasks import described, task_of

    split = split_or_default(model, split)
    inputs: list[tuple[str, str | Path | None]] = [("SOURCES", source) for source in sources]
    inputs += [("--weights", weight_file(weights)), ("--preprocessing", preprocessing)]
    check_files({"-o": output}, inputs, force=force)
    checkpoint: Path | None = Path(f"{output}.partial")
    if output == "-" or (Path(output).exists() and not Path(output).is_file()):
        checkpoint = None  # there is no file to be beside
    else:  # which may exist: the job goes on from it
        check_files({"the checkpoint": str(checkpoint)}, inputs, force=True)
    place = usable_device(device)
    warnings: list[str] = []
    said = described(task)
    fitting = (
        default_preprocessing(model, native=False, weights=weights)
        if preprocessing is None
        else read_preprocessing(preprocessing)
    )
    size = fitting.input_size
    if size is None:  # that of whole frames: the first one's decides
        with VideoReader(sources[0], fitting) as reader:
            size = reader.height, reader.width
    options = CalibrationOptions(views=views, probes=probes, seed=seed, budget=budget)
    with torch.no_grad():
        network = open_network(model, weights, device=place)
        with progress(steps_of(len(sources)), quiet=quiet, unit="step") as advance:
            profile = calibrate(
                split_model(network.module, split, size, network.name),
                sources,
                fitting,
                options,
                task=task_of(said, network.name),
                weights_hash=network.hash,
                device=place,
                checkpoint=checkpoint,
                force=force,
                advance=lambda count: advance("", count),
                warn=warnings.append,
            )
    with open_output(output, force=force) as file:
        profile.to_file(file)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    if not quiet:
        for text in warnings:
            say(f"lmc: warning: {text}", err=True)
        found = profile.provenance | {"profile_bytes": len(profile.to_bytes())}
        print_report(found, to_stderr=output == "-")
