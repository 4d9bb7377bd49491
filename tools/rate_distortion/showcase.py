"""One clip at one split, looked into: frames and their motion fields, channels before and after,
and where the bits and the errors are.

    showcase(Path("bikes.mp4"), model="efficientnet_lite0", weights="default",
             split="blocks.10", qp=24, frames=64)

The stream is the one that `lmc encode` writes; its packets are parsed again, and each level is
priced by the frozen table that it was coded with: -log2 of its probability.  The levels of a tensor
thus cost what its payload holds, to a few bits a frame (an escape counts for about its cost).

Which *channel* a level belongs to is a matter of attribution, since the synthesis mixes channels.
The level of component r at a frequency adds a multiple of column r of that frequency's matrix M to
the channels, so its bits are divided among them in proportion to the energy that it can add there:

    bits(c)  =  sum over levels of  bits(level) · M[c, r]² / sum over c' of M[c', r]²

Of a split with several tensors, the largest is shown.  Where a task has results that can be drawn,
those of the decoded and of the uncoded network are, over the frame that the network sees.  Images
travel as data URIs, vectors as numbers, for `tools/report/page.py` to lay out.
"""

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from codec.encoding.config import EncoderConfig
from codec.encoding.levels import level_bits
from codec.encoding.payloads import FrameWriter
from codec.files.streams import StreamWriter
from codec.files.video import VideoReader
from codec.format.constants import VECTOR_UNITS
from codec.format.header import Preprocessing
from codec.format.profile import TensorProfile, profile_of
from codec.format.tables import MAX_DIRECT_LEVEL
from codec.models.preprocessing import normalise
from codec.normative.symbols import MODE_SKIP, TensorSymbols
from codec.pipeline.decoding import TaskOutput
from codec.pipeline.encoding import VideoEncoder
from codec.pipeline.network_tasks import task_of
from codec.pipeline.options import VideoOptions
from tools.rate_distortion.measures import measures_of

__all__ = ["channel_shares", "image_uri", "showcase", "symbol_bits"]

SHOWN_FRAMES = 6
ENERGETIC_CHANNELS = 4
FRAME_PIXELS = 224
JPEG_QUALITY = 80
DIFFERENCE_COLOURS = "RdBu_r"
CHANNEL_COLOURS = "viridis"

DRAWN = ("detection", "masks", "keypoints", "segmentation")
"""Tasks whose results have places in the frame."""

Uri = str


# --- where the bits are ------------------------------------------------------------------------


def symbol_bits(symbols: TensorSymbols) -> NDArray[np.float64]:
    """Return the ideal code length of every level of a parsed tensor: (P, N), zero where a block
    is skipped.
    """
    magnitude = np.minimum(np.abs(symbols.levels), MAX_DIRECT_LEVEL + 1)
    bits = np.zeros((len(symbols.levels), len(symbols.modes)))
    bits[:, symbols.modes != MODE_SKIP] = level_bits()[symbols.classes, magnitude]
    return bits


def channel_shares(profile: TensorProfile) -> NDArray[np.float64]:
    """Return how the bits of each coefficient position are attributed to channels: (P, C), rows sum
    to one.
    """
    frequency, component = np.divmod(profile.scan.position, profile.components)
    shares = np.zeros((len(frequency), profile.channels))
    bands = profile.band_of[frequency]
    for number, band in enumerate(profile.bands):
        rows = np.flatnonzero(bands == number)
        if band.matrix.ndim == 1:  # component r is channel r
            shares[rows, component[rows]] = 1
        else:
            shares[rows] = np.square(band.matrix.astype(np.float64)).T[component[rows]]
    total = shares.sum(1, keepdims=True)
    # a column of zeros adds nothing to any channel; what it costs is everyone's
    return np.where(total > 0, shares / np.where(total > 0, total, 1), 1 / profile.channels)


# --- images ------------------------------------------------------------------------------------


def image_uri(image: Image.Image, **options: Any) -> Uri:  # noqa: ANN401 - those of Pillow
    """Return an image as a data URI: JPEG where a quality is given, else PNG."""
    kind = "jpeg" if "quality" in options else "png"
    file = io.BytesIO()
    image.save(file, kind, optimize=True, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _strip_uri(values: NDArray[np.floating[Any]], low: float, high: float, colours: str) -> Uri:
    """Colour a strip of planes (frames, H, W); a palette image holds one byte a sample."""
    span = high - low or 1.0
    index = np.clip(np.round((values - low) / span * 255), 0, 255).astype(np.uint8)
    image = Image.fromarray(np.concatenate(list(index), 1))
    palette = (mpl.colormaps[colours](np.arange(256))[:, :3] * 255).astype(np.uint8)
    image.putpalette(palette.tobytes())
    return image_uri(image)


def _frame_uri(rgb: NDArray[np.uint8]) -> Uri:
    image = Image.fromarray(rgb)
    image.thumbnail((FRAME_PIXELS, FRAME_PIXELS))
    return image_uri(image, quality=JPEG_QUALITY)


# --- the clip ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Frame:
    """A frame as it is shown, and its tensor before and after coding."""

    entry: dict[str, Any]
    original: NDArray[np.float32]
    reconstructed: NDArray[np.float32]


@dataclass(slots=True)
class _Sums:
    """What is added up over the frames of a clip, of the tensor that is shown."""

    squared_error: NDArray[np.float64]
    squared_value: NDArray[np.float64]
    value: NDArray[np.float64]
    position_bits: NDArray[np.float64]
    block_bits: NDArray[np.float64]
    low: float = np.inf
    high: float = -np.inf
    frames: int = 0
    bits: dict[str, float] = field(default_factory=lambda: {"payload": 0.0, "levels": 0.0})

    def add(
        self,
        original: NDArray[np.float32],
        reconstructed: NDArray[np.float32],
        symbols: TensorSymbols,
    ) -> None:
        actual = original.astype(np.float64)
        self.squared_error += np.square(reconstructed - actual)
        self.squared_value += np.square(actual).mean((1, 2))
        self.value += actual.mean((1, 2))
        self.low, self.high = (
            min(self.low, float(actual.min())),
            max(self.high, float(actual.max())),
        )
        bits = symbol_bits(symbols)
        self.position_bits += bits.sum(1)
        self.block_bits += bits.sum(0)
        self.frames += 1


def showcase(
    path: Path,
    *,
    model: str,
    weights: str,
    split: str,
    qp: int,
    frames: int,
    preprocessing: Path | None = None,
    task: str | None = None,
    profile: Path | None = None,
) -> dict[str, Any]:
    """Encode the first frames of a clip and return what there is to show, JSON-able.

    Returns:
        `clip`, `model`, `split`, `qp`, `effort`, `coded` (frames), `bytes`, `nrmse`, and the
        figures of the task: `kl` and `top1_agreement` of a classification;
        `tensor` (`name`, `channels`, `height`, `width`, `block_size`, `range`);
        `grid` (pixels), `width`, `height` (of the frames);
        `frames`: `number`, `seconds`, `bytes`, `image`, and `vectors`, rows of [y, x] in pixels,
        or None where the encoder sent no field; of a task that draws, `drawn`: the same frame with
        the results of the uncoded and of the decoded network on it;
        `channels`: `number`, `reason`, `low`, `high` (of the colours), `scale` (the differences are
        coloured from -scale to scale), and `images`: `original`, `reconstructed` and `difference`,
        each a strip of one plane for each of the frames, side by side;
        `channel_nrmse`: by equation (13) with the range of the whole tensor, so that their mean
        square is the square of the tensor's; `channel_bits`: per frame, attributed;
        `block_bits`: (rows, columns) bits per frame; `position_nrmse`: (height, width);
        `bits`: ideal `levels`, `modes`, `offsets`, `motion` of all tensors, and of the `payload`s.

    Raises:
        VideoError: the clip is shorter than one frame.
        ModelError: there is no such model or split.
    """
    options = VideoOptions(
        model=model,
        split=split,
        weights=weights,
        preprocessing=preprocessing,
        task=task,
        profile=profile,
        frames=(0, frames),
        evaluate=True,
        config=EncoderConfig(qp=qp),
    )
    encoder = VideoEncoder(path, options)
    header = encoder.header
    shown = max(range(len(header.tensors)), key=lambda number: header.tensors[number].elements)
    spec, coding = header.tensors[shown], profile_of(header).tensors[shown]
    rows, columns = coding.blocks(spec.height, spec.width)
    sums = _Sums(
        np.zeros(spec.shape),
        np.zeros(spec.channels),
        np.zeros(spec.channels),
        np.zeros(len(coding.scan.position)),
        np.zeros(rows * columns),
    )
    lengths = FrameWriter(header, profile_of(header))
    writer = StreamWriter(io.BytesIO(), header)
    assert header.preprocessing is not None  # `VideoEncoder` states it
    pictures = _pictures(path, header.preprocessing, frames)
    wanted = _shown_frames(len(pictures))
    kind = task_of(header.task, header.model).name
    output = TaskOutput(header, encoder.split) if kind in DRAWN else None
    kept: list[_Frame] = []
    for number, (encoded, rgb) in enumerate(zip(encoder, pictures, strict=True)):
        size = writer.write(encoded.packet)
        symbols = encoded.symbols
        with torch.no_grad():
            features = encoder.split.edge(normalise(rgb, header.preprocessing))
        original, reconstructed = features[shown][0].numpy(), encoded.features[shown].numpy()
        sums.add(original, reconstructed, symbols.tensors[shown])
        sums.bits["payload"] += 8 * len(encoded.packet.payload)
        for tensor in symbols.tensors:
            sums.bits["levels"] += float(symbol_bits(tensor).sum())
        bits = lengths.code_lengths(symbols)
        for element in ("modes", "motion", "offsets"):
            sums.bits[element] = sums.bits.get(element, 0.0) + bits.get(element, 0.0)
        if number in wanted:
            entry = {
                "number": number,
                "seconds": number / float(encoder.frame_rate),
                "bytes": size,
                "key": encoded.packet.key,
                "image": _frame_uri(rgb),
                "vectors": None
                if symbols.vectors is None
                else (symbols.vectors / VECTOR_UNITS).tolist(),
            }
            if output is not None:
                found = output.result(output.outputs(encoded.features))
                uncoded = output.result(output.outputs([tensor[0] for tensor in features]))
                picture = output.drawn(found, uncoded, rgb)
                entry["drawn"] = image_uri(Image.fromarray(picture), quality=JPEG_QUALITY)
            kept.append(_Frame(entry, original, reconstructed.copy()))
    writer.close()
    report = encoder.report(writer.bytes_written, writer.header_bytes)
    extent = sums.high - sums.low or 1.0
    channel_nrmse = np.sqrt(sums.squared_error.mean((1, 2)) / sums.frames) / extent
    return {
        "clip": path.name,
        "model": model,
        "split": split,
        "qp": qp,
        "effort": options.config.effort,
        "coded": sums.frames,
        "bytes": writer.bytes_written,
        **{one.name: report[one.name] for one in measures_of(kind) if one.name in report},
        "tensor": {
            "name": spec.name,
            "channels": spec.channels,
            "height": spec.height,
            "width": spec.width,
            "block_size": coding.block_size,
            "range": extent,
        },
        "grid": header.grid,
        "width": header.input_width,
        "height": header.input_height,
        "frames": [frame.entry for frame in kept],
        "channels": [
            _channel(number, reason, kept)
            for number, reason in _chosen_channels(sums, channel_nrmse).items()
        ],
        "channel_nrmse": _rounded(channel_nrmse),
        "channel_bits": _rounded(sums.position_bits @ channel_shares(coding) / sums.frames),
        "block_bits": _rounded(sums.block_bits.reshape(rows, columns) / sums.frames),
        "position_nrmse": _rounded(np.sqrt(sums.squared_error.mean(0) / sums.frames) / extent),
        "bits": sums.bits,
    }


def _pictures(path: Path, preprocessing: Preprocessing, frames: int) -> list[NDArray[np.uint8]]:
    """Read the frames of the clip as the model sees them; what a container says of their number
    may be wrong.
    """
    with VideoReader(path, preprocessing, frames=(0, frames)) as reader:
        return [frame.rgb for frame in reader]


def _shown_frames(frames: int) -> set[int]:
    """Choose frames evenly, and not the key frame at the start unless there is hardly another."""
    places = np.arange(1, SHOWN_FRAMES + 1) / (SHOWN_FRAMES + 0.5)
    return set(np.clip(np.round(frames * places), 0, frames - 1).astype(int).tolist())


def _chosen_channels(sums: _Sums, nrmse: NDArray[np.float64]) -> dict[int, str]:
    """Choose the channels that vary most, and the one with the largest error."""
    variance = sums.squared_value / sums.frames - np.square(sums.value / sums.frames)
    chosen = {int(number): "high energy" for number in np.argsort(-variance)[:ENERGETIC_CHANNELS]}
    for number in np.argsort(-nrmse).tolist():
        if number not in chosen:
            return {**chosen, number: "largest error of the others"}
    return chosen


def _channel(number: int, reason: str, frames: list[_Frame]) -> dict[str, Any]:
    original = np.stack([frame.original[number] for frame in frames])
    reconstructed = np.stack([frame.reconstructed[number] for frame in frames])
    low, high = float(original.min()), float(original.max())
    scale = float(np.abs(reconstructed - original).max())
    return {
        "number": number,
        "reason": reason,
        "low": low,
        "high": high,
        "scale": scale,
        "images": {
            "original": _strip_uri(original, low, high, CHANNEL_COLOURS),
            "reconstructed": _strip_uri(reconstructed, low, high, CHANNEL_COLOURS),
            "difference": _strip_uri(reconstructed - original, -scale, scale, DIFFERENCE_COLOURS),
        },
    }


def _rounded(values: NDArray[np.float64]) -> Any:  # noqa: ANN401 - nested lists
    """Keep five digits, for the sake of the page's size."""
    return np.vectorize(lambda value: float(f"{value:.5g}"), otypes=[float])(values).tolist()
