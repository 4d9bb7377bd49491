"""Both ends through a file: the same tensors, figures that agree, seeking, and constant memory."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from codec.encoding.config import EncoderConfig
from codec.errors import CorruptBitstreamError, ModelError, VideoError
from codec.files.streams import StreamReader, StreamWriter
from codec.pipeline.decoding import FeatureReference, TaskOutput, decode_frames, model_of
from codec.pipeline.encoding import VideoEncoder
from codec.pipeline.options import MOTION_SOURCES, VideoOptions

pytestmark = [pytest.mark.video, pytest.mark.weights]

CLIP = Path(__file__).parents[1] / "bitstreams" / "clip" / "big_buck_bunny_64.mp4"
FRAMES = 5
OPTIONS = VideoOptions(
    measure=True,
    split="blocks.4",
    frames=(0, FRAMES),
    config=EncoderConfig(qp=28, keyint=3, scene_cut=False),
)


def write_noise(path: Path, width: int, height: int, frames: int, codec: str = "ffv1") -> None:
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    with av.open(path, "w") as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj444p" if codec == "mjpeg" else "bgr0"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, number, axis=1), "rgb24")
            output.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        output.mux(stream.encode())


def encoded(source: Path, options: VideoOptions) -> tuple[bytes, list[Any], dict[str, Any]]:
    """The stream, the encoder's frames and its report."""
    encoder = VideoEncoder(source, options)
    file = io.BytesIO()
    writer = StreamWriter(file, encoder.header)
    frames = []
    for frame in encoder:
        writer.write(frame.packet)
        frames.append(frame)
    writer.close()
    return file.getvalue(), frames, encoder.report(writer.bytes_written, writer.header_bytes)


@pytest.fixture(scope="module")
def clip() -> tuple[bytes, list[Any], dict[str, Any]]:
    torch.set_num_threads(1)
    return encoded(CLIP, OPTIONS)


def test_batches_change_next_to_nothing(clip):
    _, frames, report = clip
    stream, batched, found = encoded(CLIP, replace(OPTIONS, batch=2))  # of five: two, two and one
    check_round_trip(stream, batched, found)
    assert [frame.packet.pts for frame in batched] == [frame.packet.pts for frame in frames]
    assert found["nrmse"] == pytest.approx(report["nrmse"], rel=1e-3)


@pytest.mark.parametrize("batch", [1, 4])
def test_what_was_read_before_an_error_is_encoded(batch):
    encoder = VideoEncoder(CLIP, replace(OPTIONS, batch=batch))
    frames = encoder._source.frames

    def broken():
        yield from itertools.islice(frames, 3)
        raise VideoError("no more")

    encoder._source.frames = broken()
    packets = iter(encoder)
    assert [next(packets).packet.key for _ in range(3)] == [True, False, False]
    with pytest.raises(VideoError, match="no more"):
        next(packets)


def check_round_trip(stream: bytes, frames: list[Any], report: dict[str, Any]) -> None:
    decoded = list(decode_frames(StreamReader(io.BytesIO(stream))))
    assert [number for number, _ in decoded] == list(range(len(frames)))
    for (_, found), expected in zip(decoded, frames, strict=True):
        assert found.pts == expected.packet.pts
        for ours, theirs in zip(found.features, expected.features, strict=True):
            assert torch.equal(ours, theirs)
    assert [frame.md5() for _, frame in decoded] == report["frame_md5"]
    assert report["frames"] == len(frames)
    assert report["bytes"] == len(stream)


@pytest.mark.parametrize("motion", MOTION_SOURCES)
def test_decoder_gives_what_the_encoder_reconstructed(motion, clip):
    coded = clip if motion == "search" else encoded(CLIP, replace(OPTIONS, motion=motion))
    check_round_trip(*coded)
    assert coded[2]["motion"] == motion
    if motion in {"zero", "none"}:
        assert coded[2]["bytes_motion"] == 0


def test_motion_is_found_and_pays():
    moving = replace(OPTIONS, frames=(40, 44))
    found, still = (
        encoded(CLIP, replace(moving, motion=motion))[2] for motion in ("search", "zero")
    )
    assert found["bytes_motion"] > 0 == still["bytes_motion"]
    assert found["bytes"] < still["bytes"]


def test_report_adds_up(clip):
    _, frames, report = clip
    parts = ("header", "framing", "motion", "modes", "offsets", "levels")
    assert sum(report[f"bytes_{part}"] for part in parts) == pytest.approx(report["bytes"])
    assert report["key_frames"] == 2
    assert report["bytes_per_frame"] == report["bytes"] / FRAMES
    assert report["kbit_per_s"] == pytest.approx(report["bytes_per_frame"] * 8 * 25 / 1000)
    elements = sum(tensor.numel() for tensor in frames[0].features)
    assert report["bits_per_element"] == pytest.approx(report["bytes"] * 8 / FRAMES / elements)
    assert not any(isinstance(value, dict) for value in report.values())


def test_shorter_at_higher_qp(clip):
    coarse = encoded(CLIP, replace(OPTIONS, config=replace(OPTIONS.config, qp=40)))
    check_round_trip(*coarse)
    assert coarse[2]["bytes"] < clip[2]["bytes"] / 2
    assert coarse[2]["nrmse"] > clip[2]["nrmse"]


def test_reference_and_task(clip):
    stream, _, report = clip
    reader = StreamReader(io.BytesIO(stream))
    split = model_of(reader.header, weights=None, any_weights=False, device="cpu")
    task = TaskOutput(reader.header, split)
    compare = FeatureReference(str(CLIP), reader.header, split, OPTIONS.frames, "cpu")
    for number, frame in decode_frames(reader):
        compare.update(frame)
        (found,) = task.rows(number, frame, task.result(task.outputs(frame.features)))
        assert found["frame"] == number
        assert found["time"] == pytest.approx(number / 25)
        chances = [best["probability"] for best in found["top5"]]
        assert len(chances) == 5
        assert chances == sorted(chances, reverse=True)
    compare.close()
    assert compare.nrmse() == report["nrmse"]


def test_reference_of_another_place_or_size_is_refused(clip, tmp_path):
    reader = StreamReader(io.BytesIO(clip[0]))
    split = model_of(reader.header, weights=None, any_weights=False, device="cpu")
    _, frame = next(decode_frames(reader))
    elsewhere = FeatureReference(str(CLIP), reader.header, split, (2, None), "cpu")
    with pytest.raises(VideoError, match="--reference-frames"):
        elsewhere.update(frame)
    elsewhere.close()
    small = tmp_path / "small.mkv"
    write_noise(small, 64, 48, 2)
    steps = reader.header.preprocessing
    whole = replace(reader.header, preprocessing=replace(steps, crop=0, pad_multiple=1))
    with pytest.raises(VideoError, match="the stream was made from 224x224"):
        FeatureReference(str(small), whole, split, None, "cpu")


def test_contradictory_preprocessing_blames_the_stream(clip):
    reader = StreamReader(io.BytesIO(clip[0]))
    steps = replace(reader.header.preprocessing, short_side=100)
    split = model_of(reader.header, weights=None, any_weights=False, device="cpu")
    with pytest.raises(CorruptBitstreamError, match="short_side=100, crop=224"):
        FeatureReference(str(CLIP), replace(reader.header, preprocessing=steps), split, None, "cpu")


def test_a_reference_that_ends_early_is_refused(clip):
    reader = StreamReader(io.BytesIO(clip[0]))
    split = model_of(reader.header, weights=None, any_weights=False, device="cpu")
    compare = FeatureReference(str(CLIP), reader.header, split, (0, 1), "cpu")
    frames = [frame for _, frame in decode_frames(reader)]
    compare.update(frames[0])
    with pytest.raises(VideoError, match="ends before the stream does"):
        compare.update(frames[1])
    compare.close()


@pytest.mark.parametrize("frames", [(0, None), (1, None), (2, 4), (3, 4), (4, 90), (5, None)])
def test_a_range_is_a_slice_of_the_whole(clip, frames):
    part = decode_frames(StreamReader(io.BytesIO(clip[0])), frames=frames)
    md5 = dict(enumerate(clip[2]["frame_md5"]))
    expected = {number: md5[number] for number in list(md5)[slice(*frames)]}
    assert {number: frame.md5() for number, frame in part} == expected


def test_odd_size_in_native(tmp_path):
    path = tmp_path / "odd.mkv"
    write_noise(path, 67, 45, 3)
    coded = encoded(path, replace(OPTIONS, native=True, frames=None))
    check_round_trip(*coded)
    header = StreamReader(io.BytesIO(coded[0])).header
    assert header.input_width >= 67
    assert header.input_height >= 45


@pytest.mark.parametrize("frames", [3, 12])
def test_missing_motion_vectors_are_told(tmp_path, frames):
    path = tmp_path / "intra.avi"
    write_noise(path, 64, 64, frames, "mjpeg")
    with pytest.raises(VideoError, match="mjpeg stream gives no motion vectors"):
        VideoEncoder(path, replace(OPTIONS, frames=None, motion="bitstream", native=True))


def test_a_range_behind_the_end_is_told():
    with pytest.raises(VideoError, match="64 frames"):
        VideoEncoder(CLIP, replace(OPTIONS, frames=(64, None)))


def test_features_that_are_not_finite_are_told(monkeypatch):
    encoder = VideoEncoder(CLIP, replace(OPTIONS, frames=(0, 2)))
    edge = type(encoder.split.edge)
    monkeypatch.setattr(edge, "__call__", lambda *_: [torch.full((1, 40, 28, 28), torch.nan)])
    with pytest.raises(ModelError, match="not finite"):
        next(iter(encoder))


def test_streams_without_a_model_have_no_task(clip):
    header = replace(StreamReader(io.BytesIO(clip[0])).header, model="")
    with pytest.raises(ModelError, match="names no model"):
        model_of(header, weights=None, any_weights=False, device="cpu")


def test_streams_made_with_a_weight_file_ask_for_it(clip):
    header = replace(StreamReader(io.BytesIO(clip[0])).header, weights="mine.safetensors")
    with pytest.raises(ModelError, match=r"'mine.safetensors'; pass it with --weights"):
        model_of(header, weights=None, any_weights=False, device="cpu")


@pytest.mark.slow
def test_several_tensors_cross_the_cut_of_a_dense_block():
    options = replace(
        OPTIONS,
        model="densenet121",
        weights="random:0",
        split="features.denseblock2.denselayer2",
        frames=(0, 3),
    )
    stream, frames, report = encoded(CLIP, options)
    check_round_trip(stream, frames, report)
    assert len(frames[0].features) == 3
    assert 0 < report["bytes_header_profile"] < report["bytes_header"]
    assert sum(key.startswith("nrmse_") for key in report) == 3


MEMORY = """
import sys, json
from codec.files.streams import StreamReader, StreamWriter
from codec.encoding.config import EncoderConfig
from codec.pipeline.decoding import decode_frames
from codec.pipeline.encoding import VideoEncoder
from codec.pipeline.options import VideoOptions
from codec.files.tensors import TensorFile
import torch

torch.set_num_threads(1)

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

seen = {}
what, video, stream, tensors = sys.argv[1:]
if what == "encode":
    encoder = VideoEncoder(video, VideoOptions(split="blocks.4", native=True))
    with open(stream, "wb") as file:
        writer = StreamWriter(file, encoder.header)
        for number, frame in enumerate(encoder, 1):
            writer.write(frame.packet)
            seen[number] = resident()
        writer.close()
else:
    with open(stream, "rb") as file, TensorFile(tensors, ["t"]) as output:
        for number, frame in decode_frames(StreamReader(file)):
            output.append([tensor.numpy() for tensor in frame.features], frame.pts)
            seen[number + 1] = resident()
        output.finish()
        seen["finished"] = resident()
print(json.dumps(seen))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_is_constant(tmp_path):
    video = tmp_path / "long.mkv"
    write_noise(video, 64, 64, 600)
    for what in ("encode", "decode"):
        arguments = [what, video, tmp_path / "x.lmc", tmp_path / "x.npz"]
        finished = subprocess.run(
            [sys.executable, "-c", MEMORY, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        seen = json.loads(finished.stdout)
        last = max(seen.values()) if what == "decode" else seen["600"]
        assert last - seen["200"] < 30 << 20, what
    with np.load(tmp_path / "x.npz") as loaded:
        assert loaded["t"].shape[0] == 600


@pytest.mark.slow
def test_the_cloud_submodel_at_the_encoder_buys_fidelity():
    """Effort 7 lowers the divergence much, at about the same rate, and decodes like any stream."""
    torch.set_num_threads(1)
    reports = []
    for effort in (4, 7):
        options = VideoOptions(
            split="blocks.10",
            frames=(0, 4),
            evaluate=True,
            config=EncoderConfig(qp=34, effort=effort),
        )
        stream, frames, report = encoded(CLIP, options)
        check_round_trip(stream, frames, report)
        reports.append(report)
    plain, refined = reports
    assert refined["kl"] < 0.7 * plain["kl"]
    assert refined["bytes"] < 1.15 * plain["bytes"]
