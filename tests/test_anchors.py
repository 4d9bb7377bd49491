"""Anchors: tiles and colours go there and back, x265 keeps what it is given, runs resume."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import av
import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from codec.submodels import default_preprocessing, normalise
from tools import anchors
from tools.anchors import (
    CHROMA_MIDDLE,
    COLUMNS,
    PIXEL_VARIANTS,
    code_nncodec,
    code_pixels,
    code_tiles,
    code_x265,
    double,
    from_pictures,
    halve,
    main,
    normalise_float,
    rgb_to_ycbcr,
    tile,
    tile_layout,
    to_pictures,
    untile,
    ycbcr_to_rgb,
)

needs_x265 = pytest.mark.skipif(
    "libx265" not in av.codecs_available, reason="this build of FFmpeg has no libx265"
)


def smooth(frames: int, height: int, width: int) -> np.ndarray:
    """RGB frames of a moving gradient."""
    t, y, x = np.meshgrid(np.arange(frames), np.arange(height), np.arange(width), indexing="ij")
    planes = [2 * x + t, 2 * y + 3 * t, x + y]
    return np.stack([plane % 256 for plane in planes], axis=-1).astype(np.uint8)


# --- tiles ------------------------------------------------------------------------------------


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


@needs_x265
@pytest.mark.video
def test_tiles_at_fine_quality_are_near_the_features() -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(3, 12, 16, 16)).astype(np.float32)
    fine = code_tiles(features, "default", 0)
    coarse = code_tiles(features, "plain", 40)
    assert fine.decoded.shape == features.shape
    assert fine.decoded.dtype == np.float32
    assert np.abs(fine.decoded - features).max() < 0.1
    assert coarse.size < fine.size / 4
    assert np.abs(coarse.decoded - features).max() < np.ptp(features)


@needs_x265
@pytest.mark.video
def test_constant_features_survive() -> None:
    features = np.full((2, 4, 32, 32), -3.5, np.float32)
    assert np.array_equal(code_tiles(features, "default", 30).decoded, features)


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
    ("pixel_format", "bound"), [("gbrp", 0), ("yuv444p", 1.5), ("yuv420p", 4.5)]
)
def test_pictures_go_back(pixel_format: str, bound: float) -> None:
    """GBR exactly; 4:4:4 up to one rounding; 4:2:0 up to that and the gradient's chroma."""
    rgb = smooth(2, 32, 48)
    pictures = to_pictures(rgb, pixel_format)
    frame = av.VideoFrame.from_ndarray(pictures[0], format=pixel_format)
    assert (frame.width, frame.height) == (48, 32)
    error = np.abs(from_pictures(pictures, pixel_format) - rgb)
    assert error.max() <= bound


def test_grey_has_no_chroma() -> None:
    grey = np.full((1, 4, 4, 3), 77, np.uint8)
    picture = to_pictures(grey, "yuv420p")[0]
    assert set(picture[:4].ravel()) == {77}
    assert set(picture[4:].ravel()) == {CHROMA_MIDDLE}


def test_float_frames_are_normalised_like_integers() -> None:
    rgb = smooth(2, 8, 8)
    for model in ("efficientnet_lite0", "resnet34"):
        preprocessing = default_preprocessing(model, native=False)
        expected = normalise(rgb, preprocessing)
        assert normalise_float(rgb.astype(np.float32), preprocessing).equal(expected)


@needs_x265
@pytest.mark.video
@pytest.mark.parametrize("variant", PIXEL_VARIANTS)
def test_pixels_through_x265(variant: str) -> None:
    rgb = smooth(6, 64, 96)
    coded = code_pixels(rgb, variant, 6)
    assert coded.decoded.shape == rgb.shape
    assert np.abs(coded.decoded - rgb)[:, 4:-4, 4:-4].mean() < 3


@needs_x265
@pytest.mark.video
def test_the_stream_holds_nothing_but_video() -> None:
    """Neither the encoder's banner nor a second set of parameter sets: a still costs next to
    nothing."""
    still = [np.full((64, 64), 512, np.uint16)] * 12
    assert code_x265(still, "gray10le", crf=30, parameters="bframes=0").size < 400


# --- NNCodec ----------------------------------------------------------------------------------


def test_without_nncodec_the_message_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncodec", None)
    monkeypatch.delitem(sys.modules, "nncodec.tensor", raising=False)
    with pytest.raises(click.ClickException, match="needs the package of that name"):
        code_nncodec(np.zeros((1, 2, 4, 4), np.float32), 0)


@pytest.mark.filterwarnings("ignore")
def test_nncodec_halves_its_error_with_every_four_qp() -> None:
    pytest.importorskip("nncodec.tensor", reason="the package nncodec is optional")
    features = np.random.default_rng(4).normal(0, 8, (2, 6, 14, 14)).astype(np.float32)
    coarse, fine = code_nncodec(features, 8), code_nncodec(features, 0)
    assert fine.decoded.shape == features.shape
    assert coarse.size < fine.size
    ratio = np.std(coarse.decoded - features) / np.std(fine.decoded - features)
    assert 2.5 < ratio < 5


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mkv"
    with av.open(path, "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "bgr0"
        for picture in smooth(3, 256, 256):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="bgr0")
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def run(clip: Path, output: Path, *options: str) -> Result:
    return CliRunner().invoke(main, [str(clip), "-o", str(output), "--frames", "2", *options])


def rows_of(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@needs_x265
@pytest.mark.video
@pytest.mark.weights
def test_command_resumes(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(anchors.POINTS, "tiles", (44, 20))
    monkeypatch.setitem(anchors.POINTS, "pixels", (44,))
    output = tmp_path / "anchors.csv"
    options = ("--kl-floor", "0", "--variant", "plain", "--variant", "gbrp")
    assert run(clip, output, "--anchor", "tiles", *options[:4]).exit_code == 0
    first = output.read_text()
    result = run(clip, output, "--anchor", "tiles", "--anchor", "pixels", *options)
    assert result.exit_code == 0, result.output
    assert output.read_text().startswith(first)
    rows = rows_of(output)
    assert tuple(rows[0]) == COLUMNS
    assert [(row["anchor"], row["split"], row["variant"], row["point"]) for row in rows] == [
        ("tiles", "blocks.10", "plain", "44"),
        ("tiles", "blocks.10", "plain", "20"),
        ("pixels", "", "gbrp", "44"),
    ]
    for row in rows:
        assert row["frames"] == "2"
        assert float(row["bytes_per_frame"]) == int(row["bytes"]) / 2
    coarse, fine, pixels = rows
    assert int(coarse["bytes"]) < int(fine["bytes"])
    assert float(coarse["kl"]) > float(fine["kl"]) > 0
    assert float(coarse["nrmse"]) > float(fine["nrmse"])
    assert not pixels["nrmse"]


@needs_x265
@pytest.mark.video
@pytest.mark.weights
def test_points_stop_below_the_floor(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(anchors.POINTS, "tiles", (44, 20, 10))
    output = tmp_path / "anchors.csv"
    options = ("--anchor", "tiles", "--variant", "plain", "--kl-floor", "1e9")
    assert run(clip, output, *options).exit_code == 0
    assert [row["point"] for row in rows_of(output)] == ["44"]
    assert run(clip, output, *options).exit_code == 0
    assert len(rows_of(output)) == 1


def test_what_the_command_refuses(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.csv"
    foreign.write_text("clip,kl\na,1\n")
    result = run(foreign, foreign, "--anchor", "tiles")
    assert result.exit_code == 1
    assert "has the columns clip, kl; expected clip, model" in result.output
    result = run(foreign, tmp_path / "new.csv", "--anchor", "tiles", "--variant", "gbrp")
    assert result.exit_code == 2
    assert "expected one of default, plain" in result.output
