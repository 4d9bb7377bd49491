"""Draw the picture of the README: a frame, its vectors, a channel before and after, bytes.

python -m tools.picture CLIP OUTPUT.png        (needs the extra `study`)
"""

from pathlib import Path

import click
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.backend_bases import FigureCanvasBase

from codec.encoding.encoder import Encoder, EncoderConfig
from codec.encoding.motion_search import MotionSearch, luma
from codec.files.outputs import ended_by_signals, open_output
from codec.files.video import VideoReader
from codec.format.packets import FramePacket
from codec.models.preprocessing import default_preprocessing, normalise
from codec.pipeline.coding import EncodeOptions, VideoEncoder
from tools.outputs import guarded

mpl.use("Agg")

FRAMES = 48


@click.command()
@click.argument("clip", type=click.Path(exists=True, path_type=Path))
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--split", default="blocks.4", show_default=True)
@click.option("--qp", default=28, show_default=True)
@click.option("--frame", type=click.IntRange(0, FRAMES - 1), default=40, show_default=True)
def main(clip: Path, output: Path, split: str, qp: int, frame: int) -> None:
    """Encode the first frames of CLIP and draw one of them."""
    with guarded({"OUTPUT": str(output)}, [("CLIP", clip)]):
        _draw(clip, output, split, qp, frame)


def _draw(clip: Path, output: Path, split: str, qp: int, frame: int) -> None:
    torch.set_grad_enabled(False)
    kind = output.suffix.removeprefix(".") or "png"
    known = FigureCanvasBase.get_supported_filetypes()
    if kind not in known:
        raise click.UsageError(f"OUTPUT {output}: a picture ends in one of {', '.join(known)}")
    setup = VideoEncoder(clip, EncodeOptions(split=split))
    header, halves = setup.header, setup.split
    preprocessing = default_preprocessing("efficientnet_lite0", native=False)
    encoder, search = Encoder(header, EncoderConfig(qp=qp)), MotionSearch(header, qp=qp)
    sizes: list[tuple[int, float]] = []
    previous: FramePacket | None = None
    with VideoReader(clip, preprocessing, frames=(0, FRAMES)) as reader:
        for number, picture in enumerate(reader):
            features = halves.edge(normalise(picture.rgb, preprocessing))[0][0]
            vectors = search.estimate(luma(picture.rgb))
            encoded = encoder.encode([features], vectors, pts=picture.pts)
            size = len(encoded.packet.to_bytes(previous))
            sizes.append((size, encoded.bits.get("motion", 0.0) / 8))
            previous = encoded.packet
            if number == frame:
                shown, field = picture.rgb, vectors
                actual, decoded = features.numpy(), encoded.features[0].numpy()
    if len(sizes) <= frame:
        raise click.UsageError(f"{clip} has only {len(sizes)} frames")
    channel = int(actual.std((1, 2)).argmax())
    spec = header.tensors[0]

    figure, axes = plt.subplots(1, 4, figsize=(13, 3.3), width_ratios=[1, 1, 1, 1.5])
    axes[0].imshow(shown)
    rows, columns = header.field_shape
    y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    centre = (header.grid - 1) / 2
    if field is not None:
        axes[0].quiver(
            x * header.grid + centre,
            y * header.grid + centre,
            -field[..., 1] / 4,
            -field[..., 0] / 4,
            color="#ffd43b",
            angles="xy",
            scale_units="xy",
            scale=0.35,
            width=0.009,
        )
    axes[0].set_title(f"frame {frame} and its motion field")
    low, high = float(actual[channel].min()), float(actual[channel].max())
    for axis, values, title in (
        (axes[1], actual, f"{spec.name}, channel {channel}"),
        (axes[2], decoded, "decoded"),
    ):
        axis.imshow(values[channel], cmap="viridis", vmin=low, vmax=high)
        axis.set_title(title)
    for axis in axes[:3]:
        axis.set_xticks([])
        axis.set_yticks([])
    total = np.array(sizes)
    axes[3].bar(np.arange(len(total)), total[:, 0], color="#4c6ef5", label="levels, framing")
    axes[3].bar(np.arange(len(total)), total[:, 1], color="#f59f00", label="vectors")
    raw = spec.elements * 4
    axes[3].set_title(f"bytes per frame (raw: {raw:,})")
    axes[3].set_xlabel("frame")
    axes[3].legend(frameon=False)
    axes[3].spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    with open_output(str(output), force=True) as file:
        figure.savefig(file, format=kind, dpi=90)


if __name__ == "__main__":
    with ended_by_signals():
        main()
