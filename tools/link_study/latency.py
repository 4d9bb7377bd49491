"""How long results take beyond the link's own delay, in times of one frame's computing.

    capture ─► edge ─► coding ═ link ═► decoding ─► cloud ─► result

    multiple = (result - capture - the link's delay) / (edge + coding + decoding + cloud)

Each stage takes its median time, one frame after another, while the others work on other frames.
What waits for datagrams that are sent again, or for the deadline, is in it; one frame alone on a
link without losses takes 1.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from codec.models.preprocessing import normalise
from tools.contenders.scene import Scene

__all__ = ["Times", "multiples", "network_times"]

MEASURED: Final = 16
"""Frames that the halves of the network are measured on, after one to warm up."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds that each stage takes for one frame."""

    edge: float
    coding: float
    decoding: float
    cloud: float

    @property
    def total(self) -> float:
        """Of one frame through all stages."""
        return self.edge + self.coding + self.decoding + self.cloud


def network_times(scene: Scene) -> tuple[float, float]:
    """Measure the two halves of the network, a frame at a time: medians in seconds."""
    halves = scene.halves
    assert halves is not None
    edge, cloud = [], []
    with torch.no_grad():
        for picture in scene.rgb[: MEASURED + 1]:
            image = normalise(picture[None], scene.preprocessing)
            features, took = _timed(lambda: halves.edge(image))  # noqa: B023 - called at once
            edge.append(took)
            cloud.append(_timed(lambda: halves.cloud(features))[1])  # noqa: B023
    return statistics.median(edge[1:]), statistics.median(cloud[1:])


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    made = work()
    return made, time.perf_counter() - start


def multiples(
    latencies: Mapping[int, float], times: Times, *, delay: float, frame_rate: float
) -> list[float] | None:
    """Return the multiple of each frame; None where a stage is slower than the source.

    Args:
        latencies: seconds from capture to arrival, by number, where computing takes no time.
        times: of the stages.
        delay: the link's own.
        frame_rate: of the source.
    """
    if max(times.edge, times.coding, times.decoding, times.cloud) > 1 / frame_rate:
        return None
    found = []
    decoding_free = cloud_free = float("-inf")
    for number in sorted(latencies):
        captured = number / frame_rate
        arrived = captured + times.edge + times.coding + latencies[number]
        decoding_free = max(arrived, decoding_free) + times.decoding
        cloud_free = max(decoding_free, cloud_free) + times.cloud
        found.append((cloud_free - captured - delay) / times.total)
    return found
