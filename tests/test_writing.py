"""Clips written in one line or frame by frame: what comes back, and what is refused in one line."""

from __future__ import annotations

import io
import re
from fractions import Fraction

import numpy as np
import pytest
import torch

import codec
from codec.errors import FeatureError, LimitExceededError, UnsupportedBitstreamError
from codec.files.streams import StreamReader
from codec.format.profile import profile_of
from codec.pipeline import writing

FRAMES = 6
SIZE = (96, 128)


def scene(seed: int = 0) -> np.ndarray:
    """Pictures (T, H, W, 3) that move by 8 pixels to the right a frame."""
    noise = torch.rand(3, 110, 260, generator=torch.Generator().manual_seed(seed))
    still = torch.nn.functional.avg_pool2d(noise, 9, 1, 4).sub(0.4).mul(900).clamp(0, 255)
    pictures = [still[:, : SIZE[0], 100 - 8 * t : 100 - 8 * t + SIZE[1]] for t in range(FRAMES)]
    return torch.stack(pictures).byte().permute(0, 2, 3, 1).numpy()


def tensor_of(pictures: np.ndarray, stride: int = 8) -> torch.Tensor:
    """Features that move with the pictures: (T, 3, H / stride, W / stride)."""
    values = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    return torch.nn.functional.avg_pool2d(values, stride) / 60 - 2


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return scene()


@pytest.fixture(scope="module")
def features(pictures) -> torch.Tensor:
    return tensor_of(pictures)


def written(*arguments, **options) -> bytes:
    file = io.BytesIO()
    result = codec.encode(*arguments, file, **options)
    assert result.bytes == len(file.getvalue())
    return file.getvalue()


def opened(content: bytes) -> codec.Clip:
    return codec.open(io.BytesIO(content))


# --- what comes back ---


def test_one_line_writes_what_one_line_reads(features, tmp_path):
    path = tmp_path / "clip.lmc"
    result = codec.encode(features, path, qp=10, stride=8)
    clip = codec.open(path)
    assert (result.frames, result.elements) == (FRAMES, 3 * 12 * 16)
    assert result.key_frames == clip[:].key.sum()
    assert result.bytes == path.stat().st_size
    assert result.bits_per_element == 8 * result.bytes / (FRAMES * 3 * 12 * 16)
    assert len(clip) == FRAMES
    assert clip.tensors == (codec.TensorSpec("features", 3, 12, 16, 8, 8),)
    assert (clip.header.input_height, clip.header.input_width) == SIZE
    assert (clip.fps, clip[:].pts.tolist()) == (25.0, list(range(FRAMES)))
    error = (clip[:].features - features).square().mean().sqrt()
    assert error < 0.1 * features.std()


@pytest.mark.parametrize(
    "kind",
    ["numpy", "float64", "float16", "read only", "generator", "list", "reversed", "big-endian"],
)
def test_what_holds_the_features_does_not_matter(features, kind):
    exact = features.half().float()  # in all these types
    given = {
        "numpy": exact.numpy,
        "float64": exact.double,
        "float16": lambda: exact.half().numpy(),
        "read only": lambda: np.broadcast_to(exact.numpy(), exact.shape),
        "generator": lambda: (frame for frame in exact),
        "list": lambda: list(exact.numpy()),
        "reversed": lambda: exact.flip(3).numpy()[..., ::-1],
        "big-endian": lambda: exact.numpy().astype(">f4"),
    }[kind]()
    assert written(given, stride=8) == written(exact, stride=8)


def test_all_of_a_sequence_is_measured(features):
    frames = list(features) + [frame * 9 for frame in features]
    assert written(tuple(frames), stride=8) == written(frames, stride=8)
    assert written(tuple(frames), stride=8) != written(iter(frames), stride=8)


def test_numbers_of_numpy_are_numbers(features):
    content = written(features, stride=np.array((8, 8)), fps=np.float32(29.97), qp=np.int64(20))
    assert content == written(features, stride=8, fps=29.97, qp=20)
    assert written(features, stride=np.int64(8), fps=np.int32(25)) == written(features, stride=8)


def test_a_region_of_interest_is_coded_finer(features):
    maps = np.ones(SIZE)
    maps[:32, :64] = 64
    region = np.s_[:, :, :4, :8]
    plain, finer = (
        written(features, stride=8, qp=36),
        written(features, stride=8, qp=36, importance=maps),
    )

    def error(content: bytes, where: object) -> float:
        return float((opened(content)[:].features - features)[where].square().mean())

    assert error(finer, region) < error(plain, region) / 4
    assert error(finer, np.s_[:, :, :, 8:]) < 1.2 * error(plain, np.s_[:, :, :, 8:])
    each = np.broadcast_to(maps, (FRAMES, *SIZE))
    assert written(features, stride=8, qp=36, importance=each) == finer
    tensors = (torch.tensor(one) for one in each)
    assert written(features, stride=8, qp=36, importance=tensors) == finer
    late = np.ones((FRAMES, *SIZE))
    late[-1] = maps
    assert written(features, stride=8, qp=36, importance=late) not in (plain, finer)


@pytest.mark.parametrize(
    ("importance", "error", "message"),
    [
        (
            np.ones((12, 16)),
            ValueError,
            r"shape \(12, 16\), expected \(96, 128\): the pixels of the",
        ),
        (
            np.ones(5),
            ValueError,
            r"importance of shape \(5,\), expected \(H, W\), the input's pixels",
        ),
        (
            np.ones((3, 96, 128)),
            ValueError,
            "different numbers of frames: features 6, importance 3",
        ),
        (np.ones(SIZE, bool), ValueError, r"mask of bool, .*; make it numpy.where\(mask, 16, 1\)"),
        (np.zeros(SIZE), ValueError, "importance holds 0.0, expected positive numbers"),
        (torch.full(SIZE, torch.nan), ValueError, "importance holds nan"),
        (
            {"features": np.ones(SIZE)},
            TypeError,
            r"a dict, expected an array \(H, W\) of the input's",
        ),
        ("high", TypeError, "importance is a str, expected an array"),
        (2, TypeError, "importance is a int, expected an array"),
        ([{}] * FRAMES, TypeError, r"importance is a dict, expected an array of shape \(96, 128\)"),
    ],
)
def test_importance_that_is_no_map(features, tmp_path, importance, error, message):
    with pytest.raises(error, match=message) as refused:
        codec.encode(features, tmp_path / "x.lmc", stride=8, importance=importance)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_gradients_are_left_behind(features):
    asking = features.clone().requires_grad_()
    assert written(asking, stride=8) == written(features, stride=8)


def test_several_tensors_have_their_own_strides(features, pictures):
    coarse = tensor_of(pictures, 16)
    content = written(
        {"fine": features, "coarse": coarse},
        stride={"fine": 8, "coarse": (16, 16)},
        offset={"fine": (3.5, 3.5), "coarse": 7.5},
        motion=pictures,
        qp=10,
    )
    clip = opened(content)
    assert clip.tensors == (
        codec.TensorSpec("fine", 3, 12, 16, 8, 8, 7, 7),
        codec.TensorSpec("coarse", 3, 6, 8, 16, 16, 15, 15),
    )
    batch = clip[:]
    for name, actual in (("fine", features), ("coarse", coarse)):
        assert (batch.features[name] - actual).square().mean().sqrt() < 0.1 * actual.std()
    frames = [{"coarse": coarse[t], "fine": features[t]} for t in range(FRAMES)]
    assert written(frames, header=clip.header, motion=pictures, qp=10) == content


# --- motion ---


def test_motion_is_searched_in_pictures_and_comes_back_in_pixels(features, pictures):
    content = written(features, stride=8, offset=3.5, motion=pictures)
    batch = opened(content)[:]
    assert batch.key.tolist() == [True] + [False] * (FRAMES - 1)
    assert not batch.motion[0].any()
    inner = batch.motion[1:, 1:-1, 1:-1]
    np.testing.assert_allclose(np.median(inner, (0, 1, 2)), (0, -8), atol=0.5)
    assert len(content) < 0.8 * len(written(features, stride=8))
    assert content == written(features, stride=8, offset=3.5, motion=torch.from_numpy(pictures))
    assert content == written(features, stride=8, offset=3.5, motion=iter(pictures))


def test_a_field_goes_in_as_it_comes_out(features, pictures):
    once = opened(written(features, stride=8, motion=pictures, effort=3))
    twice = opened(written(features, stride=8, motion=once[:].motion, effort=3))
    assert once[:].motion.any()
    np.testing.assert_array_equal(twice[:].motion, once[:].motion)
    fields = list(once[:].motion.astype(np.float64))
    assert written(features, stride=8, motion=fields, effort=3) == written(
        features, stride=8, motion=torch.from_numpy(once[:].motion), effort=3
    )
    halved = torch.from_numpy(once[:].motion).round().bfloat16()  # exact
    assert written(features, stride=8, motion=halved) == written(
        features, stride=8, motion=halved.float()
    )
    batch = once[:]
    assert written(batch, header=once.header) == written(batch.features, header=once.header)


def test_times_and_frame_rate(features):
    clip = opened(written(features, stride=8, fps=Fraction(30000, 1001), pts=np.arange(6) * 2))
    assert clip.header.time_base == Fraction(1001, 30000)
    assert clip[:].pts.tolist() == [0, 2, 4, 6, 8, 10]
    assert opened(written(features, stride=8, fps=29.97)).fps == 29.97


def test_the_input_may_be_larger_than_the_tensor_says(features):
    header = opened(written(features, stride=8, size=(100, 130), grid=16)).header
    assert (header.input_height, header.input_width, header.field_shape) == (100, 130, (7, 9))


def test_a_profile_is_used_as_it_is(features):
    specs = (codec.TensorSpec("features", 3, 12, 16, 8, 8),)
    profile = codec.measure_profile(specs, [[frame] for frame in features], units=[1.0])
    header = opened(written(features, stride=8, profile=profile)).header
    assert header.profile_hash == profile.hash


# --- what is refused ---

GOOD = torch.rand(FRAMES, 3, 12, 16)
FIELD = np.zeros((FRAMES, 3, 4, 2), np.float32)


@pytest.mark.parametrize(
    ("features", "options", "error", "message"),
    [
        (GOOD[0], {}, FeatureError, "features have shape (3, 12, 16), expected (T, C, H, W)"),
        (GOOD[:0], {}, FeatureError, "features of no frames, expected at least one"),
        ([], {}, FeatureError, "features of no frames"),
        ({}, {}, FeatureError, "features of no frames"),
        ({"a": GOOD, "b": GOOD[:3]}, {}, FeatureError, "different numbers of frames: a 6, b 3"),
        ({"a": [1, 2]}, {}, FeatureError, "features of 'a' are a list, expected a tensor or"),
        ([GOOD], {}, FeatureError, "have shape (6, 3, 12, 16) a frame, expected (C, H, W)"),
        ([[GOOD[0]]], {}, FeatureError, "one frame is a list, expected (C, H, W) or a dict"),
        ([GOOD[0], GOOD[0, :2]], {}, FeatureError, "have shape (2, 12, 16), expected (3, 12, 16)"),
        (
            [{"a": GOOD[0]}, {"b": GOOD[0]}],
            {},
            FeatureError,
            "features named b, expected a",
        ),
        (GOOD.numpy().astype(object), {}, FeatureError, "one frame is no tensors"),
        (GOOD * torch.nan, {}, FeatureError, "are not finite: they hold NaN or infinity"),
        (GOOD.to(torch.complex64), {}, FeatureError, "expected dense real numbers"),
        (GOOD, {"stride": None}, ValueError, "what the tensors are is unknown: pass stride=16"),
        (GOOD, {"stride": 8.5}, ValueError, "stride (8.5, 8.5) of tensor 'features', expected wh"),
        (GOOD, {"stride": (8, 8, 8)}, ValueError, "expected one number or (y, x)"),
        (GOOD, {"stride": float("nan")}, ValueError, "stride (nan, nan) of tensor 'features', exp"),
        (GOOD, {"stride": float("inf")}, ValueError, "expected whole pixels"),
        (GOOD, {"stride": "ab"}, ValueError, "expected whole pixels"),
        (GOOD, {"stride": {}}, ValueError, "stride for no tensors, and none for tensor 'features'"),
        (GOOD, {"stride": {"a": 8}}, ValueError, "stride for a, and none for tensor 'features'"),
        (GOOD, {"stride": 0}, ValueError, "shape and stride must be at least 1"),
        (GOOD, {"offset": 0.3}, ValueError, "expected half pixels"),
        (GOOD, {"stride": 16, "size": SIZE}, ValueError, "12x16 samples 16 and 16 pixels apart"),
        (GOOD, {"motion": FIELD[:5]}, ValueError, "numbers of frames: features 6, motion 5"),
        (GOOD, {"motion": iter(FIELD[:5])}, ValueError, "motion of 5 frames, and more of features"),
        (iter(GOOD), {"motion": FIELD[:5]}, ValueError, "motion of 5 frames, and more of features"),
        (GOOD[:5], {"motion": iter(FIELD)}, ValueError, "features of 5 frames, and more of motion"),
        (
            GOOD,
            {"motion": FIELD[0]},
            ValueError,
            "motion of shape (3, 4, 2), expected frames (T, H",
        ),
        (
            GOOD,
            {"motion": FIELD[:, :2]},
            ValueError,
            "motion of float32 (2, 4, 2) a frame, expecte",
        ),
        (GOOD, {"motion": FIELD.astype(int)}, ValueError, "motion of int64 (3, 4, 2) a frame, exp"),
        (GOOD, {"motion": FIELD + np.nan}, ValueError, "motion field holds values that are not fi"),
        (GOOD, {"motion": np.zeros((6, 9, 9, 3))}, ValueError, "motion of float64 (9, 9, 3) a fra"),
        (
            GOOD,
            {"motion": [np.zeros((96, 128, 3), np.uint8)] * 5 + [np.zeros((9, 9, 3), np.uint8)]},
            ValueError,
            "picture of shape (9, 9)",
        ),
        (GOOD, {"pts": [1, 2]}, ValueError, "numbers of frames: features 6, pts 2"),
        (GOOD, {"pts": [0.5] * 6}, TypeError, "cannot be interpreted as an integer"),
        (GOOD, {"fps": 0}, ValueError, "fps 0, expected frames per second above 0"),
        (GOOD, {"fps": float("nan")}, ValueError, "fps nan, expected"),
        (GOOD, {"fps": 1e-9}, ValueError, "fps 1e-09, expected"),
        (GOOD, {"size": 224}, ValueError, "size 224, expected (height, width), two integers"),
        (GOOD, {"size": (96.0, 128)}, ValueError, "size (96.0, 128), expected (height, width)"),
        (GOOD, {"pts": [0, 1, 2, 2, 4, 5]}, ValueError, "pts 2 of frame 3 behind 2, expected pres"),
        (GOOD, {"split": (1, 2)}, TypeError, "split is a tuple, expected the edge of edge, cloud"),
        (GOOD, {"qp": 24.0}, TypeError, "qp 24.0 is a float, expected an int"),
        (
            GOOD,
            {"motion": np.zeros((6, 9, 9, 3), np.uint8), "size": SIZE, "effort": 0},
            ValueError,
            "motion: picture of shape (9, 9), expected (96, 128)",
        ),
        (GOOD, {"size": (9,)}, ValueError, "size (9,), expected (height, width)"),
        (None, {}, FeatureError, "features are a NoneType, expected (T, C, H, W)"),
        ("clip.npz", {}, FeatureError, "features are a str, expected (T, C, H, W)"),
        (GOOD, {"motion": "clip.mp4"}, TypeError, "motion is a str, expected frames or fields"),
        (GOOD, {"qp": 52}, ValueError, "qp 52 is outside 0 … 51"),
        (
            GOOD,
            {"quality": 2},
            TypeError,
            "unexpected keyword argument 'quality', expected one of qp, keyint, scene_cut, effort",
        ),
        (GOOD, {"grid": 2}, ValueError, "motion grid"),
    ],
)
def test_what_cannot_be_encoded_is_said_in_one_line(tmp_path, features, options, error, message):
    with pytest.raises(error, match=re.escape(message)) as raised:
        codec.encode(features, tmp_path / "clip.lmc", **{"stride": 8} | options)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_header_says_it_all(features):
    header = opened(written(features, stride=8)).header
    for option in ({"stride": 8}, {"offset": 0}, {"fps": 25}):
        with pytest.raises(ValueError, match="a header says all that"):
            written(features, header=header, **option)
    with pytest.raises(ValueError, match=f"stream was written with {header.profile_hash.hex()}"):
        written(features, header=header, profile=codec.Profile(()))
    with pytest.raises(FeatureError, match="have shape"):
        written(features[:, :2], header=header)


def test_a_profile_travels_apart(features, tmp_path):
    carried = written(features, stride=8)
    profile = profile_of(opened(carried).header)
    apart = written(features, stride=8, profile=profile, profile_apart=True)
    assert len(apart) < len(carried)
    header, _ = codec.SequenceHeader.from_bytes(apart)
    assert header.profile is None
    with pytest.raises(UnsupportedBitstreamError, match=f"{profile.hash.hex()} is not shipped"):
        opened(apart)
    expected = opened(carried)[:].features
    with codec.open(io.BytesIO(apart), profile=profile) as clip:
        assert torch.equal(clip[:].features, expected)
    frames = codec.decode_frames(StreamReader(io.BytesIO(apart)), profile=profile)
    assert torch.equal(torch.stack([frame.features[0] for _, frame in frames]), expected)
    # at once, before anything is asked for
    with pytest.raises(UnsupportedBitstreamError, match="--profile FILE"):
        codec.decode_frames(StreamReader(io.BytesIO(apart)))
    # a header that names it may come from anywhere
    assert written(features, header=header, profile=profile) == apart
    with codec.Writer(tmp_path / "x.lmc", header, profile=profile) as out:
        out.write(features[0])
    with pytest.raises(ValueError, match="is not shipped"):
        written(features, header=header)
    with pytest.raises(ValueError, match="needs profile="):
        written(features, stride=8, profile_apart=True)
    with pytest.raises(ValueError, match="and no header"):
        written(features, header=header, profile=profile, profile_apart=True)


def test_limits_are_those_of_the_decoders(features, tmp_path, monkeypatch):
    limits = codec.Limits(elements=features[0].numel() - 1)
    with monkeypatch.context() as patched:
        patched.setattr(writing, "measure_profile", lambda *_: pytest.fail("it is measured"))
        with pytest.raises(LimitExceededError, match=f"Limits.elements={features[0].numel()}"):
            codec.encode(features, tmp_path / "x.lmc", stride=8, limits=limits)
    with pytest.raises(LimitExceededError, match="packet bytes"):
        codec.encode(features, tmp_path / "x.lmc", stride=8, limits=codec.Limits(packet_bytes=9))
    with pytest.raises(LimitExceededError, match="index entries: 3 in the stream, limit 2"):
        codec.encode(
            features, io.BytesIO(), stride=8, keyint=1, limits=codec.Limits(index_entries=2)
        )
    header = opened(written(features, stride=8)).header
    with pytest.raises(ValueError, match="header: elements"):
        codec.Writer(tmp_path / "x.lmc", header, limits=limits)
    assert list(tmp_path.iterdir()) == []
    # more than decoders take by default
    large = torch.zeros(1, 2, 1 << 12, (1 << 11) + 1)
    with pytest.raises(LimitExceededError, match=r"elements=16809984 .*, to decoders too"):
        codec.encode(large, io.BytesIO(), stride=1)


def test_what_exists_is_kept_unless_told_otherwise(features, tmp_path):
    path = tmp_path / "clip.lmc"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"exists; pass force=True to overwrite it"):
        codec.encode(features, path, stride=8)
    with pytest.raises(ValueError, match="not finite"):
        codec.encode(features * torch.nan, path, stride=8, force=True)
    assert path.read_bytes() == b"mine"
    codec.encode(features, path, stride=8, force=True)
    assert len(codec.open(path)) == FRAMES


# --- frame by frame ---


@pytest.fixture(scope="module")
def header(features) -> codec.SequenceHeader:
    return opened(written(features, stride=8)).header


def test_frames_written_one_by_one_are_read(features, header, tmp_path):
    path = tmp_path / "out.lmc"
    vectors = np.zeros((*header.field_shape, 2), np.int32)
    vectors[..., 1] = -32
    with codec.Writer(path, header, qp=24, effort=0) as out:
        sizes = [
            out.write(features[0], pts=100),
            out.write([features[1]], vectors),
            out.write({"features": features[2].numpy()}, vectors=vectors),
            out.write(features[3], key=True),
        ]
        assert not path.exists()
        assert out.packet is not None
        assert out.packet.key
    assert out.bytes_written == path.stat().st_size
    clip = codec.open(path)
    assert clip[:].pts.tolist() == [100, 101, 102, 103]
    assert clip[:].key.tolist() == [True, False, False, True]
    np.testing.assert_array_equal(clip[1].vectors, vectors)
    reader = codec.StreamReader(io.BytesIO(path.read_bytes()))
    assert sizes == [reader.packet_bytes for _ in reader]


def test_what_was_decoded_can_be_written_again(features, header):
    content = written(features, header=header)
    file = io.BytesIO()
    with codec.Writer(file, header) as out:
        for frame in opened(content):
            out.write(frame.features, frame.vectors, pts=frame.pts)
    assert len(opened(file.getvalue())) == FRAMES


def test_after_an_error_nothing_is_left(features, header, tmp_path):
    path = tmp_path / "out.lmc"
    with pytest.raises(FeatureError), codec.Writer(path, header) as out:
        out.write(features[0, :2])
    assert list(tmp_path.iterdir()) == []
    file = io.BytesIO()
    with pytest.raises(FeatureError), codec.Writer(file, header) as out:
        out.write(features[0, :2])
    with pytest.raises(codec.TruncatedBitstreamError):
        list(opened(file.getvalue()))


def test_a_writer_is_open_within_its_block(features, header, tmp_path):
    out = codec.Writer(tmp_path / "out.lmc", header)
    with pytest.raises(ValueError, match="the writer is not open"):
        out.write(features[0])
    assert list(tmp_path.iterdir()) == []
    with out:
        out.write(features[0])
    with pytest.raises(ValueError, match="the writer is not open"):
        out.write(features[0])
    with pytest.raises(ValueError, match="a writer writes one stream"), out:
        pass


def test_a_frame_that_is_refused_is_as_if_it_had_not_been(features, header):
    file = io.BytesIO()
    with codec.Writer(file, header) as out:
        out.write(features[0])
        for pts in ("a", 1 << 62):
            with pytest.raises((TypeError, ValueError), match="pts"):
                out.write(features[1], pts=pts)
        out.write(features[2])
    assert opened(file.getvalue())[:].pts.tolist() == [0, 1]


def test_nothing_is_measured_for_a_configuration_that_is_refused(features, monkeypatch):
    monkeypatch.setattr("codec.pipeline.writing.measure_profile", None)
    with pytest.raises(ValueError, match="qp 52"):
        written(features, stride=8, qp=52)


def test_a_writer_refuses_before_it_writes(header, tmp_path):
    path = tmp_path / "out.lmc"
    with pytest.raises(ValueError, match="qp"):
        codec.Writer(path, header, qp=99)
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="force=True"), codec.Writer(path, header):
        pass
    with codec.Writer(path, header, force=True):
        pass
    assert len(codec.open(path)) == 0
