"""Frames made up for those that did not arrive: by motion, better than the last one once more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("aioquic")

from live_ends import video_options, write_inputs
from videos import moving, write_video

from codec.encoding.config import EncoderConfig
from codec.normative.decoder import DecodedFrame, Decoder
from codec.pipeline.concealment import Concealer
from codec.pipeline.encoding import VideoEncoder

pytestmark = [pytest.mark.video]

FRAMES = 8


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> tuple[Decoder, list[DecodedFrame]]:
    """Decoded frames of a clip that moves by half a sample of the tensor."""
    folder: Path = write_inputs(tmp_path_factory.mktemp("concealment"))
    write_video(folder / "fast.mkv", moving(FRAMES, (4, -3), 64, 64))
    options = replace(video_options(folder), config=EncoderConfig(qp=4, scene_cut=False))
    encoder = VideoEncoder(folder / "fast.mkv", options)
    decoder = Decoder(encoder.header)
    return decoder, [decoder.decode(encoded.packet) for encoded in encoder]


def error(found: DecodedFrame, actual: DecodedFrame) -> float:
    return sum(
        float((a - b)[..., 2:-2, 2:-2].square().mean())
        for a, b in zip(found.features, actual.features, strict=True)
    )


def test_motion_beats_the_last_frame_and_nothing(frames):
    decoder, decoded = frames
    moved, repeated, nothing = [], [], []
    for last in range(2, FRAMES - 1):
        assert decoded[last].vectors is not None
        concealer = Concealer(decoder.header, decoder.profile)
        concealer.note(decoded[last])
        made = concealer.conceal(decoded[last + 1].pts)
        assert made is not None
        assert made.pts == decoded[last + 1].pts
        moved.append(error(made, decoded[last + 1]))
        repeated.append(error(decoded[last], decoded[last + 1]))
        zeros = tuple(torch.zeros_like(each) for each in made.features)
        nothing.append(error(replace(made, features=zeros), decoded[last + 1]))
    assert np.mean(moved) < 0.5 * np.mean(repeated) < np.mean(nothing)


def test_a_second_missing_frame_moves_on(frames):
    decoder, decoded = frames
    concealer = Concealer(decoder.header, decoder.profile)
    concealer.note(decoded[4])
    concealer.conceal(5)
    made = concealer.conceal(6)
    assert made is not None
    assert error(made, decoded[6]) < error(decoded[4], decoded[6])


def test_vectors_over_several_frames_are_those_of_one_each(frames):
    decoder, decoded = frames
    once, twice = (Concealer(decoder.header, decoder.profile) for _ in range(2))
    vectors = decoded[3].vectors
    assert vectors is not None
    once.note(decoded[3])
    twice.note(replace(decoded[3], vectors=2 * vectors), steps=2)
    one, two = once.conceal(4), twice.conceal(4)
    assert one is not None
    assert two is not None
    assert all(torch.equal(a, b) for a, b in zip(one.latents, two.latents, strict=True))


def test_nothing_before_the_first_frame_and_no_motion_behind_a_key_frame(frames):
    decoder, decoded = frames
    concealer = Concealer(decoder.header, decoder.profile)
    assert concealer.conceal(0) is None
    concealer.note(decoded[0])
    made = concealer.conceal(1)
    assert made is not None
    assert all(torch.equal(a, b) for a, b in zip(made.features, decoded[0].features, strict=True))
