"""Where pixels end up: sizes, crops, padding, orientations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from videos import (
    DEFAULT,
    NATIVE,
    corners,
    flat,
    noise,
    preprocessing,
    quadrants,
    read,
    write_video,
)

from codec.errors import VideoError
from codec.files.fitting import Fit, Orientation
from codec.files.video import VideoReader
from codec.format.header import Preprocessing, Resize

pytestmark = pytest.mark.video


@pytest.mark.parametrize("size", [(48, 64), (37, 53), (53, 37), (1, 1), (17, 90)])
def test_pixels_pass_unchanged_when_nothing_is_resized(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    pictures = [noise(*size, seed) for seed in range(3)]
    path = tmp_path / "exact.mkv"
    write_video(path, pictures)
    for frame, picture in zip(read(path), pictures, strict=True):
        np.testing.assert_array_equal(frame.rgb, picture)
        assert frame.rgb.flags.c_contiguous
        assert frame.rgb.flags.writeable


@pytest.mark.parametrize("size", [(41, 64), (40, 55), (31, 31)])
def test_centre_crop(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "crop.mkv"
    picture = noise(*size)
    write_video(path, [picture])
    (frame,) = read(path, preprocessing(crop=30))
    top, left = (size[0] - 30) // 2, (size[1] - 30) // 2
    np.testing.assert_array_equal(frame.rgb, picture[top : top + 30, left : left + 30])


def test_padding_repeats_the_last_row_and_column(tmp_path: Path) -> None:
    path = tmp_path / "pad.mkv"
    picture = noise(33, 47)
    write_video(path, [picture])
    (frame,) = read(path, preprocessing(pad_multiple=16))
    assert frame.rgb.shape == (48, 48, 3)
    np.testing.assert_array_equal(frame.rgb[:33, :47], picture)
    np.testing.assert_array_equal(frame.rgb[33:, :47], np.repeat(picture[-1:], 15, axis=0))
    np.testing.assert_array_equal(frame.rgb[:33, 47], picture[:, -1])


@pytest.mark.parametrize(
    ("source", "resized"),
    [
        ((640, 272), (602, 256)),
        ((640, 360), (455, 256)),
        ((3, 2), (384, 256)),
        ((9, 16), (256, 455)),
    ],
)
def test_size_when_resized(
    tmp_path: Path, source: tuple[int, int], resized: tuple[int, int]
) -> None:
    path = tmp_path / "size.mkv"
    write_video(path, [flat(90, *source)])
    with VideoReader(path, preprocessing(256)) as video:
        assert (video.width, video.height) == resized
        (frame,) = video
    assert frame.rgb.shape == (*resized[::-1], 3)
    assert (frame.rgb == 90).all()


@pytest.mark.parametrize(
    ("suffix", "rotation", "expected", "size"),
    [
        ("mp4", (0, False, False), "RGBW", (64, 96)),
        ("mp4", (90, False, False), "GWRB", (96, 64)),
        ("mp4", (180, False, False), "WBGR", (64, 96)),
        ("mp4", (270, False, False), "BRWG", (96, 64)),
        ("mp4", (0, True, False), "GRWB", (64, 96)),
        ("mp4", (0, False, True), "BWRG", (64, 96)),
        ("mkv", (90, False, False), "GWRB", (96, 64)),
    ],
)
def test_the_display_matrix_turns_frames_upright(
    tmp_path: Path,
    suffix: str,
    rotation: tuple[float, bool, bool],
    expected: str,
    size: tuple[int, int],
) -> None:
    path = tmp_path / f"rotated.{suffix}"
    write_video(path, [quadrants()] * 3, codec="mpeg4", pixel_format="yuv420p", rotation=rotation)
    with VideoReader(path, NATIVE) as video:
        assert (video.height, video.width) == size
        assert (video.source_height, video.source_width) == (64, 96)
        for frame in video:
            assert frame.rgb.shape[:2] == size
            assert corners(frame.rgb) == expected


@pytest.mark.parametrize("quarter_turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_orientation_agrees_with_numpy(quarter_turns: int, mirrored: bool) -> None:
    """The matrix maps (x, y) to (x, y) M; numpy turns counterclockwise."""
    turn = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), quarter_turns)
    mirror = np.diag([-1 if mirrored else 1, 1])
    matrix = np.zeros((3, 3), np.int32)
    matrix[:2, :2] = (turn @ mirror) * 65536
    picture = noise(4, 7)
    expected = np.rot90(picture, quarter_turns)
    expected = expected[:, ::-1] if mirrored else expected
    orientation = Orientation.from_display_matrix(matrix)
    np.testing.assert_array_equal(orientation.apply(picture), expected)


def test_a_crop_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.mkv"
    write_video(path, [flat(9, 64, 48)])
    with pytest.raises(VideoError, match=r"crop of 224x224 does not fit into frames of 64x48"):
        VideoReader(path, preprocessing(crop=224))
    with pytest.raises(VideoError, match=r"would be padded to 65536x65536; the longest side"):
        VideoReader(path, replace(preprocessing(), pad_multiple=65536))
    large = replace(preprocessing(), resize=Resize.LETTERBOX, size=(20000, 20000))
    with pytest.raises(VideoError, match=r"to 20000x"):
        VideoReader(path, large)
    write_video(path, [flat(9, 1000, 2)])
    with pytest.raises(VideoError, match=r"would be resized to 128000x256"):
        VideoReader(path, DEFAULT)


def fitted(resize: Resize, size: tuple[int, int], *, crop: int = 0) -> Preprocessing:
    return replace(preprocessing(crop=crop), resize=resize, size=size, fill=(114, 0, 7))


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (64, 48), (7, 90)])
def test_stretching_fills_the_whole_input(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "stretched.mkv"
    write_video(path, [quadrants(64, 48)])
    (frame,) = read(path, fitted(Resize.STRETCH, size))
    assert frame.rgb.shape == (*size, 3)
    assert corners(frame.rgb) == corners(quadrants(64, 48))


@pytest.mark.parametrize(
    ("source", "size", "top", "left", "height", "width"),
    [
        ((48, 64), (64, 64), 8, 0, 48, 64),
        ((48, 64), (32, 32), 4, 0, 24, 32),
        ((64, 48), (32, 32), 0, 4, 32, 24),
        ((48, 64), (48, 64), 0, 0, 48, 64),
        ((10, 640), (32, 32), 15, 0, 1, 32),
        ((48, 64), (25, 64), 0, 15, 25, 33),
    ],
)
def test_a_letterbox_keeps_the_ratio_and_fills_the_rest(
    tmp_path: Path,
    source: tuple[int, int],
    size: tuple[int, int],
    top: int,
    left: int,
    height: int,
    width: int,
) -> None:
    path = tmp_path / "boxed.mkv"
    write_video(path, [flat(255, source[1], source[0])])
    (frame,) = read(path, fitted(Resize.LETTERBOX, size))
    assert frame.rgb.shape == (*size, 3)
    shown = np.zeros(size, bool)
    shown[top : top + height, left : left + width] = True
    assert (frame.rgb[shown] >= 254).all()
    assert (frame.rgb[~shown] == (114, 0, 7)).all()


def test_a_crop_of_a_letterbox_is_its_middle(tmp_path: Path) -> None:
    path = tmp_path / "cropped.mkv"
    write_video(path, [noise(48, 64)])
    (whole,) = read(path, fitted(Resize.LETTERBOX, (64, 64)))
    (middle,) = read(path, fitted(Resize.LETTERBOX, (64, 64), crop=56))
    np.testing.assert_array_equal(middle.rgb, whole.rgb[4:60, 4:60])


def test_turned_frames_are_fitted_upright(tmp_path: Path) -> None:
    path = tmp_path / "turned.mp4"
    turned = {"codec": "mpeg4", "pixel_format": "yuv420p", "rotation": (90, False, False)}
    write_video(path, [flat(200)], **turned)
    (frame,) = read(path, fitted(Resize.LETTERBOX, (64, 64)))
    lit = (frame.rgb > 150).all(-1)
    assert lit[:, 8:56].all()
    assert not lit[:, :8].any()


SIDES = st.integers(2, 90)


@st.composite
def ways(draw: st.DrawFn) -> tuple[tuple[int, int], Fit]:
    """A size of decoded frames, and how they are fitted."""
    source = draw(st.tuples(SIDES, SIDES))
    turned = Orientation(*(draw(st.booleans()) for _ in range(3)))
    resize = draw(st.sampled_from(Resize))
    size = draw(st.tuples(SIDES, SIDES)) if resize is not Resize.SHORT_SIDE else (0, 0)
    short = draw(st.sampled_from([0, draw(SIDES)])) if resize is Resize.SHORT_SIDE else min(size)
    crop = draw(st.sampled_from([0, draw(st.integers(1, short or min(source)))]))
    steps = replace(
        preprocessing(short if resize is Resize.SHORT_SIDE else 0, crop, draw(SIDES)),
        resize=resize,
        size=size,
    )
    assume(max(source) * (short or 1) <= 400 * min(source))
    return source, Fit.plan(source, turned, steps, "test")


@given(ways(), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_what_is_found_goes_back_to_the_frame(
    way: tuple[tuple[int, int], Fit], shares: list[float]
) -> None:
    """A box of the upright frame, brought into the input by the sizes alone, comes back."""
    source, fit = way
    geometry = fit.geometry(source)
    upright = source[::-1] if fit.orientation.transpose else source
    resized = fit.resized[::-1] if fit.orientation.transpose else fit.resized
    assert (geometry.width, geometry.height) == upright
    assert (geometry.input_width, geometry.input_height) == fit.delivered
    box = np.array(shares) * np.tile(upright, 2)
    inside = box / np.tile(upright, 2) * np.tile(resized, 2) - np.tile(fit.crop, 2)
    np.testing.assert_allclose(geometry.to_frame(inside), box, atol=1e-9)


@given(ways())
def test_maps_of_the_input_go_back_to_the_frame(way: tuple[tuple[int, int], Fit]) -> None:
    """A map that says of every pixel of the input which column it shows: pixels go where points do.

    What was cropped away is outside, and nothing of what was shown is.
    """
    source, fit = way
    geometry = fit.geometry(source)
    width, height = fit.delivered
    columns = np.broadcast_to(np.arange(width, dtype=np.int64), (height, width))
    back = geometry.sample(columns, -1)
    assert back.shape == (geometry.height, geometry.width)
    centres = (np.arange(geometry.width) + 0.5) * geometry.scale_x + geometry.left
    rows = (np.arange(geometry.height) + 0.5) * geometry.scale_y + geometry.top
    seen = ((rows >= 0) & (rows < height))[:, None] & ((centres >= 0) & (centres < width))
    np.testing.assert_array_equal(back >= 0, seen)
    expected = np.broadcast_to(np.floor(centres), back.shape)
    np.testing.assert_array_equal(back[seen], expected[seen])


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("how", ["stretch", "letterbox", "crop", "native"])
def test_a_bright_box_is_where_the_pixels_say(tmp_path: Path, turn: float, how: str) -> None:
    """Through the real reader: what is bright in the input is the box that is bright upright."""
    size = (64, 80) if how in {"stretch", "letterbox"} else (0, 0)
    steps = {
        "stretch": replace(preprocessing(), resize=Resize.STRETCH, size=size),
        "letterbox": replace(preprocessing(), resize=Resize.LETTERBOX, size=size),
        "crop": preprocessing(short_side=48, crop=40),
        "native": preprocessing(pad_multiple=32),
    }[how]
    picture = flat(0, 96, 72)
    picture[24:40, 36:60] = 255
    path = tmp_path / "box.mkv"
    write_video(path, [picture], rotation=(turn, False, False))
    with VideoReader(path, steps) as reader:
        decoded, pts = next(reader.decoded())
        whole = reader.picture(decoded)
        frame = reader.deliver(decoded, pts)
        geometry = reader.geometry

    def around(rgb: np.ndarray) -> np.ndarray:
        y, x = np.nonzero(rgb[..., 0] > 127)
        return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], float)

    assert whole.shape[:2] == (geometry.height, geometry.width)
    assert whole.shape[:2] == ((96, 72) if turn % 180 else (72, 96))
    back = geometry.to_frame(around(frame.rgb))
    np.testing.assert_allclose(back, around(whole), atol=1.5 / min(geometry.scale_x, 1))
