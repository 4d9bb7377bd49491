"""A detector cut in two: what it finds uncut, what crosses the network, and what it finds then.

python -m tools.gallery.detector_in_two CLIP OUTPUT.png --model nanodet.pt2 \
    --split add_11+add_18+add_27 --preprocessing nanodet.toml --task detection.toml
"""

from pathlib import Path

import click
import torch

import codec
from tools.gallery.networks import Chosen, Finder, network_options
from tools.gallery.pictures import boxes_on, drawing, show
from tools.report.figures import PALETTE


@click.command()
@network_options
def main(clip: Path, output: Path, chosen: Chosen) -> None:
    """Cut the network, encode CLIP, decode it, and finish the task of its last frame."""
    edge, cloud = chosen.split()
    rgb, shape = chosen.read(clip, edge)
    stream = output.with_suffix(".lmc")
    made = chosen.encode(stream, edge, rgb)
    with codec.open(stream) as coded:
        decoded = coded[-1].features  # of one frame, a tensor for each place of the cut
        finder = Finder(coded, cloud)
    uncoded = edge(rgb[-1])
    if isinstance(uncoded, torch.Tensor):
        uncoded = {"": uncoded}
    wanted, found = finder([tensor[0] for tensor in uncoded.values()]), finder(decoded)

    places = len(edge.tensors)
    with drawing(output, [3, *[1.75] * places, 3], 2.3) as (left, *between, right):
        for axis, boxes, title, colour in (
            (left, wanted, "uncut", "orange"),
            (right, found, "edge, stream, cloud", "sky"),
        ):
            show(axis, rgb[-1], f"{title}: {len(boxes)} found", aspect=shape)
            boxes_on(axis, boxes, PALETTE[colour])
        for axis, tensor, spec in zip(between, decoded, edge.tensors, strict=True):
            strongest = tensor[int(tensor.std((1, 2)).argmax())]
            size = "×".join(map(str, spec.shape))
            show(axis, strongest, f"{spec.name}\n{size}, n^k {spec.stride_x}", aspect=shape)
        rate, raw = made.bytes / made.frames, 4 * made.elements
        between[places // 2].set_xlabel(f"{rate:,.0f} bytes a frame; float32: {raw:,}")


if __name__ == "__main__":
    main()
