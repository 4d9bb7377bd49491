"""Orientations of photographs and vectors of codecs, and no harm by what else frames carry."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from videos import (
    CASES,
    NATIVE,
    corners,
    moving,
    needs_h264,
    preprocessing,
    quadrants,
    ramp,
    read,
    write_video,
)

from codec.files.video import VideoReader
from codec.format.header import Preprocessing

pytestmark = pytest.mark.video

EXIF_ORIENTATION = 0x0112


# Where the four corners of the upright picture end up, by EXIF orientation.
UPRIGHT = {1: "RGBW", 2: "GRWB", 3: "WBGR", 4: "BWRG", 5: "RBGW", 6: "BRWG", 7: "WGBR", 8: "GWRB"}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_are_turned_as_their_exif_says(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    path = tmp_path / f"picture.{suffix}"
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    Image.fromarray(quadrants()).save(
        path, exif=exif, **({"lossless": True} if suffix == "webp" else {})
    )
    (frame,) = read(path)
    assert frame.rgb.shape[:2] == ((96, 64) if orientation > 4 else (64, 96))
    assert corners(frame.rgb) == UPRIGHT[orientation]


def test_a_camera_photograph_is_read_upright() -> None:
    with VideoReader(CASES / "own_exif6.jpg", NATIVE) as video:
        assert (video.source_width, video.source_height) == (96, 64)
        assert (video.width, video.height) == (64, 96)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", None])
def test_a_colour_profile_does_no_harm(tmp_path: Path, suffix: str | None) -> None:
    """In a process of its own: the fault was a crash at the next garbage collection."""
    path = CASES / "own_icc.png"
    if suffix is not None:
        path = tmp_path / f"profile.{suffix}"
        with Image.open(CASES / "own_icc.png") as picture:
            Image.fromarray(quadrants()).save(path, icc_profile=picture.info["icc_profile"])
    script = (
        "import gc, sys; from codec.files.video import VideoReader\n"
        "from codec.format.header import Preprocessing\n"
        "how = Preprocessing(0, 0, 1, (0,) * 3, (1000,) * 3)\n"
        "for motion in (False, True) * 3:\n"
        "    reader = VideoReader(sys.argv[1], how, export_motion=motion)\n"
        "    found = list(reader)\n"
        "    gc.collect()\n"
        "print(len(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr


@needs_h264
@pytest.mark.parametrize(
    ("how", "rotation", "expected"),
    [
        (NATIVE, None, (6, -4)),
        (preprocessing(72), None, (3, -2)),
        (preprocessing(288, 224), None, (12, -8)),
        (NATIVE, (90, False, False), (-4, -6)),
        (NATIVE, (180, False, False), (-6, 4)),
        (NATIVE, (270, False, False), (4, 6)),
        (NATIVE, (0, True, False), (-6, -4)),
    ],
)
def test_motion_points_to_where_blocks_came_from(
    tmp_path: Path,
    how: Preprocessing,
    rotation: tuple[float, bool, bool] | None,
    expected: tuple[int, int],
) -> None:
    path = tmp_path / "moving.mp4"
    write_video(
        path,
        moving(5, (-4, 6)),
        codec="libx264",
        pixel_format="yuv420p",
        options={"bf": "0", "refs": "1", "qp": "14"},
        rotation=rotation,
    )
    with VideoReader(path, how, export_motion=True) as video:
        assert not video.has_motion
        frames = list(video)
        assert video.has_motion
    assert frames[0].motion is not None
    assert frames[0].motion.shape == (0, 6)
    height, width = frames[0].rgb.shape[:2]
    for earlier, frame in pairwise(frames[1:]):
        motion = frame.motion
        assert motion is not None
        assert motion.dtype == np.float32
        x, y, w, h, dx, dy = motion.T
        assert ((x + w / 2 > -0.5) & (x - w / 2 < width - 0.5)).all()
        assert ((y + h / 2 > -0.5) & (y - h / 2 < height - 0.5)).all()
        inner = (abs(x - width / 2) < width / 3) & (abs(y - height / 2) < height / 3)
        assert inner.any()
        np.testing.assert_allclose(np.median(motion[inner, 4:], axis=0), expected, atol=0.3)
        # The sense of the displacement, from the pixels themselves.
        errors = []
        for sign in (1, -1):
            rows = (y[inner] + sign * dy[inner]).round().astype(int)
            columns = (x[inner] + sign * dx[inner]).round().astype(int)
            there = earlier.rgb[rows.clip(0, height - 1), columns.clip(0, width - 1)]
            here = frame.rgb[y[inner].round().astype(int), x[inner].round().astype(int)]
            errors.append(np.abs(there.astype(int) - here).mean())
        assert errors[0] < errors[1] / 2


def test_mpeg4_vectors_cover_the_frame(tmp_path: Path) -> None:
    path = tmp_path / "moving.avi"
    write_video(
        path, moving(6, (3, -5)), codec="mpeg4", pixel_format="yuv420p", options={"b": "4000000"}
    )
    frames = read(path, export_motion=True)
    for frame in frames[1:]:
        assert frame.motion is not None
        area = (frame.motion[:, 2] * frame.motion[:, 3]).sum()
        assert area > 0.7 * 144 * 192
        np.testing.assert_allclose(np.median(frame.motion[:, 4:], axis=0), [-5, 3], atol=0.5)


def test_motion_where_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "still.mkv"
    write_video(path, ramp(3))
    assert all(frame.motion is None for frame in read(path))
    with VideoReader(path, NATIVE, export_motion=True) as video:
        shapes = [frame.motion.shape for frame in video if frame.motion is not None]
        assert shapes == [(0, 6)] * 3
        assert not video.has_motion
