"""The benchmark runs, and its figures are of one another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tools.benchmark import STAGES, main

MOST_OF_EDGE = {"motion": 0.5, "coding": 0.9, "decoding": 0.45}
"""Of the default network: about twice what was measured on 2026-11-29."""
CLIP = Path(__file__).resolve().parent.parent / "bitstreams" / "clip" / "car_24.mp4"


@pytest.mark.slow
def test_every_stage_is_timed(tmp_path):
    out = tmp_path / "benchmark.json"
    arguments = [str(CLIP), "-o", str(out), "--frames", "4", "--repeat", "1", "--qp", "24"]
    result = CliRunner().invoke(main, [*arguments, "--weights", "random:0"])
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    found = report["clips"]["car_24.mp4"]
    assert found["frames"] == 4
    for stage in STAGES:
        assert 0 <= found[stage]["p50_ms"] <= found[stage]["p95_ms"]
        ratio = found[stage]["p50_ms"] / found["edge"]["p50_ms"]
        assert found[stage]["of_edge"] == pytest.approx(ratio)
        assert stage in result.stdout
    whole = found["whole"]
    assert whole["of_edge"] == pytest.approx(whole["encode_fps"] / whole["edge_fps"])
    assert set(found["tiles"]) == {"encode", "decode"}
    assert min(report["start"].values()) > 0
    assert str(tmp_path.parent) not in out.read_text()  # paths are nobody's affair


@pytest.mark.slow
def test_no_stage_has_become_slow(tmp_path):
    """Ratios within one run, each frame at its fastest; what other processes do moves them by less
    than a factor of two.
    """
    out = tmp_path / "benchmark.json"
    result = CliRunner().invoke(main, [str(CLIP), "-o", str(out), "--frames", "16", "--qp", "8"])
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())["clips"]["car_24.mp4"]
    ratios = {stage: found[stage]["of_edge"] for stage in MOST_OF_EDGE}
    assert all(ratios[stage] <= most for stage, most in MOST_OF_EDGE.items()), ratios


def test_a_clip_that_is_none_is_told_in_one_line(tmp_path):
    (tmp_path / "none.mp4").write_bytes(b"no video")
    result = CliRunner().invoke(main, [str(tmp_path / "none.mp4"), "-o", str(tmp_path / "x.json")])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "x.json").exists()
