"""Encode and decode clips at splits, quantisers and sources of motion; check, measure, tabulate.

    python -m tools.measure CLIPS... -o results.csv

For every combination: the stream is written to a file, decoded again, and the MD5 of every decoded
frame compared with the encoder's; bytes are those of the file.  `tools/anchors.py` measures what to
compare with, `tools/bd_rate.py` compares.
"""

import csv
import io
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import click
import torch

from codec.container import StreamReader, StreamWriter
from codec.encoder import DEFAULT_EFFORT, EncoderConfig
from codec.pipeline import MOTION_SOURCES, EncodeOptions, VideoEncoder, decode_frames

COLUMNS = (
    "clip", "model", "split", "motion", "effort", "grid", "qp", "frames", "key_frames", "bytes",
    "bytes_per_frame", "kbit_per_s", "bits_per_element", "bytes_header", "bytes_framing",
    "bytes_motion", "bytes_modes", "bytes_levels", "nrmse", "kl", "top1_agreement", "seconds_edge",
    "seconds_motion", "seconds_coding", "seconds_decode",
)  # fmt: skip


def measure(clip: Path, options: EncodeOptions) -> dict[str, Any]:
    """Encode and decode `clip`; return its report.

    Raises:
        ValueError: a decoded frame is not the encoder's, or the sizes do not add up.
    """
    encoder = VideoEncoder(clip, options)
    file = io.BytesIO()
    writer = StreamWriter(file, encoder.header)
    for encoded in encoder:
        writer.write(encoded.packet)
    writer.close()
    report = encoder.report(writer.bytes_written, writer.header_bytes)
    size = len(file.getvalue())
    if size != report["bytes"] or report["bytes_per_frame"] != size / report["frames"]:
        raise ValueError(f"{clip}: {report['bytes']} bytes reported, {size} written")
    file.seek(0)
    start = time.perf_counter()
    decoded = [frame.md5() for _, frame in decode_frames(StreamReader(file))]
    report["seconds_decode"] = time.perf_counter() - start
    if decoded != report["frame_md5"]:
        raise ValueError(f"{clip}: the decoder's tensors are not the encoder's")
    return report | {"clip": clip.name}


@click.command()
@click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--model", default="efficientnet_lite0", show_default=True)
@click.option("--weights", default="default", show_default=True)
@click.option(
    "--split", "splits", multiple=True, default=("blocks.4", "blocks.10"), show_default=True
)
@click.option("--qp", "qps", multiple=True, type=int, default=(14, 20, 26, 32), show_default=True)
@click.option(
    "--motion", "motions", multiple=True, type=click.Choice(MOTION_SOURCES), default=("search",)
)
@click.option("--effort", "efforts", multiple=True, type=int, default=(DEFAULT_EFFORT,))
@click.option("--grid", "grids", multiple=True, type=int, default=(32,))
@click.option("--keyint", default=64, show_default=True)
@click.option("--frames", default=64, show_default=True)
def main(
    clips: tuple[Path, ...],
    output: Path,
    model: str,
    weights: str,
    splits: tuple[str, ...],
    qps: tuple[int, ...],
    motions: tuple[str, ...],
    efforts: tuple[int, ...],
    grids: tuple[int, ...],
    keyint: int,
    frames: int,
) -> None:
    """Measure CLIPS and write one CSV row for each combination."""
    torch.set_grad_enabled(False)
    with output.open("w", newline="") as file:
        rows = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        rows.writeheader()
        for clip, split, motion, effort, grid, qp in product(
            clips, splits, motions, efforts, grids, qps
        ):
            options = EncodeOptions(
                model=model,
                split=split,
                weights=weights,
                frames=(0, frames),
                motion=motion,
                grid=grid,
                evaluate=True,
                config=EncoderConfig(qp=qp, keyint=keyint, effort=effort),
            )
            report = measure(clip, options)
            rows.writerow(report)
            file.flush()
            click.echo(
                f"{clip.name} {split} {motion} effort {effort} grid {grid} qp {qp}: "
                f"{report['bytes_per_frame']:.1f} B/frame, KL {report['kl']:.4f}",
                file=sys.stderr,
            )


if __name__ == "__main__":
    main()
