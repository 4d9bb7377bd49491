"""Views of photographs: made as the frames of a video are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from strategies import header_of

from codec.files.video import VideoReader
from codec.format.header import Preprocessing, Resize, SequenceHeader, TensorSpec
from codec.format.profile import Profile
from codec.pipeline.views import Pair, Photograph, read_photograph, views_of
from codec.profiling.simple import measure_profile

pytestmark = pytest.mark.video

PLAIN = Preprocessing(0, 0, 1, (0,) * 3, (1000,) * 3)
CLIP = Path(__file__).parents[1] / "bitstreams" / "clip" / "big_buck_bunny_64.mp4"
GREY, FILL = 200, (10, 20, 30)


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 x 90, grey."""
    path = tmp_path_factory.mktemp("photographs") / "p.ppm"
    path.write_bytes(b"P6 120 90 255\n" + bytes([GREY]) * (120 * 90 * 3))
    return path


def header(size: tuple[int, int]) -> SequenceHeader:
    spec = TensorSpec("t", 1, -(-size[0] // 8), -(-size[1] // 8), 8, 8)
    profile: Profile = measure_profile([spec], [[torch.rand(spec.shape)]])
    return replace(header_of((spec,), profile, size=size), grid=16)


def views(source: Path, preprocessing: Preprocessing, size: tuple[int, int]) -> list[Pair]:
    found = read_photograph(source, preprocessing, size)
    assert isinstance(found, Photograph)
    generator = torch.Generator().manual_seed(0)
    return list(views_of(found, header(size), 4, np.random.default_rng(0), generator))


@pytest.mark.parametrize(
    ("preprocessing", "size"),
    [
        (replace(PLAIN, short_side=72, crop=64), (64, 64)),
        (replace(PLAIN, resize=Resize.STRETCH, size=(96, 160)), (96, 160)),
        (replace(PLAIN, resize=Resize.STRETCH, size=(96, 160), crop=80), (80, 80)),
        (replace(PLAIN, resize=Resize.STRETCH, size=(50, 50), pad_multiple=32), (64, 64)),
        (PLAIN, (90, 120)),
        (replace(PLAIN, pad_multiple=32), (96, 128)),
        (PLAIN, (160, 60)),  # that of another picture
    ],
)
def test_views_have_the_size_of_frames(photograph, preprocessing, size):
    for before, after, vectors in views(photograph, preprocessing, size):
        assert before.shape == after.shape == (*size, 3)
        assert abs(float(before.mean()) - GREY) < 1
        assert vectors.shape == (*header(size).field_shape, 2)
        assert (vectors == vectors[0, 0]).all()
        assert vectors.any()


@pytest.mark.parametrize("size", [(64, 128), (128, 64)])
def test_bars_are_where_those_of_frames_are_and_do_not_move(photograph, size):
    letterbox = replace(PLAIN, resize=Resize.LETTERBOX, size=size, fill=FILL)
    with VideoReader(photograph, letterbox) as reader:
        bars = (next(iter(reader)).rgb == FILL).all(2)
    assert 0.2 < bars.mean() < 0.7
    for before, after, vectors in views(photograph, letterbox, size):
        for frame in (before, after):
            assert ((frame == FILL).all(2) == bars).all()
        nodes = bars[8::16, 8::16]
        assert (vectors[nodes] == 0).all()
        assert vectors[~nodes].any(1).all()


def test_a_picture_is_seen_at_the_scale_of_frames(photograph):
    """What is cropped from frames of 72 rows is cropped from a photograph of 72 rows."""
    cropped = read_photograph(photograph, replace(PLAIN, short_side=73, crop=64), (64, 64))
    assert cropped is not None
    assert cropped.picture.shape == (73, 97, 3)
    assert cropped.fit.resized == (64, 64)
    whole = read_photograph(photograph, replace(PLAIN, short_side=70, crop=70), (70, 70))
    assert whole is not None
    assert whole.picture.shape == (80, 106, 3)  # with room to move


def test_a_video_is_no_photograph():
    assert read_photograph(CLIP, PLAIN, (64, 64)) is None
