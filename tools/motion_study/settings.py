"""What every experiment of the study is made with: networks, pictures, clips, numbers of them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

__all__ = ["NETWORKS", "SIZE", "Row", "Settings"]

Row = dict[str, Any]

SIZE = (224, 224)
SHIPPED_CLIP = Path(__file__).parents[2] / "bitstreams" / "clip" / "big_buck_bunny_64.mp4"

NETWORKS = {
    "resnet34": "ResNet-34",
    "densenet121": "DenseNet-121",
    "efficientnet_lite0": "EfficientNet-Lite0",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What an experiment is made with.

    `images`: a folder of photographs; None takes frames of the clips.  `weights_dir`: a folder with
    state dicts; None asks torchvision.  `frames`: of each clip.  `pair`: the frames of the first
    clip for `flow`; None looks for motion in all of them.
    """

    images: Path | None = None
    clips: tuple[Path, ...] = (SHIPPED_CLIP,)
    weights_dir: Path | None = None
    networks: tuple[str, ...] = tuple(NETWORKS)
    pictures: int = 8
    draws: int = 1000
    frames: int = 24
    pair: tuple[int, int] | None = None
    picture: int = 0
    seed: int = 0
    step: float = 1.0
    progress: bool = True

    def bar(self, items: Iterable[Any], what: str, total: int | None = None) -> Any:  # noqa: ANN401
        """Show progress on standard error."""
        return tqdm(
            items,
            desc=what,
            total=total,
            disable=not self.progress,
            dynamic_ncols=True,
            file=sys.stderr,
            leave=False,
        )
