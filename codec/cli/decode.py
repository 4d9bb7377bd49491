"""`lmc decode`."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from codec.cli.group import main
from codec.cli.parameters import (
    DEVICE,
    FORCE,
    LIMITS,
    PROFILE_APART,
    TRUTH,
    TRUTH_FRAMES,
    FrameRange,
    FrameSize,
    usable_device,
    weight_file,
)
from codec.cli.streams import open_stream
from codec.cli.terminal import check_files, print_report, progress, say, write_json
from codec.errors import BitstreamError, FeatureCodecError
from codec.files.damage import DAMAGE_POLICIES, DamagePolicy
from codec.files.outputs import one_line, open_output
from codec.limits import Limits

if TYPE_CHECKING:
    from codec.files.streams import StreamReader

__all__ = ["decode"]


@main.command()
@click.argument("stream")
@click.option(
    "-o",
    "--output",
    help="Write the tensors (frames, C, H, W) float32 and `pts` as .npz; - is standard output.",
)
@click.option(
    "--task",
    help="Finish the task and write its results as JSON: the top five of every frame, or boxes, "
    "masks and key points as COCO has them, image_id being the number of the frame from 0 on; - is "
    "standard output. Places are in pixels of the clip's upright frames with --reference or "
    "--source-size, else in those of the network's input.",
)
@click.option(
    "--source-size",
    type=FrameSize(),
    metavar="WxH",
    help="Size of the clip's upright frames, which the stream does not hold: places in results are "
    "in their pixels.",
)
@TRUTH
@TRUTH_FRAMES
@click.option(
    "--draw",
    help="Write an MP4 of the frames of --reference with what the uncoded network finds in them, "
    "and over it what is found in the decoded tensors; needs Pillow.",
)
@click.option("--md5", is_flag=True, help="Print the MD5 of every frame's integer latents.")
@click.option(
    "--salvage",
    is_flag=True,
    help="Of a stream that is cut or damaged, write the frames before that; the error is told all "
    "the same, and the exit code is 1.",
)
@click.option("--reference", help="Recompute NRMSE from the clip that was encoded.")
@click.option(
    "--reference-frames",
    type=FrameRange(),
    help="The range of the clip that was encoded, as --frames of `encode`.",
)
@click.option(
    "--damaged",
    type=click.Choice(DAMAGE_POLICIES[1:]),
    default="skip",
    show_default=True,
    help="How a damaged reference is read: as --damaged of `encode`.",
)
@click.option(
    "--frames", type=FrameRange(), help="N: the first N; A:B: from A to B - 1, seeking to A."
)
@PROFILE_APART
@click.option("--model", help="File of the network, if the stream was made with one of its own.")
@click.option(
    "--weights", help="Weight file for --task and --reference, if the stream was made with one."
)
@click.option(
    "--any-weights", is_flag=True, help="Accept other weights than the stream was made with."
)
@LIMITS
@click.option("-q", "--quiet", is_flag=True, help="No progress on the terminal.")
@DEVICE
@FORCE
def decode(
    stream: str,
    output: str | None,
    task: str | None,
    source_size: tuple[int, int] | None,
    truth: Path | None,
    truth_frames: int | Literal["order"] | None,
    draw: str | None,
    md5: bool,
    salvage: bool,
    reference: str | None,
    reference_frames: tuple[int, int | None] | None,
    damaged: DamagePolicy,
    frames: tuple[int, int | None] | None,
    profile: Path | None,
    model: str | None,
    weights: str | None,
    any_weights: bool,
    limits: Limits,
    quiet: bool,
    device: str,
    force: bool,
) -> None:
    """Decode STREAM (a file, or - for standard input) to tensors, to task output, or both.

    Without any of -o, --task, --truth, --md5 and --reference the stream is decoded and checked,
    and a summary printed.  Of a stream that is cut, still being written, or damaged, all frames
    before that are decoded and printed, but none are written without --salvage.
    """
    from codec.files.drawn import PictureWriter
    from codec.files.streams import BeforeFault
    from codec.files.tensors import TensorFile
    from codec.format.profile import Profile
    from codec.pipeline.decoding import (
        FeatureReference,
        TaskOutput,
        decode_frames,
        geometry_of,
        model_of,
    )
    from codec.pipeline.evaluation import Evaluation, refuse_lost
    from codec.pipeline.stages import ahead
    from codec.tasks.anything import Anything
    from codec.tasks.description import TASK_NAMES
    from codec.tasks.truth import Truth

    piped = "-" in (output, task)
    if piped and md5:
        raise click.UsageError("--md5 prints on standard output, where another output goes")
    inputs = [
        ("STREAM", stream),
        ("--reference", reference),
        ("--profile", profile),
        ("--truth", truth),
        ("--model", model),
        ("--weights", weight_file(weights)),
    ]
    if draw is not None and (reference is None or draw == "-"):
        raise click.UsageError("--draw names a file, and needs the frames of --reference")
    if task is not None and (task in TASK_NAMES or task.lower().endswith(".toml")):
        raise click.UsageError(
            f"--task {task} of decode names the file for results, as in --task results.json; the "
            "task itself is in the stream, put there by --task of encode"
        )
    if reference is not None and source_size is not None:
        raise click.UsageError("the size of --reference is known; leave --source-size out")
    check_files({"-o": output, "--task": task, "--draw": draw}, inputs, force=force)
    given = None if profile is None else Profile.load(profile)
    annotated = None if truth is None else Truth.from_file(truth, truth_frames)
    with ExitStack() as stack:
        reader = stack.enter_context(open_stream(stream, limits))
        header = reader.header
        place = usable_device(device)
        decoding = decode_frames(reader, frames=frames, device=place, profile=given)
        finish = compare = tensors = evaluation = None
        if task is not None or reference is not None or truth is not None:
            split = model_of(
                header, model=model, weights=weights, any_weights=any_weights, device=place
            )
            geometry = None
            span = _shifted(frames, reference_frames)
            if reference is not None:
                compare = FeatureReference(reference, header, split, span, place, damaged)
                stack.callback(compare.close)
                geometry = compare.geometry
            elif size := source_size or (annotated and annotated.size):
                geometry = geometry_of(header, size)
            if task is not None or draw is not None or truth is not None:
                finish = TaskOutput(header, split, geometry)
                if draw is not None and isinstance(finish.task, Anything):
                    raise FeatureCodecError(
                        "nothing is known of the network's outputs, so there is nothing to draw; "
                        "say with --task of encode what they are"
                    )
                if annotated is not None:
                    if geometry is None:
                        raise FeatureCodecError(
                            f"{truth}: is in pixels of the clip's frames, whose size the stream "
                            "does not hold; give --reference or --source-size"
                        )
                    evaluation = Evaluation(
                        finish.task, geometry, annotated, first=span[0] if span else 0
                    )
        if output is not None:
            names = [spec.name for spec in header.tensors]
            tensors = stack.enter_context(TensorFile(output, names, force=force))
        pictures = None
        if draw is not None and finish is not None:
            file = stack.enter_context(open_output(draw, force=force))
            pictures = stack.enter_context(
                PictureWriter(
                    file,
                    (finish.geometry.width, finish.geometry.height),
                    header.time_base,
                )
            )
        results = []
        count = 0
        with progress(_frame_count(reader, frames), quiet=quiet) as advance:
            # a pipe may keep its reader waiting for ever
            frames_of = stack.enter_context(
                ahead(decoding) if reader.seekable else closing(decoding)
            )
            decoded = BeforeFault(frames_of)
            for number, frame in decoded:
                if tensors is not None:
                    tensors.append([tensor.cpu().numpy() for tensor in frame.features], frame.pts)
                features = None if compare is None else compare.update(frame)
                if evaluation is not None and compare is not None:
                    refuse_lost(compare.frames_lost)
                if finish is not None:
                    outputs = finish.outputs(frame.features)
                    result = finish.result(outputs)
                    if task is not None:
                        results.extend(finish.rows(number, frame, result))
                    uncoded = None
                    if features is not None and (pictures or evaluation):
                        uncoded = finish.outputs(features)
                    if pictures is not None and compare is not None:
                        drawn = finish.drawn(result, finish.result(uncoded), compare.picture())
                        pictures.add(drawn, frame.pts)
                    if evaluation is not None:
                        evaluation.update(outputs, uncoded)
                if md5:
                    say(f"{frame.md5()}  {number}")
                count += 1
                advance("")
        if decoded.error is not None and not (salvage and count):
            if not count or (tensors is None and finish is None):
                raise decoded.error
            raise FeatureCodecError(
                f"{one_line(decoded.error)}; --salvage keeps the {count} frames before that"
            ) from decoded.error
        if not count:
            first = frames[0] if frames else 0
            raise FeatureCodecError(
                f"{stream}: has only {reader.frames_read} frames, so there is no frame {first}"
            )
        if tensors is not None:
            tensors.finish()
        if task is not None:
            write_json(task, results, force=force)
        if compare is not None:
            say(f"nrmse {compare.nrmse():.17g}", err=piped)
        if evaluation is not None:
            print_report(evaluation.figures(), to_stderr=piped)
        if not (md5 or reference or truth):
            shapes = ", ".join(
                f"{spec.name} {'x'.join(map(str, spec.shape))}" for spec in header.tensors
            )
            say(f"{count} frames: {shapes}", err=piped)
    if decoded.error is not None:  # now that all outputs are whole
        raise decoded.error


def _frame_count(reader: StreamReader, frames: tuple[int, int | None] | None) -> int | None:
    try:
        end = reader.index()
    except BitstreamError:  # the frames before the fault come first, then it is told
        return None
    return None if end is None else len(range(end.frames)[slice(*(frames or (0, None)))])


def _shifted(
    frames: tuple[int, int | None] | None, reference: tuple[int, int | None] | None
) -> tuple[int, int | None] | None:
    """Return the range of the clip that a range of the stream was made from."""
    if frames is None:
        return reference
    base = reference[0] if reference else 0
    return base + frames[0], None if frames[1] is None else base + frames[1]
