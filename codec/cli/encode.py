"""`lmc encode`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from codec.cli.group import main
from codec.cli.parameters import (
    DEVICE,
    EFFORT,
    FORCE,
    LIMITS,
    MODEL,
    NATIVE,
    PREPROCESSING,
    PROFILE,
    QP,
    QUALITY,
    SPLIT,
    TASK,
    TRUTH,
    TRUTH_FRAMES,
    WEIGHTS,
    FrameRange,
    Target,
    own_files,
    split_or_default,
    usable_device,
    weight_file,
)
from codec.cli.terminal import check_files, print_report, progress, refuse_terminal, say, write_json
from codec.encoding.config import DEFAULT_QUALITY, QUALITIES, EncoderConfig
from codec.encoding.rate_control import SETTLED
from codec.files.damage import DAMAGE_POLICIES, DamagePolicy
from codec.files.outputs import open_output, standard_stream
from codec.format.constants import MAX_GRID, MAX_QP, MIN_GRID
from codec.limits import Limits
from codec.pipeline.options import MOTION_SOURCES, VideoOptions

__all__ = ["encode"]

OPTIONS = VideoOptions()
CONFIG: EncoderConfig = OPTIONS.config


@main.command()
@click.argument("video")
@click.option(
    "-o", "--output", required=True, help="Stream to write, usually *.lmc; - is standard output."
)
@MODEL
@SPLIT
@WEIGHTS
@PROFILE
@click.option(
    "--profile-apart",
    is_flag=True,
    help="The stream has only the hash of --profile; decoders are given the file: "
    "`lmc decode --profile`.",
)
@PREPROCESSING
@TASK
@NATIVE
@click.option("--frames", type=FrameRange(), help="N: the first N; A:B: from A to B - 1.")
@click.option(
    "--damaged",
    type=click.Choice(DAMAGE_POLICIES),
    default=OPTIONS.damaged,
    show_default=True,
    help="Of a damaged video: stop at the first damage, and write nothing; skip what is damaged or "
    "depends on it, up to the next key frame, and say how much was lost; or conceal: take what a "
    "lenient decoder makes of it.",
)
@QUALITY
@QP
@click.option(
    "--bitrate",
    type=Target("bitrate"),
    metavar="KBIT",
    help="Kbit/s to keep in place of a qp, counting the whole file; from 100 frames on at most 5 % "
    f"above it, if qp {MAX_QP} allows it.",
)
@click.option(
    "--target-nrmse",
    type=Target("target_nrmse"),
    metavar="X",
    help="NRMSE of the whole clip to come to, in place of a qp. It counts errors everywhere alike, "
    "and so does the encoder then, whatever the profile predicts.",
)
@click.option(
    "--keyint",
    type=click.IntRange(1),
    default=CONFIG.keyint,
    show_default=True,
    help="Most frames between key frames.",
)
@EFFORT
@click.option("--no-scene-cut", is_flag=True, help="No key frames but those of --keyint.")
@click.option(
    "--motion",
    type=click.Choice(MOTION_SOURCES),
    default=OPTIONS.motion,
    show_default=True,
    help="Where vectors come from; none: no prediction; bitstream: those of the input video.",
)
@click.option(
    "--grid",
    type=click.IntRange(MIN_GRID, MAX_GRID),
    default=OPTIONS.grid,
    show_default=True,
    help="Pixels between vectors.",
)
@click.option(
    "--search-range",
    type=click.IntRange(1, 256),
    default=OPTIONS.search_range,
    show_default=True,
    help="Pixels.",
)
@click.option(
    "--evaluate",
    is_flag=True,
    help="Finish the task with decoded and with uncoded features and report how they agree, with "
    "the latter taken for the truth. Classes: kl, top1_agreement; things found: ap, ap50 (average "
    "precision of COCO), score_error, distortion, mask_iou of masks, and how many were found, "
    "found_uncoded; label maps: miou, pixel_agreement, distortion; any other outputs: error.",
)
@TRUTH
@TRUTH_FRAMES
@click.option(
    "--report",
    type=click.Path(dir_okay=False),
    help="Write the report, with per-frame MD5s, as JSON; - is standard output.",
)
@LIMITS
@click.option("-q", "--quiet", is_flag=True, help="No progress, no report on the terminal.")
@DEVICE
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=OPTIONS.batch,
    show_default=True,
    help="Frames that go through the edge sub-model at once, for what computes them faster so.",
)
@FORCE
def encode(
    video: str,
    output: str,
    model: str,
    split: str | None,
    weights: str,
    profile: Path | None,
    profile_apart: bool,
    preprocessing: Path | None,
    task: str | None,
    native: bool,
    frames: tuple[int, int | None] | None,
    damaged: DamagePolicy,
    quality: str | None,
    qp: int | None,
    bitrate: float | None,
    target_nrmse: float | None,
    keyint: int,
    effort: int,
    no_scene_cut: bool,
    motion: str,
    grid: int,
    search_range: int,
    evaluate: bool,
    truth: Path | None,
    truth_frames: int | Literal["order"] | None,
    report: str | None,
    limits: Limits,
    quiet: bool,
    device: str,
    batch: int,
    force: bool,
) -> None:
    """Encode VIDEO (a file, or - for standard input) to a stream of feature tensors."""
    from codec.files.streams import StreamWriter
    from codec.pipeline.encoding import VideoEncoder

    split = split_or_default(model, split)
    aims = {"--quality": quality, "--qp": qp, "--bitrate": bitrate, "--target-nrmse": target_nrmse}
    given = [option for option, value in aims.items() if value is not None]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other; give one of them")
    if profile_apart and profile is None:
        raise click.UsageError("--profile-apart needs --profile FILE, which decoders are given too")
    if truth is not None and not evaluate:
        raise click.UsageError("--truth is what --evaluate compares with; give both")
    check_files(
        {"-o": output, "--report": report},
        [
            ("VIDEO", video),
            *own_files(model, task),
            ("--profile", profile),
            ("--preprocessing", preprocessing),
            ("--truth", truth),
            ("--weights", weight_file(weights)),
        ],
        force=force,
    )
    if video == "-":
        refuse_terminal("stdin")
        standard_stream("stdin")
    options = VideoOptions(
        model=model,
        split=split,
        weights=weights,
        profile=profile,
        profile_apart=profile_apart,
        preprocessing=preprocessing,
        task=task,
        native=native,
        frames=frames,
        damaged=damaged,
        motion=motion,
        grid=grid,
        search_range=search_range,
        measure=report is not None,
        evaluate=evaluate,
        truth=truth,
        truth_frames=truth_frames,
        device=usable_device(device),
        batch=batch,
        config=EncoderConfig(
            qp=QUALITIES[quality or DEFAULT_QUALITY] if qp is None else qp,
            keyint=keyint,
            scene_cut=not no_scene_cut,
            effort=effort,
        ),
        bitrate=bitrate,
        target_nrmse=target_nrmse,
        limits=limits,
    )
    encoder = VideoEncoder(video, options)
    rate = float(encoder.frame_rate)
    with open_output(output, force=force) as file:
        writer = StreamWriter(file, encoder.header, limits)
        with progress(encoder.frame_count_hint, quiet=quiet) as advance:
            for encoded in encoder:
                writer.write(encoded.packet)
                advance(f"{writer.bytes_written * 8e-3 * rate / writer.frames:.1f} kbit/s")
        writer.close()
    found = encoder.report(writer.bytes_written, writer.header_bytes)
    if report is not None:
        write_json(report, found, force=force)
    if not quiet:
        print_report(found, to_stderr="-" in (output, report))
    _warn_of_damage(video, found)
    _warn_of_missed_target(found)


def _warn_of_damage(video: str, report: dict[str, Any]) -> None:
    places, lost = report["source_damage"], report["source_frames_lost"]
    if places:
        click.echo(
            f"lmc: warning: {video}: {places} damaged {'place' if places == 1 else 'places'}, "
            f"{lost} {'frame' if lost == 1 else 'frames'} lost",
            err=True,
        )


def _warn_of_missed_target(report: dict[str, Any]) -> None:
    if report.get("target_met", True):
        return
    notes = ""
    if "target_nrmse" in report:
        text = f"nrmse {report['nrmse']:.4g} instead of {report['target_nrmse']:g}"
    else:
        text = f"{report['kbit_per_s']:.4g} kbit/s instead of {report['target_kbit_per_s']:g}"
        allowed = report["target_kbit_per_s"] * 125 * report["frames"] / report["frame_rate"]
        if report["bytes_header"] > allowed:
            notes += f"; the header alone, {report['bytes_header']} bytes, is more than that"
        if report["frames"] < SETTLED:
            notes += f"; clips under {SETTLED} frames may be over"
    qp = f"qp {report['qp_min']} to {report['qp_max']}"
    say(f"lmc: warning: {text}; {qp}{notes}", err=True)
