"""A network of one's own, small and exported, with the files that say what it takes and gives."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

PREPROCESSING = """
resize = "stretch"
size = [64, 64]
channels = "BGR"
mean = [100, 110, 120]
scale = [60, 60, 60]
"""
DETECTION = """
task = "detection"
decoder = "distribution"
scores = [0]
boxes = [1]
strides = [8]
bins = 4
activation = "none"
score_threshold = 0.3
nms_iou = 0.6
labels = ["cat", "dog"]
"""


class SmallDetector(nn.Module):
    """Scores of two classes and four distributions in each of 8 × 8 cells."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.deeper = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.scores = nn.Conv2d(12, 2, 1)
        self.boxes = nn.Conv2d(12, 16, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = torch.relu(self.deeper(torch.relu(self.stem(images))))
        return (
            torch.sigmoid(self.scores(found)).flatten(2).permute(0, 2, 1),
            self.boxes(found).flatten(2).permute(0, 2, 1),
        )


def write_detector(folder: Path) -> tuple[Path, Path, Path]:
    """Write program, preprocessing and task; the cut is at `relu`."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = SmallDetector().eval()
    program = torch.export.export(network, (torch.zeros(1, 3, 64, 64),))
    paths = folder / "small.pt2", folder / "small.toml", folder / "detection.toml"
    torch.export.save(program, paths[0])
    paths[1].write_text(PREPROCESSING)
    paths[2].write_text(DETECTION)
    return paths
