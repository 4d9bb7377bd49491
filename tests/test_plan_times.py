"""What the times of a plan are of: inter frames, coding and the network, but no conversion."""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from codec.files.pictures import CodedFrames, code_frames
from codec.files.video_coders import x265
from codec.planning import measurement
from codec.planning.measurement import (
    TIMED_PIXELS,
    TIMED_WHOLE,
    CutJob,
    RemoteJob,
    Setting,
    TimesJob,
)

pytestmark = [pytest.mark.video, pytest.mark.weights]

CLIP = Path(__file__).parents[1] / "bitstreams" / "clip" / "big_buck_bunny_64.mp4"
FRAMES = 4
SETTING = Setting("efficientnet_lite0", "default", None, None, FRAMES, effort=0)
REMOTE = RemoteJob(SETTING, CLIP, "content", "yuv420p", 0.07)


def times(*cuts: CutJob) -> dict[str, dict[str, list[float]]]:
    job = TimesJob(tuple((cut, 24) for cut in cuts), (REMOTE, 26), SETTING, CLIP, "content")
    found: dict[str, dict[str, list[float]]] = job.run()["seconds"]
    return found


def test_only_coding_is_timed_not_what_makes_pictures_for_it() -> None:
    ticks = count()
    rgb = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    coded = code_frames(rgb, x265(), 26, "yuv420p", clock=lambda: float(next(ticks)))
    assert (coded.encode_seconds, coded.decode_seconds) == (1, 1)


@pytest.mark.slow
def test_all_are_timed_on_the_same_inter_frames(tmp_path: Path) -> None:
    found = times(CutJob(SETTING, CLIP, "content", "blocks.7", 0.07, (), (CLIP,), tmp_path))
    assert set(found) == {"blocks.7", TIMED_PIXELS, TIMED_WHOLE}
    for stages in found.values():
        assert {len(values) for values in stages.values()} == {FRAMES - 1}


def test_a_key_frame_of_x265_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def coded(rgb: NDArray[np.uint8], *_: Any, **__: Any) -> CodedFrames:
        return CodedFrames(rgb.astype(np.float32), (1,) * len(rgb), 5 + len(rgb), 2 * len(rgb))

    monkeypatch.setattr(measurement, "code_frames", coded)
    assert times()[TIMED_PIXELS] == {"encode": [1] * (FRAMES - 1), "decode": [2] * (FRAMES - 1)}


def test_the_whole_network_is_timed_with_the_making_of_its_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    normalise = measurement.normalise

    def slow(*arguments: Any) -> Any:
        until = time.process_time() + 0.5
        while time.process_time() < until:
            pass
        return normalise(*arguments)

    monkeypatch.setattr(measurement, "normalise", slow)
    assert min(times()[TIMED_WHOLE]["cloud"]) > 0.5
