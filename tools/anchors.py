"""Measure what the codec has to beat: feature tiles, remote inference and NNCodec, on equal frames.

    python -m tools.anchors CLIPS... -o anchors.csv --split blocks.10 --anchor tiles --anchor pixels

Every anchor sees the very frames and tensors that the codec sees, in this process, and is judged
by the same KL divergence of the task's output:

    pixels     frames --YCbCr or GBR--> x265 --> frames' --> whole model    (remote inference)
    tiles      frames --edge--> channels side by side in one 10-bit grey picture --> x265
                 --> features' --cloud--> output
    nncodec    frames --edge--> features --NNCodec, frame by frame--> features' --cloud--> output

Where a choice is open, it goes the anchor's way: x265 writes neither its SEI banner nor a second
set of parameter sets, and runs without wavefronts, which cost bits; rate is that of the bare
elementary stream, without container; converting to YCbCr is exact arithmetic with one rounding, and
back again has none.  Several variants of an anchor are one anchor, the best of them at each rate.

The output grows row by row, and points that it already holds are not measured again.  Points run
from coarse to fine and stop behind the first with a KL below --kl-floor.

Not here: curves and their comparison (`tools.bd_rate`), the codec's own figures (`tools.measure`).
NNCodec is the package `nncodec` (ISO/IEC 15938-17), which the project does not depend on: it pins
old versions of what the codec uses, and works without those pins:

    pip install --no-deps nncodec opencv-python-headless && pip install h5py pandas scikit-learn
"""

import csv
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import av
import click
import numpy as np
import torch
from av.codec.context import CodecContext, Flags
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from codec.bitstream import Preprocessing
from codec.metrics import FeatureNrmse, TaskFidelity
from codec.submodels import (
    DEFAULT_MODEL,
    SplitModel,
    default_preprocessing,
    load_model,
    normalise,
    split_model,
)
from codec.video import VideoReader

COLUMNS = (
    "clip", "model", "split", "anchor", "variant", "point", "frames", "bytes", "bytes_per_frame",
    "kl", "top1_agreement", "nrmse", "seconds_encode", "seconds_decode",
)  # fmt: skip
KEY_COLUMNS = ("clip", "model", "split", "anchor", "variant", "point", "frames")

# One thread; without wavefronts, whose entry points and restarted contexts cost bits; without the
# SEI that carries the encoder's settings (some 2.3 kB).
X265_COMMON = "keyint=64:info=0:pools=none:frame-threads=1:no-wpp=1:log-level=none"
LOW_DELAY = "bframes=0"
# What serves the eye, and SAO, which was tuned for pixels.
PLAIN = "psy-rd=0:psy-rdoq=0:aq-mode=0:no-sao=1"

TILE_MAX = 1023  # of a 10-bit sample
RANGE_BYTES = 8  # two float32: the extremes of a tensor over the clip
BATCH = 8  # frames that the model sees at once

# ITU-R BT.601: luma weights of red and blue.
RED, BLUE = 0.299, 0.114
CHROMA_MIDDLE = 128


# --- points and variants ----------------------------------------------------------------------

# Coarse to fine.  x265: crf; NNCodec: its qp, a step of 2^(qp / 4) at its default density.
POINTS = {
    "tiles": tuple(range(48, -1, -2)),
    "pixels": tuple(range(48, -1, -2)),
    "nncodec": tuple(range(20, -13, -1)),
}
TILE_VARIANTS = {"default": LOW_DELAY, "plain": f"{LOW_DELAY}:{PLAIN}"}
# Name -> pixel format of x265 and its parameters.
PIXEL_VARIANTS = {
    "yuv420p": ("yuv420p", ""),
    "yuv444p": ("yuv444p", ""),
    "gbrp": ("gbrp", ""),
    "yuv420p-plain": ("yuv420p", PLAIN),
    "yuv444p-plain": ("yuv444p", PLAIN),
    "gbrp-plain": ("gbrp", PLAIN),
}
VARIANTS = {
    "tiles": tuple(TILE_VARIANTS),
    "pixels": tuple(PIXEL_VARIANTS),
    "nncodec": ("default",),
}


# --- x265 -------------------------------------------------------------------------------------


Decoded = TypeVar("Decoded")


@dataclass(frozen=True, slots=True)
class Coded(Generic[Decoded]):
    """What a codec made of a clip, and how long it took."""

    decoded: Decoded
    size: int
    seconds_encode: float
    seconds_decode: float


def code_x265(
    pictures: Sequence[NDArray[Any]], pixel_format: str, *, crf: int, parameters: str
) -> Coded[list[NDArray[Any]]]:
    """Encode pictures with x265, preset medium, and decode them again.

    Args:
        pictures: what `av.VideoFrame.from_ndarray` takes for `pixel_format`, all of one size.
        pixel_format: FFmpeg's name; `gray10le`, `yuv420p`, ...
        crf: x265's quality, 0 (finest) to 51.
        parameters: in the form of x265's `x265-params`.

    Returns:
        The pictures as decoded, in order, and the bytes of the elementary stream.

    Raises:
        ValueError: other pictures came out than went in.
    """
    first = VideoFrame.from_ndarray(pictures[0], format=pixel_format)
    encoder = _context("libx265", "w")
    encoder.width, encoder.height, encoder.pix_fmt = first.width, first.height, pixel_format
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    encoder.flags |= Flags.global_header  # the parameter sets once, not before every key frame
    encoder.options = {
        "preset": "medium",
        "crf": str(crf),
        "x265-params": ":".join(filter(None, (X265_COMMON, parameters))),
    }
    start = time.perf_counter()
    packets: list[bytes] = []
    for number, picture in enumerate(pictures):
        frame = VideoFrame.from_ndarray(picture, format=pixel_format)
        frame.pts = number
        packets += map(bytes, encoder.encode(frame))
    packets += map(bytes, encoder.encode(None))
    seconds_encode = time.perf_counter() - start
    packets[0] = bytes(encoder.extradata or b"") + packets[0]

    decoder = _context("hevc", "r")
    start = time.perf_counter()
    frames = [frame for packet in packets for frame in decoder.decode(av.Packet(packet))]
    frames += decoder.decode(None)
    seconds_decode = time.perf_counter() - start
    formats = {frame.format.name for frame in frames}
    if len(frames) != len(pictures) or formats != {pixel_format}:
        raise ValueError(
            f"{len(pictures)} pictures of {pixel_format} went into x265, "
            f"{len(frames)} of {', '.join(formats)} came out"
        )
    decoded = [frame.to_ndarray() for frame in frames]
    return Coded(decoded, sum(map(len, packets)), seconds_encode, seconds_decode)


def _context(codec: str, mode: str) -> VideoCodecContext:
    context = CodecContext.create(codec, mode)  # type: ignore[call-overload]
    assert isinstance(context, VideoCodecContext)
    context.thread_count, context.thread_type = 1, "NONE"
    return context


# --- tiles ------------------------------------------------------------------------------------


def tile_layout(channels: int) -> tuple[int, int]:
    """Choose rows and columns of tiles: the factors nearest to a square.

    A number without factors nearer than 1:4 (a prime, say) leaves some tiles empty.
    """
    rows = max(n for n in range(1, math.isqrt(channels) + 1) if channels % n == 0)
    if channels // rows <= 4 * rows:
        return rows, channels // rows
    columns = math.isqrt(channels - 1) + 1
    return -(-channels // columns), columns


def tile(samples: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Lay the channels of each frame side by side: (N, C, H, W) -> (N, rows H, columns W)."""
    frames, channels, height, width = samples.shape
    rows, columns = tile_layout(channels)
    empty = ((0, 0), (0, rows * columns - channels), (0, 0), (0, 0))
    tiles = np.pad(samples, empty).reshape(frames, rows, columns, height, width)
    return np.ascontiguousarray(
        tiles.transpose(0, 1, 3, 2, 4).reshape(frames, rows * height, columns * width)
    )


def untile(pictures: NDArray[np.uint16], channels: int) -> NDArray[np.uint16]:
    """Undo `tile`: (N, rows H, columns W) -> (N, channels, H, W)."""
    rows, columns = tile_layout(channels)
    frames, height, width = pictures.shape
    tiles = pictures.reshape(frames, rows, height // rows, columns, width // columns)
    tiles = tiles.transpose(0, 1, 3, 2, 4).reshape(frames, rows * columns, *tiles.shape[2::2])
    return np.ascontiguousarray(tiles[:, :channels])


def code_tiles(features: NDArray[np.float32], variant: str, crf: int) -> Coded[NDArray[np.float32]]:
    """Code a clip's tensor (N, C, H, W) as 10-bit grey pictures; count its extremes as bytes."""
    low, high = float(features.min()), float(features.max())
    step = (high - low) / TILE_MAX
    samples = np.rint((features.astype(np.float64) - low) / (step or 1.0)).astype(np.uint16)
    coded = code_x265(list(tile(samples)), "gray10le", crf=crf, parameters=TILE_VARIANTS[variant])
    decoded = untile(np.stack(coded.decoded), features.shape[1])
    return Coded(
        (decoded * step + low).astype(np.float32),
        coded.size + RANGE_BYTES,
        coded.seconds_encode,
        coded.seconds_decode,
    )


# --- pixels -----------------------------------------------------------------------------------


def rgb_to_ycbcr(rgb: NDArray[np.number]) -> NDArray[np.float64]:
    """Convert (..., 3) RGB in 0 to 255 to full-range YCbCr of BT.601, chroma around 128; float."""
    red, green, blue = np.moveaxis(rgb.astype(np.float64), -1, 0)
    luma = RED * red + (1 - RED - BLUE) * green + BLUE * blue
    cb = (blue - luma) / (2 * (1 - BLUE)) + CHROMA_MIDDLE
    cr = (red - luma) / (2 * (1 - RED)) + CHROMA_MIDDLE
    return np.stack([luma, cb, cr], axis=-1)


def ycbcr_to_rgb(ycbcr: NDArray[np.number]) -> NDArray[np.float64]:
    """Undo `rgb_to_ycbcr`, without clipping."""
    luma, cb, cr = np.moveaxis(ycbcr.astype(np.float64), -1, 0)
    blue = luma + (cb - CHROMA_MIDDLE) * (2 * (1 - BLUE))
    red = luma + (cr - CHROMA_MIDDLE) * (2 * (1 - RED))
    green = (luma - RED * red - BLUE * blue) / (1 - RED - BLUE)
    return np.stack([red, green, blue], axis=-1)


def halve(planes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average 2x2 samples: (N, H, W) of even sizes -> (N, H / 2, W / 2)."""
    frames, height, width = planes.shape
    blocks = planes.reshape(frames, height // 2, 2, width // 2, 2)
    return np.asarray(blocks.mean(axis=(2, 4)), np.float64)


def double(planes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate bilinearly between the centres of `halve`'s blocks, back to full size."""
    doubled = functional.interpolate(
        torch.from_numpy(planes)[:, None], scale_factor=2, mode="bilinear", align_corners=False
    )
    return np.asarray(doubled[:, 0].numpy(), np.float64)


def to_pictures(rgb: NDArray[np.uint8], pixel_format: str) -> list[NDArray[np.uint8]]:
    """Convert frames (N, H, W, 3) to the arrays that PyAV takes for a pixel format."""
    if pixel_format == "gbrp":
        return list(rgb)
    luma, cb, cr = np.moveaxis(rgb_to_ycbcr(rgb), -1, 0)
    if pixel_format == "yuv444p":
        return list(_eight_bits(np.stack([luma, cb, cr], axis=1)))
    frames, _, width = luma.shape
    planes = [plane.reshape(frames, -1, width) for plane in (luma, halve(cb), halve(cr))]
    return list(_eight_bits(np.concatenate(planes, axis=1)))


def from_pictures(pictures: Sequence[NDArray[np.uint8]], pixel_format: str) -> NDArray[np.float32]:
    """Convert decoded pictures to RGB (N, H, W, 3), clipped to 0 to 255 and not rounded."""
    stacked = np.stack(pictures)
    if pixel_format == "gbrp":
        return stacked.astype(np.float32)
    if pixel_format == "yuv444p":
        ycbcr = np.moveaxis(stacked, 1, -1).astype(np.float64)
    else:
        frames, rows, width = stacked.shape
        height = rows * 2 // 3
        luma, cb, cr = np.split(stacked.astype(np.float64), (height, height * 5 // 4), axis=1)
        chroma = [plane.reshape(frames, height // 2, width // 2) for plane in (cb, cr)]
        ycbcr = np.stack([luma, *map(double, chroma)], axis=-1)
    return np.clip(ycbcr_to_rgb(ycbcr), 0, 255).astype(np.float32)


def _eight_bits(samples: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.clip(np.rint(samples), 0, 255).astype(np.uint8)


def normalise_float(rgb: NDArray[np.float32], preprocessing: Preprocessing) -> Tensor:
    """Turn float frames (N, H, W, 3) into model input, as `normalise` does with integers."""
    mean = np.array(preprocessing.mean_thousandths, np.float32) / np.float32(1000)
    scale = np.array(preprocessing.scale_thousandths, np.float32) / np.float32(1000)
    samples = (rgb - mean) / scale
    return torch.from_numpy(np.ascontiguousarray(samples.transpose(0, 3, 1, 2)))


def code_pixels(rgb: NDArray[np.uint8], variant: str, crf: int) -> Coded[NDArray[np.float32]]:
    """Code frames (N, H, W, 3) as video."""
    pixel_format, parameters = PIXEL_VARIANTS[variant]
    coded = code_x265(to_pictures(rgb, pixel_format), pixel_format, crf=crf, parameters=parameters)
    decoded = from_pictures(coded.decoded, pixel_format)
    return Coded(decoded, coded.size, coded.seconds_encode, coded.seconds_decode)


# --- NNCodec ----------------------------------------------------------------------------------


def code_nncodec(features: NDArray[np.float32], qp: int) -> Coded[NDArray[np.float32]]:
    """Code each frame of a clip's tensor (N, C, H, W) by itself, by NNCodec's defaults.

    These include trellis-coded quantisation, which beats its scalar quantiser at every rate.

    Raises:
        click.ClickException: the package is not installed, or lacks something that it needs.
    """
    try:
        from nncodec.tensor import decode, encode  # noqa: PLC0415 - optional, and slow to import
    except ImportError as error:
        raise click.ClickException(
            f"the anchor nncodec needs the package of that name ({error}); the top of "
            f"{Path(__file__).name} says how to install it"
        ) from error
    with tempfile.TemporaryDirectory() as folder:  # it writes every stream to a file as well
        start = time.perf_counter()
        streams = [encode(tensor, {"qp": qp, "results": folder}) for tensor in features]
        seconds_encode = time.perf_counter() - start
    start = time.perf_counter()
    decoded = np.stack([decode(stream) for stream in streams])
    return Coded(decoded, sum(map(len, streams)), seconds_encode, time.perf_counter() - start)


# --- measuring --------------------------------------------------------------------------------


class Results:
    """The rows of the output file, which grows with each and says which are there already."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kl: dict[tuple[str, ...], float] = {}
        if path.exists() and path.stat().st_size:
            with path.open(newline="") as file:
                rows = csv.DictReader(file)
                if tuple(rows.fieldnames or ()) != COLUMNS:
                    raise click.ClickException(
                        f"{path}: has the columns {', '.join(rows.fieldnames or ())}; "
                        f"expected {', '.join(COLUMNS)}"
                    )
                for row in rows:
                    self._kl[self._key(row)] = float(row["kl"])
        else:
            with path.open("w", newline="") as file:
                csv.DictWriter(file, COLUMNS).writeheader()

    @staticmethod
    def _key(row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[column]) for column in KEY_COLUMNS)

    def kl(self, row: dict[str, Any]) -> float | None:
        """Return the KL of a point that is in the file, else None."""
        return self._kl.get(self._key(row))

    def append(self, row: dict[str, Any]) -> None:
        """Write a row, at once."""
        with self._path.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)
        self._kl[self._key(row)] = float(row["kl"])


@dataclass(frozen=True, slots=True)
class Task:
    """A clip at a split, and what the uncompressed model makes of it.

    `features` is None, and `split` empty, where the whole model lies behind the network.
    """

    clip: str
    split: str
    rgb: NDArray[np.uint8]
    preprocessing: Preprocessing
    behind: Callable[[Tensor], Tensor]
    reference: Tensor
    features: NDArray[np.float32] | None

    @classmethod
    def prepare(
        cls,
        clip: str,
        rgb: NDArray[np.uint8],
        preprocessing: Preprocessing,
        model: nn.Module,
        halves: SplitModel | None,
    ) -> Self:
        """Run the model once, without any coding."""
        images = normalise(rgb, preprocessing)
        if halves is None:
            return cls(
                clip, "", rgb, preprocessing, model, in_batches(model, images), features=None
            )
        if len(halves.tensors) != 1:
            raise click.ClickException(
                f"{halves.split}: {len(halves.tensors)} tensors cross it, the anchors take one"
            )
        features = in_batches(lambda batch: halves.edge(batch)[0], images)

        def cloud(batch: Tensor) -> Tensor:
            return halves.cloud([batch])

        return cls(
            clip,
            halves.split,
            rgb,
            preprocessing,
            cloud,
            in_batches(cloud, features),
            features.numpy(),
        )

    def measure(self, anchor: str, variant: str, point: int) -> dict[str, Any]:
        """Code the clip at one point; return what it came to."""
        nrmse: float | str = ""
        if self.features is None:
            coded = code_pixels(self.rgb, variant, point)
            received = normalise_float(coded.decoded, self.preprocessing)
        else:
            if anchor == "tiles":
                coded = code_tiles(self.features, variant, point)
            else:
                coded = code_nncodec(self.features, point)
            received = torch.from_numpy(coded.decoded)
            error = FeatureNrmse(1)
            for actual, decoded in zip(self.features, coded.decoded, strict=True):
                error.update(0, actual, decoded)
            nrmse = error.combined()
        fidelity = TaskFidelity()
        fidelity.update(self.reference, in_batches(self.behind, received))
        return {
            "bytes": coded.size,
            "bytes_per_frame": coded.size / len(self.rgb),
            "kl": fidelity.kl(),
            "top1_agreement": fidelity.top1_agreement(),
            "nrmse": nrmse,
            "seconds_encode": coded.seconds_encode,
            "seconds_decode": coded.seconds_decode,
        }


def in_batches(function: Callable[[Tensor], Tensor], samples: Tensor) -> Tensor:
    """Apply a function to a few samples at a time."""
    return torch.cat([function(batch) for batch in torch.split(samples, BATCH)])


@click.command()
@click.argument(
    "clips", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--model", default=DEFAULT_MODEL, show_default=True)
@click.option("--weights", default="default", show_default=True)
@click.option("--split", "splits", multiple=True, default=("blocks.10",), show_default=True)
@click.option(
    "--anchor",
    "anchors",
    multiple=True,
    type=click.Choice(tuple(VARIANTS)),
    default=("tiles", "pixels"),
    show_default=True,
    help="pixels does not depend on the split: it is measured once, with an empty split.",
)
@click.option("--variant", "only", multiple=True, help="Of the anchors' variants only these.")
@click.option("--frames", default=64, show_default=True)
@click.option(
    "--kl-floor", default=0.003, show_default=True, help="Finer points than this are left out."
)
def main(
    clips: tuple[Path, ...],
    output: Path,
    model: str,
    weights: str,
    splits: tuple[str, ...],
    anchors: tuple[str, ...],
    only: tuple[str, ...],
    frames: int,
    kl_floor: float,
) -> None:
    """Measure anchors on CLIPS and append one CSV row for each point."""
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    known = {variant for anchor in anchors for variant in VARIANTS[anchor]}
    if unknown := set(only) - known:
        raise click.UsageError(
            f"--variant {sorted(unknown)[0]}: expected one of {', '.join(sorted(known))}"
        )
    results = Results(output)
    network = load_model(model, weights)
    preprocessing = default_preprocessing(model, native=False)
    for anchor in anchors:
        for split in ("",) if anchor == "pixels" else splits:
            for path in clips:
                with VideoReader(path, preprocessing, frames=(0, frames), threads=False) as reader:
                    size = (reader.height, reader.width)
                    rgb = np.stack([frame.rgb for frame in reader])
                halves = split_model(network, split, size, model) if split else None
                task = Task.prepare(path.name, rgb, preprocessing, network, halves)
                for variant in VARIANTS[anchor]:
                    if only and variant not in only:
                        continue
                    key = {
                        "clip": path.name,
                        "model": model,
                        "split": split,
                        "anchor": anchor,
                        "variant": variant,
                        "frames": len(rgb),
                    }
                    walk(task, key, POINTS[anchor], results, kl_floor)


def walk(
    task: Task, key: dict[str, Any], points: Iterable[int], results: Results, kl_floor: float
) -> None:
    """Measure the points that are missing, from coarse to fine, down to the floor."""
    for point in points:
        row = key | {"point": point}
        kl = results.kl(row)
        if kl is None:
            row |= task.measure(key["anchor"], key["variant"], point)
            results.append(row)
            kl = row["kl"]
            click.echo(
                f"{row['clip']} {row['split']} {row['anchor']} {row['variant']} {point}: "
                f"{row['bytes_per_frame']:.1f} B/frame, KL {kl:.4f}",
                err=True,
            )
        if kl < kl_floor:
            return


if __name__ == "__main__":
    main()
