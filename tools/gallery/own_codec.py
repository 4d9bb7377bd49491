"""A codec of your own in the study, beside this one and x265 on the same tensors.

python -m tools.gallery.own_codec bitstreams/clip/car_24.mp4 OUTPUT.png
"""

import csv
import sys
import zlib
from pathlib import Path

import numpy as np

from tools.contenders.scene import Coded, Scene
from tools.gallery.pictures import drawing
from tools.rate_distortion.command import main as study
from tools.report.figures import PALETTE


class Subtracted:
    """Differences to the frame before, uniformly quantised, and zlib."""

    name, variant, needs_split = "subtracted", "", True
    points = (12.8, 6.4, 3.2, 1.6, 0.8)  # quantiser steps

    def code(self, scene: Scene, point: float) -> Coded:
        """Encode and decode the tensors of a scene, (N, C, H, W) float32 each."""
        size, decoded = 0, []
        for tensor in scene.features:
            frames = [np.zeros_like(tensor[0])]
            for frame in tensor:
                levels = np.rint((frame - frames[-1]) / point).astype(np.int16)
                size += len(zlib.compress(levels.tobytes(), 9))
                frames.append(frames[-1] + levels * np.float32(point))
            decoded.append(np.stack(frames[1:]))
        return Coded(size=size, features=tuple(decoded), parameters={"step": point})


def main(clip: str, output: str) -> None:
    """Run the study on the first frames of CLIP, and draw rate against what the task loses."""
    folder = Path(output).with_suffix("")  # of the page and the tables
    asked = "--frames 8 --split blocks.7 --qp 14:38:8 --anchors tiles --no-pictures"
    codecs = ["--codec", "lmc", "--codec", "tools.gallery.own_codec:Subtracted"]
    study.main([clip, *asked.split(), *codecs, "-o", str(folder)], standalone_mode=False)

    with (folder / "results.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["bytes"]))
    with drawing(Path(output), [5.4], 2.9) as (chart,):
        for name, colour in (("lmc", "blue"), ("tiles", "green"), ("subtracted", "orange")):
            front: dict[float, float] = {}  # of variants what loses less than all cheaper
            for row in rows:
                if row["codec"] == name and float(row["kl"]) < min(front.values(), default=1e9):
                    front[float(row["bytes_per_frame"])] = float(row["kl"])
            chart.loglog(*zip(*front.items(), strict=True), "o-", color=PALETTE[colour], label=name)
        chart.set(title="what the task loses (KL), against bytes a frame", xlabel="bytes a frame")
        chart.legend()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
