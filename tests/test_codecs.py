"""Codecs of a study: found by name, streams checked, and every byte accounted for."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from codec.encoding.config import EncoderConfig
from codec.encoding.motion_search import MotionSearch, luma
from codec.files.streams import StreamWriter
from codec.pipeline.encoding import VideoEncoder
from codec.pipeline.options import VideoOptions
from tools.contenders.anchors import ANCHORS
from tools.contenders.codecs import ANCHOR_NAMES, CODEC_NAMES, LatentMotionCodec, study_codecs
from tools.contenders.latent_search import LatentSearch, latent_fields
from tools.contenders.scene import Coded, Scene

pytestmark = pytest.mark.slow

CLIPS = Path(__file__).resolve().parent.parent / "bitstreams" / "clip"
FRAMES = 4


@pytest.fixture(scope="module")
def scene() -> Scene:
    """A camera on a moving car: everything moves."""
    return Scene.load(
        CLIPS / "car_24.mp4",
        model="efficientnet_lite0",
        weights="default",
        split="blocks.7",
        frames=FRAMES,
    )


def codec_of(name: str) -> LatentMotionCodec:
    (codec,) = study_codecs(name, qps=(24,))
    assert isinstance(codec, LatentMotionCodec)
    return codec


# --- by name ----------------------------------------------------------------------------------


def test_every_name_gives_codecs_and_no_curve_has_two_of_a_variant() -> None:
    names = dict.fromkeys((*CODEC_NAMES, *ANCHOR_NAMES))
    found = [codec for name in names for codec in study_codecs(name, qps=(14, 24))]
    assert len({(codec.name, codec.variant) for codec in found}) == len(found)
    assert {codec.name for codec in found} == set(names)
    assert set(ANCHORS) < set(ANCHOR_NAMES)
    assert all(codec.points for codec in found)


def test_points_go_from_coarse_to_fine() -> None:
    assert codec_of("lmc").points == (24.0,)
    (own,) = study_codecs("lmc", qps=(14, 22, 18))
    assert own.points == (22.0, 18.0, 14.0)
    for name in ANCHORS:
        for codec in study_codecs(name, qps=()):
            rising = codec.name in {"lossless", "uncompressed"}
            assert list(codec.points) == sorted(set(codec.points), reverse=not rising)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lcm", "nearest: lmc"),
        ("pixels-x266", "nearest: pixels-x26"),
        ("qqqqqq", "known are lmc, lmc-effort7"),
        ("no_such_module:Codec", "no_such_module:Codec: No module named"),
        ("json:Codec", "no attribute 'Codec'"),
        ("json:__name__", "is str; expected a codec"),
        ("collections:OrderedDict", "a codec without 'name'"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        study_codecs(name, qps=(24,))


def test_codecs_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "found_here.py").write_text(
        "class One:\n"
        "    name, variant, needs_split, points = 'one', '', True, (1.0,)\n"
        "    def code(self, scene, point):\n"
        "        raise NotImplementedError\n"
        "instance = One()\n"
        "class Other(One):\n"
        "    variant = 'other'\n"
        "def several():\n"
        "    return [One(), Other()]\n"
        "def alike():\n"
        "    return [One(), One()]\n"
        "class Wanting(One):\n"
        "    def __init__(self, step):\n"
        "        pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    for attribute, count in (("One", 1), ("instance", 1), ("several", 2)):
        found = study_codecs(f"found_here:{attribute}", qps=())
        assert [codec.name for codec in found] == ["one"] * count
    for attribute, message in (("alike", "two codecs of one name"), ("Wanting", "'step'")):
        with pytest.raises(ValueError, match=message):
            study_codecs(f"found_here:{attribute}", qps=())


# --- our own ----------------------------------------------------------------------------------


def check_account(coded: Coded) -> None:
    """Every byte belongs to a frame, and to a part of it."""
    assert set(coded.parts) == {"header", "motion", "residual"}
    assert sum(coded.frame_bytes) == coded.size
    assert len(coded.frame_bytes) == FRAMES
    assert np.allclose(np.sum(list(coded.parts.values()), axis=0), coded.frame_bytes)
    assert all(value >= 0 for values in coded.parts.values() for value in values)


@pytest.mark.video
@pytest.mark.weights
def test_the_size_is_that_of_the_stream(scene: Scene) -> None:
    coded = codec_of("lmc").code(scene, 24)
    options = VideoOptions(
        split="blocks.7", frames=(0, FRAMES), measure=True, config=EncoderConfig(qp=24)
    )
    encoder, file = VideoEncoder(scene.path, options), io.BytesIO()
    writer = StreamWriter(file, encoder.header)
    for encoded in encoder:
        writer.write(encoded.packet)
    writer.close()
    assert coded.size == len(file.getvalue())
    check_account(coded)
    assert coded.parts["motion"][0] == 0 < coded.parts["motion"][1]
    assert set(coded.seconds) == {"video", "edge", "motion", "encode", "decode"}
    assert (coded.parameters["qp"], coded.parameters["keyint"]) == (24, 64)
    fidelity = scene.judge(coded)
    assert fidelity.nrmse == pytest.approx(
        encoder.report(coded.size, writer.header_bytes)["nrmse"], rel=1e-3
    )
    assert 0 < fidelity.kl.mean() < 1


@pytest.mark.video
@pytest.mark.weights
def test_finer_points_cost_more_and_err_less(scene: Scene) -> None:
    coarse, fine = (codec_of("lmc").code(scene, qp) for qp in (34, 10))
    assert fine.size > 2 * coarse.size
    assert scene.judge(fine).kl.mean() < min(0.02, scene.judge(coarse).kl.mean())


@pytest.mark.video
@pytest.mark.weights
def test_variants_do_what_they_say(scene: Scene) -> None:
    found = {name: codec_of(name).code(scene, 24) for name in CODEC_NAMES}
    for coded in found.values():
        check_account(coded)
    for name in ("lmc-intra", "lmc-zero"):
        assert sum(found[name].parts["motion"]) == 0
    size = {name: coded.size for name, coded in found.items()}
    assert size["lmc"] < size["lmc-zero"] < size["lmc-intra"]
    assert size["lmc-oracle"] < size["lmc-zero"]
    kl = {name: scene.judge(found[name]).kl.mean() for name in ("lmc", "lmc-effort7")}
    assert kl["lmc-effort7"] < kl["lmc"]


@pytest.mark.video
def test_any_model_and_several_tensors() -> None:
    """Without a shipped profile, whose bytes then count in the first frame."""
    scene = Scene.load(
        CLIPS / "car_24.mp4",
        model="densenet121",
        weights="random:0",
        split="features.denseblock4.denselayer2",
        frames=FRAMES,
    )
    assert len(scene.features) > 1
    coded = codec_of("lmc").code(scene, 24)
    check_account(coded)
    assert coded.parts["header"][0] > 100 * max(coded.parts["header"][1:])
    assert [tensor.shape for tensor in coded.features] == [t.shape for t in scene.features]


@pytest.mark.video
@pytest.mark.weights
def test_tensors_of_another_clip_are_noticed(scene: Scene) -> None:
    other = tuple(tensor[::-1].copy() for tensor in scene.features)
    changed = Scene(
        **{name: getattr(scene, name) for name in Scene.__dataclass_fields__ if name != "features"},
        features=other,
    )
    with pytest.raises(ValueError, match="not what was encoded"):
        codec_of("lmc").code(changed, 30)


@pytest.mark.video
@pytest.mark.weights
def test_a_decoder_that_differs_is_noticed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codec.pipeline.metering.md5_of", lambda latents: "another")
    with pytest.raises(ValueError, match="not the encoder's"):
        codec_of("lmc").code(scene, 40)


# --- the search in the latent domain ----------------------------------------------------------


@pytest.mark.video
@pytest.mark.weights
def test_the_oracle_is_no_worse_than_luma_or_zero(scene: Scene) -> None:
    """By its own cost, which is of residual and vectors."""
    header = VideoEncoder(scene.path, VideoOptions(split="blocks.7")).header
    search, on_luma = LatentSearch(header), MotionSearch(header, qp=26)
    latents = [
        search.latents([tensor[number] for tensor in scene.features]) for number in range(FRAMES)
    ]
    fields, seconds = latent_fields(scene, header)
    assert latent_fields(scene, header)[1] == seconds > 0  # that of the search, also when kept
    assert fields[0] is None
    on_luma.estimate(luma(scene.rgb[0]))
    judge = LatentSearch(header)
    for number in range(1, FRAMES):
        start = on_luma.estimate(luma(scene.rgb[number]))
        pair = latents[number - 1], latents[number]
        field = search.estimate(*pair, start)
        assert np.array_equal(field, fields[number])
        ours, luma_cost, zero_cost = (
            judge._total(*pair, one) for one in (field, start, np.zeros_like(start))
        )
        assert ours <= luma_cost
        assert ours < zero_cost
        judge._field = field  # what the next vectors are predicted from


@pytest.mark.video
@pytest.mark.weights
@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (0, -1)])
def test_the_oracle_finds_a_shift(scene: Scene, shift: tuple[int, int]) -> None:
    """Of one sample, 16 pixels at this split; content comes from where it was."""
    header = VideoEncoder(scene.path, VideoOptions(split="blocks.7")).header
    search = LatentSearch(header)
    previous = search.latents([tensor[0] for tensor in scene.features])
    current = [torch.roll(latent, shift, (1, 2)) for latent in previous]
    field = search.estimate(previous, current, np.zeros((*header.field_shape, 2), np.int32))
    expected = -np.array(shift) * 16 * 4
    inner = field[2:-2, 2:-2].reshape(-1, 2)
    assert (np.abs(inner - expected) <= 4).mean() > 0.9
