"""Anchors: near lossless they keep what they are given, and every byte of theirs is counted."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from codec.errors import VideoError
from codec.files.pictures import (
    CHROMA_MIDDLE,
    code_frames,
    double,
    from_pictures,
    halve,
    rgb_to_ycbcr,
    to_pictures,
    ycbcr_to_rgb,
)
from codec.files.video_coders import (
    VideoCoder,
    _bare,
    code_video,
    svt_av1,
    x264,
    x265,
)
from tools.contenders.anchors import ANCHORS
from tools.contenders.scene import Coded, Scene, StudyCodec
from tools.contenders.tensors import tile, tile_layout, untile
from tools.contenders.unavailable import AnchorUnavailableError

CLIP = Path(__file__).resolve().parent.parent / "bitstreams" / "clip" / "big_buck_bunny_64.mp4"
FRAMES = 3

ENCODERS = {"x265": "libx265", "x264": "libx264", "svtav1": "libsvtav1"}
VIDEO_ANCHORS = [
    codec for name in ANCHORS for codec in ANCHORS[name] if name.startswith(("pixels", "source"))
]


def needs(name: str) -> None:
    encoder = "libx265" if name == "tiles" else ENCODERS.get(name.rpartition("-")[2])
    if encoder and encoder not in av.codecs_available:
        pytest.skip(f"this build of FFmpeg has no {encoder}")


def named(codec: StudyCodec) -> str:
    return f"{codec.name}-{codec.variant}"


@pytest.fixture(scope="module")
def scenes() -> dict[str, Scene]:
    return {
        split: Scene.load(
            CLIP, model="efficientnet_lite0", weights="default", split=split, frames=FRAMES
        )
        for split in ("", "blocks.10")
    }


def smooth(frames: int, height: int, width: int) -> np.ndarray:
    """RGB frames of a moving gradient."""
    t, y, x = np.meshgrid(np.arange(frames), np.arange(height), np.arange(width), indexing="ij")
    planes = [2 * x + t, 2 * y + 3 * t, x + y]
    return np.stack([plane % 256 for plane in planes], axis=-1).astype(np.uint8)


def check_account(coded: Coded, frames: int = FRAMES) -> None:
    assert coded.frame_bytes is not None
    assert len(coded.frame_bytes) == frames
    assert sum(coded.frame_bytes) == coded.size
    assert min(coded.frame_bytes) > 0
    assert {"encode", "decode"} <= set(coded.seconds)


def with_features(scene: Scene, *tensors: np.ndarray) -> Scene:
    """A scene of other tensors, for codecs that look at nothing else."""
    return replace(scene, features=tensors, frames=len(tensors[0]))


# --- tensors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "layout"),
    [(1, (1, 1)), (40, (5, 8)), (80, (8, 10)), (112, (8, 14)), (13, (4, 4)), (2, (1, 2))],
)
def test_tiles_go_back(channels: int, layout: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    samples = rng.integers(0, 1024, (3, channels, 6, 10), dtype=np.uint16)
    assert tile_layout(channels) == layout
    pictures = tile(samples)
    assert pictures.shape == (3, layout[0] * 6, layout[1] * 10)
    assert np.array_equal(untile(pictures, channels), samples)


def test_channels_lie_row_by_row() -> None:
    samples = np.arange(6, dtype=np.uint16).reshape(1, 6, 1, 1) * np.ones((2, 2), np.uint16)
    assert tile(samples)[0, ::2, ::2].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.slow
@pytest.mark.video
@pytest.mark.weights
@pytest.mark.parametrize("codec", ANCHORS["tiles"], ids=named)
def test_tiles_near_lossless_and_coarse(codec: StudyCodec, scenes: dict[str, Scene]) -> None:
    needs("tiles")
    scene = scenes["blocks.10"]
    fine, coarse = codec.code(scene, 2), codec.code(scene, 40)
    check_account(fine)
    assert scene.judge(fine).kl.mean() < 0.005
    assert scene.judge(fine).nrmse < 0.005
    assert coarse.size < fine.size / 4
    assert fine.parameters["x265-params"].endswith(codec.coder.parameters)
    assert "libx265" in fine.parameters["library"]


@pytest.mark.video
@pytest.mark.weights
def test_tensors_of_any_kind(scenes: dict[str, Scene]) -> None:
    """Several, of different sizes, one of them constant: each in a stream of its own."""
    needs("tiles")
    rng = np.random.default_rng(2)
    several = with_features(
        scenes["blocks.10"],
        rng.normal(size=(4, 12, 16, 16)).astype(np.float32),
        np.full((4, 13, 7, 7), -3.5, np.float32),
    )
    for name in ("tiles", "lossless"):
        for codec in ANCHORS[name]:
            coded = codec.code(several, 0 if name == "tiles" else 8)
            assert [tensor.dtype for tensor in coded.features] == [np.float32] * 2
            assert np.abs(coded.features[0] - several.features[0]).max() < 0.1
            assert np.array_equal(coded.features[1], several.features[1])
            if coded.frame_bytes is not None:
                check_account(coded, 4)
    zlib_size = sum(
        len(zlib.compress(np.rint((frame - tensor.min()) / np.ptp(tensor) * 255).astype("u1"), 9))
        for tensor in several.features[:1]
        for frame in tensor
    ) + 4 * len(zlib.compress(bytes(13 * 7 * 7), 9))
    extremes = 2 * 2 * 4  # two float32 for each tensor
    assert ANCHORS["lossless"][0].code(several, 8).size == zlib_size + extremes


@pytest.mark.video
@pytest.mark.weights
def test_lossless_errs_by_half_a_step(scenes: dict[str, Scene]) -> None:
    scene = scenes["blocks.10"]
    (actual,) = scene.features
    for codec in ANCHORS["lossless"]:
        coded = {bits: codec.code(scene, bits) for bits in (2, 5, 8)}
        for bits, one in coded.items():
            step = np.ptp(actual) / (2**bits - 1)
            assert np.abs(one.features[0] - actual).max() <= step / 2 * 1.001
        assert coded[2].size < coded[5].size < coded[8].size < actual.nbytes / 4
        assert scene.judge(coded[8]).kl.mean() < 0.003


@pytest.mark.video
@pytest.mark.weights
def test_uncompressed_is_perfect(scenes: dict[str, Scene]) -> None:
    scene = scenes["blocks.10"]
    (codec,) = ANCHORS["uncompressed"]
    coded = codec.code(scene, 32)
    check_account(coded)
    assert coded.size == 4 * scene.features[0].size
    assert scene.judge(coded).kl.max() == 0


# --- NNCodec ----------------------------------------------------------------------------------


@pytest.mark.video
@pytest.mark.weights
def test_without_nncodec_the_message_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, scenes: dict[str, Scene]
) -> None:
    monkeypatch.setitem(sys.modules, "nncodec", None)
    monkeypatch.delitem(sys.modules, "nncodec.tensor", raising=False)
    with pytest.raises(AnchorUnavailableError, match="needs the package nncodec"):
        ANCHORS["nncodec"][0].code(scenes["blocks.10"], 0)


@pytest.mark.video
@pytest.mark.weights
@pytest.mark.filterwarnings("ignore")
def test_nncodec_halves_its_error_with_every_four_qp(scenes: dict[str, Scene]) -> None:
    pytest.importorskip("nncodec.tensor", reason="the package nncodec is optional")
    features = np.random.default_rng(4).normal(0, 8, (2, 6, 14, 14)).astype(np.float32)
    scene = with_features(scenes["blocks.10"], features)
    coarse, fine = (ANCHORS["nncodec"][0].code(scene, qp) for qp in (8, 0))
    check_account(fine, 2)
    assert coarse.size < fine.size
    ratio = np.std(coarse.features[0] - features) / np.std(fine.features[0] - features)
    assert 2.5 < ratio < 5


# --- colours ----------------------------------------------------------------------------------


def test_ycbcr_inverts() -> None:
    rgb = np.random.default_rng(3).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    assert np.allclose(ycbcr_to_rgb(rgb_to_ycbcr(rgb)), rgb, atol=1e-9)


def test_ycbcr_of_known_colours() -> None:
    rgb = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 0, 255]], np.uint8)
    expected = [[0, 128, 128], [255, 128, 128], [76.245, 84.9723, 255.5], [29.07, 255.5, 107.2653]]
    assert np.allclose(rgb_to_ycbcr(rgb), expected, atol=1e-3)


def test_chroma_is_halved_and_doubled_around_the_same_centres() -> None:
    y, x = np.meshgrid(np.arange(8.0), np.arange(12.0), indexing="ij")
    plane = (3 * y + 5 * x)[None]
    assert np.allclose(halve(plane)[0, 1, 2], plane[0, 2:4, 4:6].mean())
    assert np.allclose(double(halve(plane))[0, 1:-1, 1:-1], plane[0, 1:-1, 1:-1])


@pytest.mark.parametrize(
    ("pixel_format", "bound"),
    [("gbrp", 0), ("yuv444p", 1.5), ("yuv420p", 4.5), ("yuv420p10le", 4)],
)
def test_pictures_go_back(pixel_format: str, bound: float) -> None:
    """GBR exactly; 4:4:4 up to one rounding; 4:2:0 up to that and the gradient's chroma."""
    rgb = smooth(2, 32, 48)
    pictures = to_pictures(rgb, pixel_format)
    frame = VideoFrame.from_ndarray(pictures[0], format=pixel_format)
    assert (frame.width, frame.height) == (48, 32)
    assert np.array_equal(frame.to_ndarray(), pictures[0])
    error = np.abs(from_pictures(pictures, pixel_format) - rgb)
    assert error.max() <= bound


@pytest.mark.parametrize("size", [(65, 96), (64, 97), (65, 97)])
def test_odd_sides_are_for_full_chroma(size: tuple[int, int]) -> None:
    rgb = smooth(2, *size)
    coded = code_frames(rgb, x265(), 10, "yuv444p")
    assert coded.images.shape == rgb.shape
    assert np.abs(coded.images - rgb).mean() < 4
    found = f"takes even sides, found frames of {size[1]}x{size[0]}"
    with pytest.raises(VideoError, match=found):
        code_frames(rgb, x265(), 10, "yuv420p")


def test_ten_bits_round_finer() -> None:
    grey = np.random.default_rng(5).integers(0, 256, (1, 8, 8, 1)).repeat(3, -1).astype(np.uint8)
    pictures = to_pictures(grey, "yuv420p10le")
    assert np.abs(from_pictures(pictures, "yuv420p10le") - grey).max() < 1e-4


@pytest.mark.parametrize(("pixel_format", "steps"), [("yuv420p", 1), ("yuv420p10le", 4)])
def test_grey_has_no_chroma(pixel_format: str, steps: int) -> None:
    grey = np.full((1, 4, 4, 3), 77, np.uint8)
    picture = to_pictures(grey, pixel_format)[0]
    assert set(picture[:4].ravel()) == {77 * steps}
    assert set(picture[4:].ravel()) == {CHROMA_MIDDLE * steps}


# --- video codecs -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.video
@pytest.mark.weights
@pytest.mark.parametrize("codec", VIDEO_ANCHORS, ids=named)
def test_video_near_lossless(codec: StudyCodec, scenes: dict[str, Scene]) -> None:
    """What comes back is what went in, in colour and place, but for the loss of its format."""
    needs(codec.name)
    scene = scenes[""]
    coded = codec.code(scene, 1 if codec.name.endswith("svtav1") else 2)
    check_account(coded)
    assert coded.images.dtype == np.float32
    bound = 1.5 if codec.variant.startswith("gbrp") else 2.5
    assert np.abs(coded.images - scene.rgb).mean() < bound
    assert abs((coded.images - scene.rgb).mean()) < 0.3  # a wrong range would show here
    assert scene.judge(coded).kl.mean() < 0.05
    assert set(coded.parameters) >= {"encoder", "preset", "crf", "pixel_format", "library"}


@pytest.mark.slow
@pytest.mark.video
@pytest.mark.weights
@pytest.mark.parametrize("name", [n for n in ANCHORS if n.startswith(("pixels", "source"))])
def test_coarser_video_is_smaller_and_worse(name: str, scenes: dict[str, Scene]) -> None:
    needs(name)
    codec, scene = ANCHORS[name][0], scenes[""]
    coarse, fine = (codec.code(scene, codec.points[n]) for n in (1, -2))
    assert coarse.size < fine.size / 4
    assert scene.judge(coarse).kl.mean() > 2 * scene.judge(fine).kl.mean()


CODERS = {"x265": x265(), "x264": x264(), "svtav1": svt_av1()}


@pytest.mark.video
@pytest.mark.parametrize("name", CODERS)
def test_the_stream_holds_nothing_but_video(name: str) -> None:
    """Neither banners nor a second set of parameter sets: a still costs next to nothing."""
    needs(name)
    still = [VideoFrame.from_ndarray(np.full((96, 64), 128, np.uint8), format="yuv420p")] * 12
    coded = code_video(still, CODERS[name], 30, "yuv420p")
    assert sum(coded.frame_bytes) < 350


@pytest.mark.video
@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no such system call")
@pytest.mark.parametrize("name", CODERS)
def test_the_thread_is_scheduled_as_before(name: str) -> None:
    needs(name)
    before = os.sched_getscheduler(0)
    pictures = [VideoFrame.from_ndarray(np.zeros((96, 64), np.uint8), format="yuv420p")] * 2
    code_video(pictures, CODERS[name], 30, "yuv420p")
    assert os.sched_getscheduler(0) == before


def test_delimiters_are_not_counted() -> None:
    assert _bare(b"\x12\x00\x32\x01", svt_av1()) == b"\x32\x01"
    assert _bare(b"\x12\x00\x32\x01", x264()) == b"\x12\x00\x32\x01"


@pytest.mark.video
@pytest.mark.parametrize("name", CODERS)
def test_frames_cost_what_is_new_in_them(name: str) -> None:
    """In presentation order, though encoders put pictures out of order."""
    needs(name)
    rng = np.random.default_rng(6)
    noise = [rng.integers(0, 256, (192, 128)).astype(np.uint8) for _ in range(2)]
    pictures = [VideoFrame.from_ndarray(noise[n >= 9], format="yuv420p") for n in range(12)]
    coded = code_video(pictures, CODERS[name], 30, "yuv420p")
    assert sorted(np.argsort(coded.frame_bytes)[-2:]) == [0, 9]
    recovered = [frame.to_ndarray().astype(float) for frame in coded.frames]
    for number, picture in enumerate(recovered):
        errors = [np.abs(picture - one).mean() for one in noise]
        assert (errors[1] < errors[0]) == (number >= 9)


@pytest.mark.video
def test_what_cannot_be_had() -> None:
    picture = VideoFrame.from_ndarray(np.zeros((96, 64), np.uint8), format="yuv420p")
    with pytest.raises(VideoError, match="has no libx999"):
        code_video([picture], VideoCoder("libx999", "hevc", "", "", ""), 30, "yuv420p")
    needs("x265")
    tiny = VideoFrame.from_ndarray(np.zeros((8, 8), np.uint16), format="gray10le")
    with pytest.raises(VideoError, match="does not take pictures of 8x8 in gray10le"):
        code_video([tiny], x265(), 30, "gray10le")


# --- the clip at its own size -----------------------------------------------------------------


def clip_of(path: Path, pixel_format: str, *, full: bool, size: tuple[int, int]) -> Path:
    """A losslessly coded clip with colour tags."""
    with av.open(path, "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        stream.codec_context.color_range = 2 if full else 1
        for picture in smooth(FRAMES, size[1], size[0]):
            frame = VideoFrame.from_ndarray(picture // 2 + 60, format="rgb24").reformat(
                format=pixel_format, dst_color_range=2 if full else 1
            )
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def source_codecs() -> Iterator[StudyCodec]:
    for name in ("source-x264", "source-x265", "source-svtav1"):
        yield from ANCHORS[name]


@pytest.mark.slow
@pytest.mark.video
@pytest.mark.weights
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("codec", list(source_codecs()), ids=named)
def test_range_survives(codec: StudyCodec, full: bool, pixel_format: str, tmp_path: Path) -> None:
    needs(codec.name)
    path = clip_of(tmp_path / "clip.mkv", pixel_format, full=full, size=(272, 256))
    scene = Scene.load(path, model="resnet18", weights="random:0", split="", frames=FRAMES)
    images = codec.code(scene, 8).images
    assert abs((images - scene.rgb).mean()) < 0.5
    assert np.abs(images - scene.rgb).mean() < 4


@pytest.mark.video
@pytest.mark.weights
def test_odd_clips_are_refused_with_a_reason(tmp_path: Path) -> None:
    path = clip_of(tmp_path / "odd.mkv", "yuv444p", full=False, size=(271, 257))
    scene = Scene.load(path, model="resnet18", weights="random:0", split="", frames=1)
    for codec in source_codecs():
        with pytest.raises(AnchorUnavailableError, match="271x257"):
            codec.code(scene, 30)
