"""Tensors in an .npz file -> a stream: what an adapter in another Python cannot import.

    python tensor_file.py TENSORS.npz STREAM --qp 24 --size 1280x800

The arrays are (N, C, H, W); `lmc decode STREAM -o TENSORS.npz` is the way back.
"""

import math
from pathlib import Path

import click
import numpy as np

import codec
from codec.cli.parameters import FrameSize


def nearest(ratio: float) -> float:
    """Return the power of two from 1 on that is closest: networks pad what they take."""
    return 2.0 ** round(math.log2(max(ratio, 1)))


@click.command()
@click.argument("tensors", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("stream", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--qp", type=int, required=True)
@click.option("--size", type=FrameSize(), required=True, metavar="WxH", help="Of the input.")
def main(tensors: Path, stream: Path, qp: int, size: tuple[int, int]) -> None:
    """Encode TENSORS of a network whose input has SIZE, which says what their strides are."""
    with np.load(tensors) as file:
        features = {name: file[name] for name in file.files}
    strides = {
        name: (nearest(size[1] / array.shape[2]), nearest(size[0] / array.shape[3]))
        for name, array in features.items()
    }
    codec.encode(features, stream, stride=strides, qp=qp, force=True)


if __name__ == "__main__":
    main()
