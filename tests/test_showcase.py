"""Showcases: bits add up to the payload, channels to the tensor, and a page can carry many."""

from __future__ import annotations

import base64
import io
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="showcases need the extra `study`")

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from strategies import plausible_profile, random_symbols, stream_headers

from codec.encoding.payloads import FrameWriter
from codec.format.header import SequenceHeader
from codec.format.profile import profile_of
from codec.format.tables import MAX_DIRECT_LEVEL
from tools.rate_distortion.showcase import channel_shares, image_uri, showcase, symbol_bits

pytestmark = pytest.mark.slow

CLIP = Path(__file__).resolve().parents[1] / "bitstreams" / "clip" / "big_buck_bunny_64.mp4"
FRAMES = 12


@given(stream_headers(), st.integers(0, 1000))
def test_bits_of_levels_are_those_that_the_syntax_counts(header: SequenceHeader, seed: int) -> None:
    """Exactly without escapes; with them, about."""
    profile = profile_of(header)
    payloads = FrameWriter(header, profile)
    for frame in random_symbols(np.random.default_rng(seed), header, profile, 2):
        for symbols in frame.tensors:
            np.clip(symbols.levels, -MAX_DIRECT_LEVEL, MAX_DIRECT_LEVEL, out=symbols.levels)
        counted = payloads.code_lengths(frame)
        expected: dict[str, float] = defaultdict(float)
        for spec, symbols in zip(header.tensors, frame.tensors, strict=True):
            bits = symbol_bits(symbols)
            assert bits.shape == (len(symbols.levels), len(symbols.modes))
            expected[f"levels of {spec.name}"] += bits.sum()
        for element, bits in expected.items():
            assert bits == pytest.approx(counted.get(element, 0.0), rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("dense", [True, False])
def test_shares_of_channels_are_squared_gains(dense: bool) -> None:
    rng = np.random.default_rng(1)
    profile = plausible_profile(rng, 5, 2, bands=2, dense=dense, cut=True)
    shares = channel_shares(profile)
    assert shares.shape == (len(profile.scan.position), 5)
    assert (shares >= 0).all()
    assert shares.sum(1) == pytest.approx(1)
    for position, share in zip(profile.scan.position, shares, strict=True):
        frequency, component = divmod(int(position), profile.components)
        matrix = profile.bands[profile.band_of[frequency]].matrix.astype(float)
        if dense:
            gain = np.square(matrix[:, component])
            assert share == pytest.approx(gain / gain.sum())
        else:
            assert share.tolist() == [float(channel == component) for channel in range(5)]


def test_a_component_without_gain_is_everyones() -> None:
    profile = plausible_profile(np.random.default_rng(2), 4, 1, dense=True)
    profile.bands[0].matrix[:] = 0
    assert channel_shares(profile) == pytest.approx(0.25)


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_images_are_png_unless_a_quality_is_given() -> None:
    image = Image.new("RGB", (3, 2))
    for uri, kind in ((image_uri(image), "PNG"), (image_uri(image, quality=80), "JPEG")):
        assert uri.startswith(f"data:image/{kind.lower()};base64,")
        assert (opened(uri).format, opened(uri).size) == (kind, (3, 2))


@pytest.fixture(scope="module")
def show() -> dict[str, Any]:
    return showcase(
        CLIP, model="efficientnet_lite0", weights="default", split="blocks.10", qp=24, frames=FRAMES
    )


@pytest.mark.video
@pytest.mark.weights
class TestShowcase:
    def test_bits_add_up_to_the_payload(self, show: dict[str, Any]) -> None:
        bits = show["bits"]
        parts = bits["levels"] + bits["modes"] + bits["motion"]
        assert parts == pytest.approx(bits["payload"], rel=0.02)
        assert 8 * show["bytes"] > bits["payload"]
        for attributed in (show["channel_bits"], np.ravel(show["block_bits"])):
            assert sum(attributed) * FRAMES == pytest.approx(bits["levels"], rel=1e-3)

    def test_errors_add_up_to_that_of_the_tensor(self, show: dict[str, Any]) -> None:
        for errors in (show["channel_nrmse"], show["position_nrmse"]):
            assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(show["nrmse"], rel=1e-3)

    def test_shapes(self, show: dict[str, Any]) -> None:
        tensor = show["tensor"]
        assert (tensor["channels"], tensor["height"], tensor["width"]) == (112, 14, 14)
        assert show["coded"] == FRAMES
        assert len(show["channel_bits"]) == len(show["channel_nrmse"]) == 112
        assert np.shape(show["position_nrmse"]) == (14, 14)
        assert np.shape(show["block_bits"]) == (2, 2)

    def test_frames_are_spread_and_none_is_the_key_frame(self, show: dict[str, Any]) -> None:
        numbers = [frame["number"] for frame in show["frames"]]
        assert len(numbers) == 6
        assert numbers[0] > 0
        assert numbers == sorted(numbers)
        for frame in show["frames"]:
            assert max(opened(frame["image"]).size) == 224
            assert frame["vectors"] is None or np.shape(frame["vectors"]) == (7, 7, 2)

    def test_channels_share_one_scale_over_the_frames(self, show: dict[str, Any]) -> None:
        assert len({channel["number"] for channel in show["channels"]}) == 5
        for channel in show["channels"]:
            assert channel["low"] < channel["high"]
            assert channel["scale"] > 0
            assert list(channel["images"]) == ["original", "reconstructed", "difference"]
            for strip in channel["images"].values():
                assert opened(strip).size == (6 * 14, 14)

    def test_a_page_can_carry_sixteen(self, show: dict[str, Any]) -> None:
        assert len(json.dumps(show, allow_nan=False)) < 250_000


@pytest.mark.video
@pytest.mark.weights
@pytest.mark.parametrize("frames", [1, 2])
def test_short_clips(frames: int) -> None:
    show = showcase(
        CLIP, model="efficientnet_lite0", weights="default", split="blocks.14", qp=30, frames=frames
    )
    assert [frame["number"] for frame in show["frames"]] == list(range(frames))
