"""Boxes that the transmitted motion field carries along: the cloud runs on every fourth frame only.

python -m tools.gallery.carried_boxes CLIP OUTPUT.png --model movenet.pt2 --split relu_2 \
    --preprocessing movenet.toml --task keypoints.toml
"""

from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

import codec
from codec.tasks.boxes import box_iou
from tools.gallery.networks import Chosen, Finder, network_options
from tools.gallery.pictures import boxes_on, drawing, show
from tools.report.figures import INK, PALETTE

EVERY, GRID, SHOWN = 4, 16, 7


def carried(box: NDArray[np.float64], field: NDArray[np.float32]) -> NDArray[np.float64]:
    """Move a box by the mean of what moves in it: content at x came from x + v."""
    y, x = ((np.arange(count) + 0.5) * GRID for count in field.shape[:2])
    left, top, right, bottom = box
    inside = field[(y > top) & (y < bottom)][:, (x > left) & (x < right)].reshape(-1, 2)
    moving = inside[np.abs(inside).max(1) >= 1]  # the rest is background
    return box - np.tile(moving.mean(0)[::-1], 2) if len(moving) else box


@click.command()
@network_options
def main(clip: Path, output: Path, chosen: Chosen) -> None:
    """Encode CLIP, and compare boxes that are carried along with those of every frame."""
    edge, cloud = chosen.split()
    rgb, shape = chosen.read(clip, edge)
    chosen.encode(output.with_suffix(".lmc"), edge, rgb, grid=GRID, effort=3)  # fields in any case
    with codec.open(output.with_suffix(".lmc")) as coded:
        found = [Finder(coded, cloud)(frame.features) for frame in coded]
        motion = coded[:].motion
    with drawing(output, [3.6, 4.4], 2.4) as (picture, chart):
        show(picture, rgb[SHOWN], f"frame {SHOWN}: the cloud's box is dashed", aspect=shape)
        boxes_on(picture, found[SHOWN], INK, "--")
        for name, fields, colour in (("carried", motion, "sky"), ("left", 0 * motion, "orange")):
            boxes, overlaps = found[:1], []
            for number, field in enumerate(fields):
                moved = [carried(box, field) for box in boxes[-1]]
                boxes.append(np.reshape(moved, (-1, 4)) if number % EVERY else found[number])
                if len(wanted := found[number]):
                    overlaps.append((number, box_iou(wanted, boxes[-1]).max(1, initial=0).mean()))
            boxes_on(picture, boxes[SHOWN + 1], PALETTE[colour])
            label = f"{name}: {np.mean(overlaps, 0)[1]:.2f}"
            chart.plot(*zip(*overlaps, strict=True), "o-", color=PALETTE[colour], label=label)
        chart.set(title="overlap with the cloud on every frame", xlabel="frame", ylim=(0, 1.05))
        chart.legend(loc="lower left")


if __name__ == "__main__":
    main()
