"""Videos to look at: every picture at its own time, whatever the stream's time base."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from codec.errors import VideoError
from codec.files.drawn import LONGEST, PictureWriter

pytestmark = pytest.mark.video


def times(time_base: Fraction, pts: list[int]) -> list[float]:
    file = io.BytesIO()
    with PictureWriter(file, (64, 48), time_base) as pictures:
        for each in pts:
            pictures.add(np.full((48, 64, 3), 90, np.uint8), each)
    file.seek(0)
    with av.open(file) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    ("time_base", "pts"),
    [
        (Fraction(1, 1000), [0, 33, 67, 100, 133, 167, 200]),  # of Matroska
        (Fraction(1001, 30000), list(range(100, 110))),
        (Fraction(1, 12800), [-512, 0, 512, 4096]),
    ],
)
def test_pictures_keep_their_times(time_base, pts):
    expected = [float((each - pts[0]) * time_base) for each in pts]
    assert times(time_base, pts) == pytest.approx(expected, abs=1e-3)


def test_time_bases_of_any_size():
    assert len(times(Fraction(1, 2**31), [0, 1, 2, 3])) == 4
    with pytest.raises(VideoError, match="seconds after the first; drawn videos last at most"):
        times(Fraction(2**31 - 1), [0, 1])
    assert len(times(Fraction(LONGEST), [0, 1])) == 2
