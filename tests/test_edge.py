"""A video opened and its network cut: what files and the live link both encode."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_detector import write_detector
from videos import moving, write_video

from codec.encoding.config import EncoderConfig
from codec.errors import ModelError, VideoError
from codec.pipeline.edge import EdgeSource
from codec.pipeline.encoding import VideoEncoder
from codec.pipeline.options import VideoOptions

pytestmark = [pytest.mark.video]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> VideoOptions:
    """Of a small detector; its folder has clip.mkv."""
    folder = tmp_path_factory.mktemp("edge")
    model, preprocessing, task = write_detector(folder)
    write_video(folder / "clip.mkv", moving(10, (1, 1), 64, 64))
    return VideoOptions(model=str(model), split="relu", preprocessing=preprocessing, task=str(task))


def clip(options: VideoOptions) -> Path:
    return Path(options.model).with_name("clip.mkv")


def test_every_frame_once_and_its_features(options):
    source = EdgeSource(clip(options), options)
    frames = list(source.frames)
    assert [frame.pts for frame in frames] == sorted({frame.pts for frame in frames})
    assert len(frames) == 10
    with torch.no_grad():
        features = source.features(frames[0])
    assert [tuple(each.shape) for each in features] == [spec.shape for spec in source.split.tensors]
    assert source.seconds["video"] > 0
    source.close()


def test_the_header_is_that_of_a_file_but_for_the_references(options):
    of_a_file = VideoEncoder(clip(options), options).header
    source = EdgeSource(clip(options), options, references=4)
    assert source.header == replace(of_a_file, references=4)
    frame = next(iter(source.frames))
    encoder = source.encoder(EncoderConfig(qp=20))
    with torch.no_grad():
        encoded = encoder.encode(source.features(frame), pts=frame.pts)
    assert encoded.packet.key
    assert np.isfinite(encoded.features[0].numpy()).all()


def test_what_does_not_fit_is_told(options, tmp_path):
    with pytest.raises(VideoError, match="no frame in the range"):
        EdgeSource(clip(options), replace(options, frames=(0, 0)))
    with pytest.raises(ModelError, match="efforts from 5 on"):
        EdgeSource(clip(options), replace(options, config=EncoderConfig(effort=5)))
    with pytest.raises(VideoError, match="no such file"):
        EdgeSource(tmp_path / "none.mkv", options)
