"""Where the time goes: every stage of every clip, as a share of the edge sub-model's.

    python -m tools.benchmark CLIPS... -o benchmark.json                 (needs the extra `study`)
    python -m tools.benchmark CLIPS... -o benchmark.json --model nanodet.pt2 --split cat_4
        --preprocessing input.toml --task detection.toml --profile cat_4.safetensors

Stages are timed one after another, each with one thread; the clip as a whole by `VideoEncoder`,
whose stages run side by side, on all cores, against the edge sub-model alone on all cores.  Every
frame is measured `--repeat` times and counts as its fastest, as on a machine that others use as
well; ratios within one run are what to compare.  Memory is the peak of a stage over what its
process held before.
"""

import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from codec.cli.parameters import MODEL, PREPROCESSING, SPLIT, TASK, WEIGHTS, split_or_default
from codec.encoding.config import EncoderConfig
from codec.encoding.motion_search import luma, search_by
from codec.files.outputs import ended_by_signals
from codec.files.streams import StreamWriter
from codec.files.video_coders import KEYINT, x265
from codec.format.packets import FramePacket
from codec.normative.decoder import Decoder
from codec.pipeline.edge import EdgeSource
from codec.pipeline.encoding import VideoEncoder
from codec.pipeline.options import VideoOptions
from codec.pipeline.profiles import MEASURED_FRAMES
from tools.contenders.scene import Scene
from tools.contenders.tensors import Tiles
from tools.report.provenance import command, peak_memory, reset_peak_memory, stamp
from tools.running.outputs import guarded, write_text

STAGES = ("video", "edge", "motion", "coding", "decoding", "cloud")
TILES_CRF = 18.0
"""About the fidelity of the quality `high`; the time hardly depends on it."""
IMPORTS = "import torch, torchvision, av"

Report = dict[str, Any]


@click.command()
@click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path))
@MODEL
@WEIGHTS
@SPLIT
@PREPROCESSING
@TASK
@click.option("--profile", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--qp", type=int, default=EncoderConfig().qp, show_default=True)
@click.option("--frames", type=click.IntRange(2), default=48, show_default=True)
@click.option("--repeat", type=click.IntRange(1), default=3, show_default=True)
@click.option("--native", is_flag=True, help="Frames at their own size.")
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
    frames: int,
    repeat: int,
    native: bool,
) -> None:
    """Time every stage on CLIPS; print a table, write all figures as JSON."""
    options = VideoOptions(
        model=model,
        split=split_or_default(model, split),
        weights=weights,
        preprocessing=preprocessing,
        task=task,
        profile=profile,
        native=native,
        frames=(0, frames),
        config=EncoderConfig(qp=qp),
    )
    with guarded({"-o": str(output)}, [("CLIPS", clip) for clip in clips]):
        report: Report = {
            "command": command("tools.benchmark", sys.argv[1:]),
            **stamp(),
            "threads": torch.get_num_threads(),
            "clips": {},
            "start": _starts(clips[0], options),
        }
        for clip in clips:
            report["clips"][clip.name] = found = _measured(clip, options, repeat)
            click.echo(f"\n{clip.name}, {found['model']} at {found['split']}, {_size(found)}")
            click.echo(_table(found))
        click.echo("\n" + _start_line(report["start"]))
        write_text(output, json.dumps(report, indent=1) + "\n")


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measured(clip: Path, options: VideoOptions, repeat: int) -> Report:
    """Measure one clip: by stage, as a whole, and against x265 on the tiles."""
    with _threads(1):
        passes = [_by_stage(clip, options) for _ in range(repeat)]
    found = passes[0]
    for stage in STAGES:
        fastest = [min(times) for times in zip(*(one["ms"][stage] for one in passes), strict=True)]
        # the first frame warms caches up; the first few have been read when the video was opened
        few = MEASURED_FRAMES if stage == "video" and len(fastest) > MEASURED_FRAMES else 1
        steady = sorted(fastest[few:])
        found[stage] = {
            "p50_ms": statistics.median(steady),
            "p95_ms": steady[min(int(0.95 * len(steady)), len(steady) - 1)],
            "peak_mib": min(one["mib"][stage] for one in passes),
        }
    del found["ms"], found["mib"]
    edge = found["edge"]["p50_ms"]
    for stage in STAGES:
        found[stage]["of_edge"] = found[stage]["p50_ms"] / edge
    found["whole"] = _whole(clip, options, repeat)
    if not options.native:
        found["tiles"] = _tiles(clip, options, repeat)
    return found


def _by_stage(clip: Path, options: VideoOptions) -> Report:
    """Take a clip through all stages, one after another: milliseconds of each frame by stage."""
    ms: dict[str, list[float]] = {stage: [] for stage in STAGES}
    mib = dict.fromkeys(STAGES, 0.0)
    source = EdgeSource(str(clip), options)

    def timed(stage: str, work: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever it returns
        reset_peak_memory()
        held, start = peak_memory() or 0.0, time.perf_counter()
        made = work()
        ms[stage].append(1000 * (time.perf_counter() - start))
        mib[stage] = max(mib[stage], (peak_memory() or 0.0) - held)
        return made

    encoder = source.encoder(options.config)
    decoder = Decoder(source.header, profile=source.profile)
    search = search_by(source.header, options.config, search_range=options.search_range)
    size, frames, end = 0, iter(source.frames), object()
    previous: FramePacket | None = None
    gc.collect()
    with torch.no_grad():
        while True:
            frame = timed("video", lambda: next(frames, end))
            if frame is end:
                ms["video"].pop()
                break
            features: list[Tensor] = timed("edge", lambda: source.features(frame))  # noqa: B023
            vectors = None
            if search is not None:
                vectors = timed("motion", lambda: search.estimate(luma(frame.rgb)))  # noqa: B023
            encoded = timed(
                "coding",
                lambda: encoder.encode(features, vectors, pts=frame.pts),  # noqa: B023
            )
            if search is not None and not encoded.packet.has_vectors:
                search.forget()
            size += len(encoded.packet.to_bytes(previous))
            previous = encoded.packet
            decoded = timed("decoding", lambda: decoder.decode(encoded.packet))  # noqa: B023
            timed(
                "cloud",
                lambda: source.split.cloud([one[None] for one in decoded.features]),  # noqa: B023
            )
    source.close()
    return {
        "model": source.header.model,
        "split": source.header.split,
        "frames": len(ms["edge"]),
        "bytes_per_frame": size / len(ms["edge"]),
        "input": f"{source.header.input_width}x{source.header.input_height}",
        "ms": ms,
        "mib": mib,
    }


def _whole(clip: Path, options: VideoOptions, repeat: int) -> Report:
    """Encode as `lmc encode` does, and run the edge sub-model alone, both on all cores: frames a
    second, each the best of one thread for every stage and of as many as there are.
    """
    found: Report = {}
    for threads in sorted({1, torch.get_num_threads()}):
        with _threads(threads):
            alone, encode = [], []
            for _ in range(repeat):
                encoder = VideoEncoder(str(clip), options)
                start = time.perf_counter()
                frames = sum(1 for _ in encoder)
                encode.append(frames / (time.perf_counter() - start))
                source = EdgeSource(str(clip), options)
                start = time.perf_counter()
                frames = sum(1 for _ in source.with_features(reading_ahead=True))
                alone.append(frames / (time.perf_counter() - start))
            found[str(threads)] = {"encode_fps": max(encode), "edge_fps": max(alone)}
    best = {name: max(each[name] for each in found.values()) for name in ("encode_fps", "edge_fps")}
    return {**best, "of_edge": best["encode_fps"] / best["edge_fps"], "by_threads": found}


def _tiles(clip: Path, options: VideoOptions, repeat: int) -> Report:
    """Code the same features as tiles by x265, medium, for its time."""
    scene = Scene.load(
        clip,
        model=options.model,
        weights=options.weights,
        split=options.split,
        frames=(options.frames or (0, None))[1] or KEYINT,
        preprocessing_file=options.preprocessing,
        task_named=options.task,
    )
    coder = x265()
    coded = [Tiles("", coder, ()).code(scene, TILES_CRF) for _ in range(repeat)]
    return {
        stage: 1000 * min(one.seconds[stage] for one in coded) / scene.frames
        for stage in ("encode", "decode")
    }


def _starts(clip: Path, options: VideoOptions) -> dict[str, float]:
    """Time whole commands on one frame, seconds, the fastest of three."""
    with tempfile.TemporaryDirectory() as folder:
        stream, features = Path(folder) / "one.lmc", Path(folder) / "one.npz"
        encoder = VideoEncoder(str(clip), replace(options, frames=(0, 1)))
        with stream.open("wb") as file:
            writer = StreamWriter(file, encoder.header)
            for encoded in encoder:
                writer.write(encoded.packet)
            writer.close()
        encode = ["-m", "codec", "encode", str(clip), "-o", "-", "-q", "--frames", "1"]
        encode += ["--model", options.model, "--split", options.split, "--weights", options.weights]
        for name, value in (
            ("--preprocessing", options.preprocessing),
            ("--task", options.task),
            ("--profile", options.profile),
        ):
            encode += [] if value is None else [name, str(value)]
        decode = ["-m", "codec", "decode", str(stream), "-o", str(features), "-f", "-q"]
        if options.profile is not None and encoder.header.profile is None:
            decode += ["--profile", str(options.profile)]
        return {
            "imports": _fastest(["-c", IMPORTS]),
            "encode_one": _fastest(encode),
            "decode_one": _fastest(decode),
        }


def _fastest(arguments: Sequence[str]) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


def _size(found: Report) -> str:
    return (
        f"{found['frames']} frames of {found['input']}, {found['bytes_per_frame']:.0f} bytes each"
    )


def _table(found: Report) -> str:
    lines = [f"{'stage':10} {'p50 ms':>8} {'p95 ms':>8} {'of edge':>8} {'peak MiB':>9}"]
    for stage in STAGES:
        each = found[stage]
        lines.append(
            f"{stage:10} {each['p50_ms']:8.2f} {each['p95_ms']:8.2f} {each['of_edge']:8.2f} "
            f"{each['peak_mib']:9.1f}"
        )
    whole = found["whole"]
    lines.append(
        f"whole: {whole['encode_fps']:.1f} frames a second, the edge alone "
        f"{whole['edge_fps']:.1f}: {whole['of_edge']:.2f}"
    )
    if "tiles" in found:
        ours = found["coding"]["p50_ms"] + found["motion"]["p50_ms"] + found["decoding"]["p50_ms"]
        theirs = sum(found["tiles"].values())
        lines.append(
            f"motion, coding and decoding {ours:.1f} ms; x265 medium on the tiles {theirs:.1f} ms: "
            f"{ours / theirs:.2f}"
        )
    return "\n".join(lines)


def _start_line(start: dict[str, float]) -> str:
    return (
        f"one frame: encode {start['encode_one']:.2f} s, decode {start['decode_one']:.2f} s; "
        f"`{IMPORTS}` alone {start['imports']:.2f} s"
    )


if __name__ == "__main__":
    with ended_by_signals():
        main()
