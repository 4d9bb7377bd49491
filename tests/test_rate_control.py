"""Rate control: its promises on a model of an encoder, and a real clip through the real one."""

from __future__ import annotations

import io
import json
import math
import random
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from codec.cli.group import main
from codec.encoding.config import EncoderConfig
from codec.encoding.rate_control import TARGET_RANGES, BitrateControl, NrmseControl
from codec.files.streams import StreamWriter
from codec.format.constants import MAX_QP
from codec.format.packets import EndPacket
from codec.pipeline.encoding import VideoEncoder
from codec.pipeline.options import VideoOptions

CLIP = Path(__file__).parents[1] / "bitstreams" / "clip" / "big_buck_bunny_64.mp4"
HEADER_BYTES = 120
ELEMENTS = 15680
KEY_OFFSET = 9


@dataclass
class Content:
    """What an encoder would find in a video: sizes at qp 24, their spread, and scene cuts."""

    inter_bytes: float = 500.0
    key_bytes: float = 4000.0
    spread: float = 0.0
    cut_chance: float = 0.0
    qp_per_halving: float = 4.0
    keyint: int = 64

    def sizes(self, control: BitrateControl, frames: int, seed: int) -> tuple[list[int], list[int]]:
        """Encode; return the size of the whole stream after every frame, and the inter qp."""
        chance = random.Random(seed)
        written, key_at = HEADER_BYTES, 0
        keys: list[tuple[int, int]] = []
        sizes, inter_qp = [], []
        for frame in range(frames):
            qp, most = control.next()
            assert most is not None
            cut = chance.random() < self.cut_chance
            key = not frame or frame - key_at >= self.keyint or cut
            base = self.key_bytes if key else self.inter_bytes
            base *= math.exp(min(max(chance.gauss(0, self.spread), -1.4), 1.4))
            qp = max(qp - KEY_OFFSET, 0) if key else qp
            while True:  # as the encoder does with `most_bytes`, whose estimates are good to 1 %
                payload = math.ceil(base * 2 ** ((24 - qp) / self.qp_per_halving)) + 1
                if payload <= most or qp == 51:
                    break
                qp += 1
            payload = math.ceil(payload * chance.uniform(1, 1.01)) + chance.randrange(3)
            packet = payload + (12 if key else 9)
            if key:
                keys.append((frame, written))
                key_at = frame
            else:
                inter_qp.append(qp)
            written += packet
            control.update(packet_bytes=packet, key=key, qp=qp, nrmse=0.0)
            sizes.append(written + len(EndPacket(frame + 1, tuple(keys)).to_bytes()))
        return sizes, inter_qp


def bitrate_control(bytes_per_frame: float, keyint: int = 64) -> BitrateControl:
    return BitrateControl(
        bytes_per_frame * 8 * 25 / 1000,
        25,
        keyint=keyint,
        key_offset=KEY_OFFSET,
        header_bytes=HEADER_BYTES,
        elements=ELEMENTS,
    )


@given(
    target=st.floats(60, 6000),
    content=st.builds(
        Content,
        inter_bytes=st.floats(1, 3000),
        key_bytes=st.floats(500, 8000),
        spread=st.floats(0, 1.0),
        cut_chance=st.sampled_from([0.0, 0.01, 0.1, 0.5]),
        qp_per_halving=st.floats(2.5, 6),
        keyint=st.sampled_from([1, 2, 8, 64, 250, 10_000]),
    ),
    seed=st.integers(0, 1000),
)
@example(target=100, content=Content(key_bytes=8000, spread=1.0, cut_chance=0.5), seed=0)
def test_never_more_than_five_percent_over(target, content, seed):
    # at the largest qp, 27 behind that of the sizes, no frame takes more than half the target
    largest = max(content.inter_bytes, content.key_bytes) * math.exp(1.4)
    halvings = math.log2(largest / (target / 2 - 18))
    content.qp_per_halving = min(content.qp_per_halving, 27 / max(halvings, 1))
    sizes, _ = content.sizes(bitrate_control(target, content.keyint), 300, seed)
    for frames, size in enumerate(sizes, 1):
        assert frames < 100 or size <= 1.05 * target * frames, frames


@pytest.mark.parametrize("target", [100, 400, 2000])
@pytest.mark.parametrize("keyint", [1, 8, 64, 1000])
@pytest.mark.parametrize("spread", [0.0, 0.4])
def test_stationary_content_uses_the_budget(target, keyint, spread):
    content = Content(spread=spread, keyint=keyint)
    sizes, qp = content.sizes(bitrate_control(target, keyint), 400, seed=1)
    shares = [size / (target * frames) for frames, size in enumerate(sizes, 1)]
    assert min(shares[149:]) > 0.85
    assert 0.93 < shares[-1] < 1.05
    if qp:
        steps = [abs(one - next_one) for one, next_one in pairwise(qp[100:])]
        assert sum(steps) / len(steps) < 1


def test_a_target_below_the_floor_gets_the_largest_qp():
    control = bitrate_control(5)
    _, qp = Content().sizes(control, 150, seed=0)
    assert set(qp[1:]) == {51}


def test_the_qp_is_held_when_all_is_well():
    _, qp = Content().sizes(bitrate_control(600), 400, seed=0)
    changes = sum(one != other for one, other in pairwise(qp[100:]))
    assert changes < len(qp[100:]) / 4


@pytest.mark.parametrize("target", [0.015, 0.03, 0.06])
@pytest.mark.parametrize("scale", [0.7, 1.0, 1.5])
@pytest.mark.parametrize("frames", [64, 200])
def test_nrmse_converges(target, scale, frames):
    chance = random.Random(0)
    control = NrmseControl(target, keyint=64)
    squares = nrmse = 0.0
    for frame in range(frames):
        qp, most = control.next()
        assert most is None
        key = frame % 64 == 0
        error = 0.032 * scale * 2 ** ((qp - 6 * key - 24) / 12) * math.exp(chance.gauss(0, 0.1))
        squares += error**2
        nrmse = math.sqrt(squares / (frame + 1))
        control.update(packet_bytes=100, key=key, qp=qp, nrmse=nrmse)
    assert nrmse == pytest.approx(target, rel=0.05)


def test_nrmse_of_a_clip_in_which_nothing_changes():
    control = NrmseControl(0.02, keyint=64)
    for frame in range(5):
        qp, _ = control.next()
        control.update(packet_bytes=100, key=frame == 0, qp=qp, nrmse=math.inf)
    assert 0 <= control.next()[0] <= 51


# --- through the encoder --------------------------------------------------------------------------


def encoded(options: VideoOptions) -> dict[str, float]:
    torch.set_num_threads(1)
    encoder = VideoEncoder(CLIP, options)
    writer = StreamWriter(io.BytesIO(), encoder.header)
    for frame in encoder:
        writer.write(frame.packet)
    writer.close()
    return encoder.report(writer.bytes_written, writer.header_bytes)


@pytest.mark.video
@pytest.mark.weights
def test_a_rate_is_kept():
    report = encoded(VideoOptions(bitrate=60))
    # 64 frames, of which the first may have borrowed from what would come
    assert 0.8 < report["kbit_per_s"] / 60 < 1.2
    assert report["target_kbit_per_s"] == 60
    assert report["qp_min"] < report["qp_mean"] < report["qp_max"]
    assert "qp" not in report


@pytest.mark.slow
@pytest.mark.video
@pytest.mark.weights
def test_an_nrmse_is_kept():
    report = encoded(VideoOptions(target_nrmse=0.04))
    assert report["nrmse"] == pytest.approx(0.04, rel=0.06)
    assert report["target_met"]


@pytest.mark.video
@pytest.mark.weights
def test_a_target_that_is_missed_is_told(tmp_path):
    stream, report = tmp_path / "x.lmc", tmp_path / "report.json"
    words = ["encode", str(CLIP), "-o", str(stream), "--report", str(report), "-q", "--frames", "8"]
    result = CliRunner().invoke(main, [*words, "--bitrate", "1"])
    assert result.exit_code == 0
    assert result.stderr.startswith("lmc: warning: ")
    assert "instead of 1; qp 51 to 51; the header alone" in result.stderr
    assert "clips under 100 frames may be over" in result.stderr
    assert json.loads(report.read_text())["target_met"] is False


@pytest.mark.parametrize(
    "words",
    [
        ["--bitrate", "60", "--qp", "24"],
        ["--target-nrmse", "0.02", "--qp", "30"],
        ["--bitrate", "60", "--target-nrmse", "0.02"],
    ],
)
def test_targets_exclude_each_other(words):
    result = CliRunner().invoke(main, ["encode", str(CLIP), "-o", "x.lmc", *words])
    assert result.exit_code == 2
    assert f"{words[0]}" in result.stderr
    assert f"{words[2]}" in result.stderr
    assert "exclude each other" in result.stderr


@pytest.mark.parametrize("option", ["--bitrate", "--target-nrmse"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "x", "1e-170", "1e200"])
def test_targets_that_are_none(option, value):
    result = CliRunner().invoke(main, ["encode", str(CLIP), "-o", "x.lmc", f"{option}={value}"])
    assert result.exit_code == 2
    assert option in result.stderr


def test_options_refuse_targets_that_are_none():
    with pytest.raises(ValueError, match="both given"):
        VideoOptions(bitrate=60, target_nrmse=0.02)
    for value in (math.nan, 0, 1e-4, 1e10):
        with pytest.raises(ValueError, match=f"bitrate {value} is not from 0.001 to"):
            VideoOptions(bitrate=value)
    for value in (1e-170, 1e200):
        with pytest.raises(ValueError, match="from 1e-09 to 1"):
            VideoOptions(target_nrmse=value)
    for value in TARGET_RANGES["bitrate"]:
        rates = {"keyint": 64, "key_offset": 9, "header_bytes": 100, "elements": 1000}
        assert 0 <= BitrateControl(value, 30.0, **rates).next()[0] <= MAX_QP
    for value in TARGET_RANGES["target_nrmse"]:
        control = NrmseControl(value, keyint=64)
        for nrmse in (1e-12, 10.0):
            control.update(packet_bytes=9, key=True, qp=30, nrmse=nrmse)
            assert 0 <= control.next()[0] <= MAX_QP
    assert VideoOptions(config=EncoderConfig(qp=30)).bitrate is None
