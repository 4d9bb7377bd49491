"""Scenes of networks of one's own: the task says what is lost; pixels pass the whole network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_detector import write_detector

from codec.models.preprocessing import normalise, normalise_float
from tools.contenders.anchors import ANCHORS
from tools.contenders.codecs import LatentMotionCodec
from tools.contenders.scene import Coded, Scene
from tools.contenders.unavailable import AnchorUnavailableError

pytestmark = pytest.mark.video

CLIP = Path(__file__).resolve().parent.parent / "bitstreams" / "clip" / "car_24.mp4"
FRAMES = 3


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return write_detector(tmp_path_factory.mktemp("detector"))


def load(files: tuple[Path, Path, Path], split: str = "relu", task: str | None = None) -> Scene:
    network, preprocessing, description = files
    return Scene.load(
        CLIP,
        model=str(network),
        weights="default",
        split=split,
        frames=FRAMES,
        preprocessing_file=preprocessing,
        task_named=task or str(description),
    )


@pytest.mark.parametrize("split", ["", "relu"])
def test_what_is_not_coded_loses_nothing(files: tuple[Path, Path, Path], split: str) -> None:
    scene = load(files, split)
    judged = scene.judge(Coded(1, images=scene.rgb.astype(np.float32)))
    figures = judged.figures()
    expected = ("score_error", "distortion", "ap", "ap50", "found", "found_uncoded")
    assert set(figures) == {*expected, "output_error", "nrmse"}
    assert figures["score_error"] == pytest.approx(0, abs=1e-9)
    assert figures["output_error"] == pytest.approx(0, abs=1e-9)
    assert figures["ap"] == 1
    assert figures["nrmse"] is None, "pixels have no features"
    assert judged.per_frame() == {"distortion": [0.0] * FRAMES}


def test_the_reference_is_what_the_whole_network_says(files: tuple[Path, Path, Path]) -> None:
    scene = load(files)
    with torch.no_grad():
        scores, boxes = scene.network(normalise(scene.rgb[1:2], scene.preprocessing))
    assert torch.allclose(scene.reference[1][0], scores, atol=1e-5)
    assert torch.allclose(scene.reference[1][1], boxes, atol=1e-4)


def test_score_error_is_the_sum_over_a_frame_and_the_mean_over_frames(
    files: tuple[Path, Path, Path],
) -> None:
    scene = load(files)
    damaged = scene.features[0].copy()
    damaged[1] = damaged[1, :, ::-1]
    judged = scene.judge(Coded(1, features=(damaged,)))
    with torch.no_grad():
        found = scene.halves.cloud([torch.from_numpy(damaged[1:2])])
    squared = float((found[0] - scene.reference[1][0]).double().square().sum())
    assert judged.figures()["score_error"] == pytest.approx(squared / FRAMES, rel=1e-6)
    lost = judged.per_frame()["distortion"]
    assert lost[0] == lost[2] == 0 < lost[1]


def test_channels_in_another_order_are_so_for_decoded_pixels_too(
    files: tuple[Path, Path, Path],
) -> None:
    scene = load(files)
    assert scene.preprocessing.bgr
    expected = normalise(scene.rgb, scene.preprocessing)
    assert normalise_float(scene.rgb.astype(np.float32), scene.preprocessing).equal(expected)


def test_a_network_of_which_nothing_is_said(files: tuple[Path, Path, Path]) -> None:
    scene = load(files, task="anything")
    judged = scene.judge(Coded(1, features=(scene.features[0] * np.float32(0.9),)))
    assert judged.figures()["output_error"] > 0
    assert list(judged.per_frame()) == ["output_error"]


def test_our_codec_writes_the_stream_of_lmc_encode(files: tuple[Path, Path, Path]) -> None:
    """With preprocessing and task in its header, and the profile that it measured."""
    scene = load(files)
    coded = LatentMotionCodec("lmc", (30.0,)).code(scene, 30)
    assert coded.parameters["bytes_of_profile_carried"] > 0
    assert 0 < scene.judge(coded).figures()["score_error"] < 1


def test_an_anchor_that_sends_classes_refuses_another_task(
    files: tuple[Path, Path, Path],
) -> None:
    with pytest.raises(AnchorUnavailableError, match="another than classification"):
        ANCHORS["labels"][0].code(load(files, ""), 1.0)
