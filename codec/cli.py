"""The `lmc` command: parse, call one library function, print.

Results go to standard output, progress to standard error.  Exit code 0: done; 1: an input or output
is at fault, said in one line; 2: wrong usage; 128 + N: ended by signal N, nothing left behind.
Heavy imports happen inside the commands, so that `--help` is instant.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from codec import __version__
from codec.errors import BitstreamError, FeatureCodecError
from codec.files.outputs import (
    STANDARD_OUTPUT,
    check_outputs,
    ended_by_signals,
    named,
    naming,
    one_line,
    standard_stream,
)

if TYPE_CHECKING:
    from codec.files.damage import DamagePolicy
    from codec.files.streams import StreamReader
    from codec.format.header import SequenceHeader
    from codec.normative.entropy import FrameSyntax

__all__ = ["main"]

_Frame = TypeVar("_Frame")


class _Lmc(click.Group):
    """Turns errors that are not bugs into one line and exit code 1, signals into 128 + their
    number.
    """

    def main(self, args: Any = None, *more: Any, **extra: Any) -> Any:  # noqa: ANN401 - click's
        """Run: as the command of this process where no arguments are given, else as a function."""
        command = args is None
        if command:
            _prepare_standard_streams()
        try:
            # what comes through is of --help and --version, which click prints outside of `invoke`
            with ended_by_signals() if command else nullcontext(), naming(STANDARD_OUTPUT):
                return super().main(args, *more, **extra)
        except OSError as error:
            sys.exit(_tell(error))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse what no file is called, however the rest is understood."""
        for word in args:
            if "\0" in word:
                raise click.UsageError(f"{word!r} holds a NUL, which no argument may", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        try:
            return super().invoke(ctx)
        except (FeatureCodecError, OSError) as error:
            ctx.exit(_tell(error))
        except KeyboardInterrupt:
            ctx.exit(128 + signal.SIGINT)


def _prepare_standard_streams() -> None:
    """Keep files that will be opened off the numbers of closed streams, which libraries print to;
    print what the terminal has no letters for as escapes.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    with suppress(AttributeError):  # None where it is closed
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _tell(error: FeatureCodecError | OSError) -> int:
    """Print an error and return the exit code."""
    if isinstance(error, OSError) and error.filename == STANDARD_OUTPUT:
        with suppress(AttributeError, OSError):  # Python would try again at its exit, and complain
            descriptor = os.open(os.devnull, os.O_WRONLY)
            os.dup2(descriptor, sys.stdout.fileno())
            os.close(descriptor)
        if isinstance(error, BrokenPipeError):
            return 1  # its reader has seen enough
    with suppress(OSError):
        click.echo(f"lmc: {one_line(error)}", err=True)
    return 1


def _say(text: str, *, nl: bool = True, err: bool = False) -> None:
    with naming("standard error" if err else STANDARD_OUTPUT):
        click.echo(text, nl=nl, err=err)


class _FrameRange(click.ParamType):  # type: ignore[type-arg,unused-ignore] # new in click 8.3
    """`N` is the first N frames, `A:B` frames A to B - 1, `A:` all from A on."""

    name = "range"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int, int | None]:
        if isinstance(value, tuple):
            return value
        first, colon, last = str(value).partition(":")
        try:
            start = int(first or 0) if colon else 0
            stop = (int(last) if last else None) if colon else int(first)
        except ValueError:
            self.fail(f"{value!r} is not N, A:B or A:", param, ctx)
        if start < 0 or (stop is not None and stop <= start):
            self.fail(f"{value!r} holds no frame", param, ctx)
        return start, stop


class _Target(click.ParamType):  # type: ignore[type-arg,unused-ignore] # as above
    """A number within the limits of the rate control."""

    name = "number"

    def __init__(self, target: str) -> None:
        self._target = target

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        from codec.encoding.rate_control import LIMITS

        least, largest = LIMITS[self._target]
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not least <= number <= largest:
            self.fail(f"{value!r} is not a number from {least:g} to {largest:g}", param, ctx)
        return number


@click.group(cls=_Lmc, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lmc")
def main() -> None:
    """Code the feature tensors of video: motion-compensated, bit-exact, ready for the rest of the
    network.
    """


FORCE = click.option("-f", "--force", is_flag=True, help="Overwrite outputs that exist.")
DEVICE = click.option(
    "--device", default="cpu", show_default=True, help="Where tensors live: cpu, cuda, cuda:1 ..."
)


MODEL = click.option(
    "--model", default="efficientnet_lite0", show_default=True, help="See `lmc models`."
)
SPLIT = click.option(
    "--split", default=None, help="Where to cut the model; default: blocks.7 of EfficientNet-Lite0."
)
WEIGHTS = click.option(
    "--weights",
    default="default",
    show_default=True,
    help="default, FILE (safetensors, pth) or random:SEED.",
)


@main.command()
@click.argument("video")
@click.option(
    "-o", "--output", required=True, help="Stream to write, usually *.lmc; - is standard output."
)
@MODEL
@SPLIT
@WEIGHTS
@click.option(
    "--profile",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file of `lmc calibrate`, which travels in the stream, 0.1 to 1.5 MB, unless it is one "
    "of the shipped; default: the shipped profile, or one measured on the first frames.",
)
@click.option(
    "--native",
    is_flag=True,
    help="Whole frames at their own size instead of the crop that the weights were made for.",
)
@click.option("--frames", type=_FrameRange(), help="N: the first N; A:B: from A to B - 1.")
@click.option(
    "--damaged",
    type=click.Choice(["stop", "skip", "conceal"]),
    default="stop",
    show_default=True,
    help="Of a damaged video: stop at the first damage, and write nothing; skip what is damaged or "
    "depends on it, up to the next key frame, and say how much was lost; or conceal: take what a "
    "lenient decoder makes of it.",
)
@click.option(
    "--qp",
    type=click.IntRange(0, 51),
    default=None,
    show_default="24",
    help="6 more double the step.",
)
@click.option(
    "--bitrate",
    type=_Target("bitrate"),
    metavar="KBIT",
    help="Kbit/s to keep in place of a qp, counting the whole file; from 100 frames on at most 5 % "
    "above it, if qp 51 allows it.",
)
@click.option(
    "--target-nrmse",
    type=_Target("target_nrmse"),
    metavar="X",
    help="NRMSE of the whole clip to come to, in place of a qp.",
)
@click.option(
    "--keyint",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Most frames between key frames.",
)
@click.option(
    "--effort",
    type=click.IntRange(0, 9),
    default=4,
    show_default=True,
    help="From fast to thorough; 5 to 9 also run the cloud sub-model to lower the task loss.",
)
@click.option("--no-scene-cut", is_flag=True, help="No key frames but those of --keyint.")
@click.option(
    "--motion",
    type=click.Choice(["search", "zero", "none", "bitstream"]),
    default="search",
    show_default=True,
    help="Where vectors come from; none: no prediction; bitstream: those of the input video.",
)
@click.option(
    "--grid",
    type=click.IntRange(4, 1024),
    default=32,
    show_default=True,
    help="Pixels between vectors.",
)
@click.option(
    "--search-range", type=click.IntRange(1, 256), default=16, show_default=True, help="Pixels."
)
@click.option(
    "--evaluate",
    is_flag=True,
    help="Finish the task on both sides and report KL and top-1 agreement.",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False),
    help="Write the report, with per-frame MD5s, as JSON; - is standard output.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress, no report on the terminal.")
@DEVICE
@FORCE
def encode(
    video: str,
    output: str,
    model: str,
    split: str | None,
    weights: str,
    profile: Path | None,
    native: bool,
    frames: tuple[int, int | None] | None,
    damaged: DamagePolicy,
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
    report: str | None,
    quiet: bool,
    device: str,
    force: bool,
) -> None:
    """Encode VIDEO (a file, or - for standard input) to a stream of feature tensors."""
    from codec.encoding.encoder import EncoderConfig
    from codec.files.outputs import open_output
    from codec.files.streams import StreamWriter
    from codec.pipeline.coding import EncodeOptions, VideoEncoder

    split = _split_or_default(model, split)
    aims = {"--qp": qp, "--bitrate": bitrate, "--target-nrmse": target_nrmse}
    given = [option for option, value in aims.items() if value is not None]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other; give one of them")
    _check_files(
        {"-o": output, "--report": report},
        [("VIDEO", video), ("--profile", profile), ("--weights", _weight_file(weights))],
        force=force,
    )
    if video == "-":
        _refuse_terminal("stdin")
        standard_stream("stdin")
    options = EncodeOptions(
        model=model,
        split=split,
        weights=weights,
        profile=profile,
        native=native,
        frames=frames,
        damaged=damaged,
        motion=motion,
        grid=grid,
        search_range=search_range,
        evaluate=evaluate,
        device=_device(device),
        config=EncoderConfig(
            qp=EncoderConfig().qp if qp is None else qp,
            keyint=keyint,
            scene_cut=not no_scene_cut,
            effort=effort,
        ),
        bitrate=bitrate,
        target_nrmse=target_nrmse,
    )
    encoder = VideoEncoder(video, options)
    rate = float(encoder.frame_rate)
    with open_output(output, force=force) as file:
        writer = StreamWriter(file, encoder.header)
        with _progress(encoder.frame_count_hint, quiet=quiet) as advance:
            for encoded in encoder:
                writer.write(encoded.packet)
                advance(f"{writer.bytes_written * 8e-3 * rate / writer.frames:.1f} kbit/s")
        writer.close()
    found = encoder.report(writer.bytes_written, writer.header_bytes)
    if report is not None:
        _write_json(report, found, force=force)
    if not quiet:
        _print_report(found, to_stderr="-" in (output, report))
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
    from codec.encoding.rate_control import SETTLED

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
    _say(f"lmc: warning: {text}; {qp}{notes}", err=True)


def _split_or_default(model: str, split: str | None) -> str:
    from codec.models.preprocessing import default_preprocessing
    from codec.pipeline.coding import DEFAULT_SPLIT

    if split is not None:
        return split
    if model != "efficientnet_lite0":
        default_preprocessing(model, native=False)  # a name that is none is the first to be said
        raise click.UsageError(
            f"--split is needed for {model}; `lmc models {model}` lists its split points"
        )
    return DEFAULT_SPLIT


def _print_report(report: dict[str, Any], *, to_stderr: bool) -> None:
    for key, value in report.items():
        if key == "frame_md5":
            continue
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        _say(f"{key:22} {text}", err=to_stderr)


@main.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("-o", "--output", required=True, help="Profile to write, usually *.safetensors.")
@MODEL
@SPLIT
@WEIGHTS
@click.option(
    "--views",
    type=click.IntRange(1, 4096),
    default=8,
    show_default=True,
    help="Views cut from a photograph, pairs of frames taken from a video.",
)
@click.option(
    "--probes",
    type=click.IntRange(1, 4096),
    default=8,
    show_default=True,
    help="Random gradients of the task for each of them.",
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
    views: int,
    probes: int,
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

    from codec.files.outputs import open_output
    from codec.models.preprocessing import default_preprocessing
    from codec.models.sources import load_model
    from codec.models.submodels import split_model
    from codec.models.weights import weights_hash
    from codec.pipeline.calibration import CalibrationOptions, calibrate

    split = _split_or_default(model, split)
    inputs: list[tuple[str, str | Path | None]] = [("SOURCES", source) for source in sources]
    inputs.append(("--weights", _weight_file(weights)))
    _check_files({"-o": output}, inputs, force=force)
    checkpoint: Path | None = Path(f"{output}.partial")
    if output == "-" or (Path(output).exists() and not Path(output).is_file()):
        checkpoint = None  # there is no file to be beside
    else:  # which may exist: the job goes on from it
        _check_files({"the checkpoint": str(checkpoint)}, inputs, force=True)
    place = _device(device)
    warnings: list[str] = []
    preprocessing = default_preprocessing(model, native=False, weights=weights)
    with torch.no_grad():
        network = load_model(model, weights, device=place)
        with _progress(len(sources), quiet=quiet, unit="input") as advance:
            profile = calibrate(
                split_model(network, split, (preprocessing.crop,) * 2, model),
                sources,
                preprocessing,
                CalibrationOptions(views=views, probes=probes, seed=seed),
                weights_hash=weights_hash(network),
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
            _say(f"lmc: warning: {text}", err=True)
        found = profile.provenance | {"profile_bytes": len(profile.to_bytes())}
        _print_report(found, to_stderr=output == "-")


@main.command()
@click.argument("stream")
@click.option(
    "-o",
    "--output",
    help="Write the tensors (frames, C, H, W) float32 and `pts` as .npz; - is standard output.",
)
@click.option(
    "--task",
    help="Finish the task and write the top five of every frame as JSON; - is standard output.",
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
    type=_FrameRange(),
    help="The range of the clip that was encoded, as --frames of `encode`.",
)
@click.option(
    "--damaged",
    type=click.Choice(["skip", "conceal"]),
    default="skip",
    show_default=True,
    help="How a damaged reference is read: as --damaged of `encode`.",
)
@click.option(
    "--frames", type=_FrameRange(), help="N: the first N; A:B: from A to B - 1, seeking to A."
)
@click.option(
    "--weights", help="Weight file for --task and --reference, if the stream was made with one."
)
@click.option(
    "--any-weights", is_flag=True, help="Accept other weights than the stream was made with."
)
@click.option("-q", "--quiet", is_flag=True, help="No progress on the terminal.")
@DEVICE
@FORCE
def decode(
    stream: str,
    output: str | None,
    task: str | None,
    md5: bool,
    salvage: bool,
    reference: str | None,
    reference_frames: tuple[int, int | None] | None,
    damaged: DamagePolicy,
    frames: tuple[int, int | None] | None,
    weights: str | None,
    any_weights: bool,
    quiet: bool,
    device: str,
    force: bool,
) -> None:
    """Decode STREAM (a file, or - for standard input) to tensors, to task output, or both.

    Without any of -o, --task, --md5 and --reference the stream is decoded and checked, and a
    summary printed.  Of a stream that is cut, still being written, or damaged, all frames before
    that are decoded and printed, but none are written without --salvage.
    """
    from codec.files.tensors import TensorFile
    from codec.pipeline.coding import FeatureReference, TaskOutput, decode_frames, model_of

    piped = "-" in (output, task)
    if piped and md5:
        raise click.UsageError("--md5 prints on standard output, where another output goes")
    inputs = [("STREAM", stream), ("--reference", reference), ("--weights", _weight_file(weights))]
    _check_files({"-o": output, "--task": task}, inputs, force=force)
    with ExitStack() as stack:
        reader = stack.enter_context(_open_stream(stream))
        header = reader.header
        place = _device(device)
        finish = compare = tensors = None
        if task is not None or reference is not None:
            split = model_of(header, weights=weights, any_weights=any_weights, device=place)
            if task is not None:
                finish = TaskOutput(header, split)
            if reference is not None:
                span = _shifted(frames, reference_frames)
                compare = FeatureReference(reference, header, split, span, place, damaged)
                stack.callback(compare.close)
        if output is not None:
            names = [spec.name for spec in header.tensors]
            tensors = stack.enter_context(TensorFile(output, names, force=force))
        results = []
        count = 0
        with _progress(_frame_count(reader, frames), quiet=quiet) as advance:
            decoded = _Whole(decode_frames(reader, frames=frames, device=place))
            for number, frame in decoded:
                if tensors is not None:
                    tensors.append([tensor.cpu().numpy() for tensor in frame.features], frame.pts)
                if finish is not None:
                    results.append(finish(number, frame))
                if compare is not None:
                    compare.update(frame)
                if md5:
                    _say(f"{frame.md5()}  {number}")
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
            _write_json(task, results, force=force)
        if compare is not None:
            _say(f"nrmse {compare.nrmse():.17g}", err=piped)
        if not (md5 or reference):
            shapes = ", ".join(
                f"{spec.name} {'x'.join(map(str, spec.shape))}" for spec in header.tensors
            )
            _say(f"{count} frames: {shapes}", err=piped)
        if decoded.error is not None:
            raise decoded.error


class _Whole(Iterable[_Frame]):
    """Iterates over what comes before the fault of a stream, and keeps the fault."""

    def __init__(self, frames: Iterator[_Frame]) -> None:
        self._frames = frames
        self.error: BitstreamError | OSError | None = None

    def __iter__(self) -> Iterator[_Frame]:
        while True:
            try:
                frame = next(self._frames)
            except StopIteration:
                return
            except (BitstreamError, OSError) as error:
                self.error = error
                return
            yield frame


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


@main.command()
@click.argument("stream")
@click.option("--json", "as_json", is_flag=True, help="Everything, frame by frame, as JSON.")
def inspect(stream: str, as_json: bool) -> None:
    """Say what is in STREAM: header, and bits per frame and per syntax element.

    Of a stream that is cut, still being written, or damaged, the frames before that; then the error
    is told, the exit code is 1, and --json has it as `error`.
    """
    _check_files({}, [("STREAM", stream)], force=False)
    with _open_stream(stream) as reader:
        found, fault = _inspect(reader)
    if as_json:
        if fault is not None:
            found["error"] = one_line(fault)
        _say(json.dumps(found, indent=1))
    else:
        _print_stream(found)
    if fault is not None:
        raise fault


def _print_stream(found: dict[str, Any]) -> None:
    for key, value in found["header"].items():
        _say(f"{key:16} {value}")
    _say(
        f"{'bytes':16} {found['bytes']}: header {found['bytes_header']}, "
        f"end packet {found['bytes_end']}"
    )
    elements = sorted({element for frame in found["frames"] for element in frame["bits"]})
    _say(
        "\n"
        + " ".join(f"{title:>9}" for title in ("frame", "type", "pts", "qp", "bytes", "framing")),
        nl=False,
    )
    _say("".join(f"  {element}" for element in elements) + "   [bits]")
    for frame in found["frames"]:
        cells = (
            frame["frame"],
            frame["type"],
            frame["pts"],
            frame["qp"],
            frame["bytes"],
            8 * frame["bytes_framing"],
        )
        _say(" ".join(f"{cell:>9}" for cell in cells), nl=False)
        _say("".join(f"  {frame['bits'].get(e, 0):>{len(e)}.1f}" for e in elements))
    for kind in ("key", "inter"):
        chosen = [frame for frame in found["frames"] if frame["type"] == kind]
        if chosen:
            _say(f"{kind} frames: {len(chosen)}, on average {_average(chosen)}")


def _average(frames: list[dict[str, Any]]) -> str:
    total: dict[str, float] = defaultdict(float)
    for frame in frames:
        for element, bits in frame["bits"].items():
            total[element] += bits / 8
    parts = {"framing": sum(frame["bytes_framing"] for frame in frames), **total}
    size = sum(frame["bytes"] for frame in frames) / len(frames)
    rest = size - sum(parts.values()) / len(frames)
    listed = ", ".join(f"{name} {value / len(frames):.1f}" for name, value in parts.items())
    return f"{size:.1f} bytes: {listed}, rounding up to bytes {rest:.1f}"


def _inspect(reader: StreamReader) -> tuple[dict[str, Any], BitstreamError | OSError | None]:
    """Parse every symbol, up to the fault if there is one; neither tensors nor models are needed
    for that.
    """
    from codec.format.profile import profile_of
    from codec.normative.entropy import FrameSyntax

    header = reader.header
    syntax = FrameSyntax(header, profile_of(header))
    parsed = _Whole(_parsed(reader, syntax))
    frames = list(parsed)
    used = reader.header_bytes + sum(int(frame["bytes"]) for frame in frames)
    size = used if parsed.error is not None else reader.bytes_read
    found = {
        "header": _describe(header),
        "bytes": size,
        "bytes_header": reader.header_bytes,
        "bytes_end": size - used,
        "frames": frames,
    }
    return found, parsed.error


def _parsed(reader: StreamReader, syntax: FrameSyntax) -> Iterator[dict[str, Any]]:
    for packet in reader:
        syntax.bits.clear()
        symbols = syntax.parse(packet)
        modes = [symbols_of.modes for symbols_of in symbols.tensors]
        yield {
            "frame": reader.packet_number,
            "type": "key" if packet.key else "inter",
            "pts": packet.pts,
            "qp": packet.qp,
            "bytes": reader.packet_bytes,
            "bytes_framing": reader.packet_bytes - len(packet.payload),
            "bits": {element: round(bits, 2) for element, bits in syntax.bits.items()},
            "blocks": {
                name: int(sum((mode == value).sum() for mode in modes))
                for value, name in enumerate(("skip", "inter", "intra"))
            },
        }


def _describe(header: SequenceHeader) -> dict[str, Any]:
    from codec.format.constants import FORMAT_VERSION

    return {
        "format version": FORMAT_VERSION,
        "model": header.model or "(none: the writer's own tensors)",
        "split": header.split,
        "weights": f"{header.weights} {header.weights_hash.hex()}",
        "input": f"{header.input_width}x{header.input_height}",
        "motion grid": header.grid,
        "time base": str(header.time_base),
        "frame duration": header.frame_duration,
        "profile": f"{header.profile_hash.hex()}, "
        f"{'shipped' if header.profile is None else 'embedded'}",
        "tensors": "; ".join(
            f"{spec.name} {'x'.join(map(str, spec.shape))}, n^k = {spec.stride_y},{spec.stride_x}, "
            f"offset {spec.offset_y2 / 2:g},{spec.offset_x2 / 2:g}"
            for spec in header.tensors
        ),
    }


@main.command()
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def models(model: str | None, as_json: bool) -> None:
    """List models, or the split points of MODEL: tensors, strides n^k, elements per frame."""
    from codec.format.profile import shipped_profile
    from codec.models.preprocessing import default_preprocessing
    from codec.models.sources import list_models
    from codec.models.split_points import describe_splits

    names = [model] if model else ["efficientnet_lite0", "resnet34", "densenet121"]
    rows: list[dict[str, Any]] = [
        {
            "model": name,
            "split": split,
            "profile": "shipped" if shipped_profile(f"{name}@{split}") else "measured on the video",
            "elements": sum(spec.elements for spec in specs),
            "tensors": [
                {
                    "name": s.name,
                    "shape": s.shape,
                    "stride": (s.stride_y, s.stride_x),
                    "offset": (s.offset_y2 / 2, s.offset_x2 / 2),
                }
                for s in specs
            ],
        }
        for name in names
        for split, specs in describe_splits(name)
    ]
    if not rows:
        raise FeatureCodecError(f"{model}: has no split point with tensors of shape (C, H, W)")
    if as_json:
        _say(json.dumps(rows, indent=1))
        return
    sides = dict.fromkeys(default_preprocessing(name, native=False).crop for name in names)
    sizes = " and ".join(f"{side}x{side}" for side in sides)
    _say(f"{'model':20} {'split':34} {'elements':>9}  tensors (CxHxW, n^k) at {sizes}")
    for row in rows:
        shapes = [f"{'x'.join(map(str, t['shape']))} /{t['stride'][0]}" for t in row["tensors"]]
        more = f" and {len(shapes) - 3} more" if len(shapes) > 3 else ""
        _say(
            f"{row['model']:20} {row['split']:34} {row['elements']:9}  "
            f"{', '.join(shapes[:3])}{more}"
        )
    if model is None:
        _say(
            f"\nand {len(list_models()) - len(names)} more: lmc models NAME, "
            "any classifier of torchvision"
        )


@contextmanager
def _open_stream(path: str) -> Iterator[StreamReader]:
    from codec.files.streams import StreamReader

    with ExitStack() as stack:
        file: BinaryIO
        if path == "-":
            _refuse_terminal("stdin")
            file, path = standard_stream("stdin"), "standard input"
        else:
            file = stack.enter_context(Path(path).open("rb"))
        yield StreamReader(named(file, path))


@contextmanager
def _progress(total: int | None, *, quiet: bool, unit: str = "frame") -> Iterator[Any]:
    """Yield a function that notes a text behind a progress bar and moves it on, by one if no number
    is given.
    """
    from tqdm import tqdm

    with tqdm(
        total=total, unit=unit, disable=quiet or not sys.stderr.isatty(), file=sys.stderr
    ) as bar:

        def advance(note: str, count: int = 1) -> None:
            bar.set_postfix_str(note, refresh=False)
            bar.update(count)

        yield advance


def _device(name: str) -> str:
    import torch

    try:
        # the codec computes in float64 and reads results back: some devices that exist do neither
        torch.zeros(1, dtype=torch.float64, device=name).item()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise click.BadParameter(
            f"{name!r} cannot be used here: {str(error).splitlines()[0]}", param_hint="--device"
        ) from error
    return name


def _check_files(
    outputs: Mapping[str, str | None],
    inputs: Iterable[tuple[str, str | Path | None]],
    *,
    force: bool,
) -> None:
    """Refuse outputs that would overwrite an input or each other, mix in a pipe, or fill a
    terminal; see `check_outputs`.
    """
    try:
        check_outputs(outputs, inputs, force=force)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if outputs.get("-o") == "-":
        _refuse_terminal("stdout")


def _refuse_terminal(name: str) -> None:
    stream = getattr(sys, name)
    if stream is not None and stream.isatty():
        full = f"standard {name.removeprefix('std')}put"
        raise click.UsageError(f"{full} is a terminal; redirect it, or name a file")


def _weight_file(weights: str | None) -> str | None:
    named_otherwise = weights is None or weights == "default" or weights.startswith("random:")
    return None if named_otherwise else weights


def _write_json(path: str, content: object, *, force: bool) -> None:
    from codec.files.outputs import open_output

    with open_output(path, force=force) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())
