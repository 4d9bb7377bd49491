"""What follows from measured points: curves, comparisons, averages, findings, files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import click
import pytest

pytest.importorskip("scipy", reason="BD-rate needs the extra `study`")

from tools.rate_distortion.study import COLUMNS, Study, curves, read_points

KL = [1.4, 0.6, 0.21, 0.07, 0.018, 0.004]
RATE = [60.0, 110.0, 250.0, 600.0, 1300.0, 2900.0]
CLIPS = ("x.mp4", "y.mp4", "z.mp4")


def points(
    codec: str, factors: dict[str, float], *, split: str = "blocks.10", variant: str = ""
) -> list[dict[str, Any]]:
    return [
        {
            "clip": clip,
            "model": "efficientnet_lite0",
            "weights": "default",
            "split": split,
            "codec": codec,
            "variant": variant,
            "point": float(number),
            "frames": 2,
            "bytes": round(2 * rate * factor),
            "bytes_per_frame": rate * factor,
            "kbit_per_s": rate * factor / 5,
            "bits_per_element": None if not split else rate / 2000,
            "kl": kl,
            "top1_agreement": 1 - kl / 2,
            "dense_agreement": None,
            "nrmse": kl / 10 if split else None,
            "accuracy": None,
            "seconds": {"encode": 0.1, "decode": 0.2},
            "peak_memory_mb": 300.0,
            "parameters": {"preset": "medium"},
            "date": "2026-01-01T00:00:00+00:00",
            "commit": "abc",
            "versions": {"python": "3"},
            "machine": {"processor": "x"},
            "per_frame": {
                "kl": [kl, kl],
                "top1": [1, 0],
                "dense": None,
                "bytes": [round(rate * factor)] * 2,
                "parts": {"header": [9.0, 9.0], "motion": [0.0, 3.5]} if codec == "lmc" else {},
            },
        }
        for clip, factor in factors.items()
        for number, (rate, kl) in enumerate(zip(RATE, KL, strict=True))
    ]


def study(*measured: list[dict[str, Any]], clips: tuple[str, ...] = CLIPS) -> Study:
    return Study(
        settings={
            "model": "efficientnet_lite0",
            "weights": "default",
            "frames": 2,
            "test": ["lmc"],
            "kl": [0.005, 1.0],
            "splits": [{"name": "blocks.10", "elements": 21952, "tensors": "112×14×14"}],
            "clips": [
                {"name": clip, "width": 8, "height": 8, "frame_rate": 25.0, "frames": 2}
                for clip in clips
            ],
        },
        provenance={"command": "python -m tools.rate_distortion", "commit": "abc"},
        points=[point for group in measured for point in group],
    )


EQUAL = dict.fromkeys(CLIPS, 1.0)


def test_a_codec_without_split_is_compared_at_every_split() -> None:
    found = study(
        points("lmc", dict(zip(CLIPS, (0.5, 0.8, 1.1), strict=True))),
        points("pixels-x265", EQUAL, split=""),
    )
    by_measure = {one.measure: one for one in found.comparisons}
    assert by_measure.keys() == {"bd_rate", "bd_kl"}
    assert by_measure["bd_rate"].figures() == pytest.approx(
        {"x.mp4": -50, "y.mp4": -20, "z.mp4": 10}
    )
    assert found.findings() == [
        "blocks.10, lmc: the strongest anchor is pixels-x265 (−20 % on average); weakest on z.mp4 "
        "against pixels-x265 (+10 %); on 1 of 3 clips some anchor needs fewer bytes: z.mp4."
    ]


def test_variants_of_a_codec_are_one_anchor() -> None:
    found = study(
        points("lmc", EQUAL),
        points("tiles", dict.fromkeys(CLIPS, 2.0), variant="default"),
        points("tiles", dict.fromkeys(CLIPS, 1.25), variant="plain"),
    )
    (rate,) = (one for one in found.comparisons if one.measure == "bd_rate")
    assert rate.anchor == "tiles"
    assert rate.mean() == pytest.approx(-20)
    assert "fewest bytes of all on 3 of 3 clips" in found.findings()[0]


def test_own_variants_are_ablations_not_anchors() -> None:
    found = study(
        points("lmc", EQUAL), points("lmc-zero", dict(zip(CLIPS, (2, 1, 0.8), strict=True)))
    )
    assert found.findings() == [
        "blocks.10, lmc against its own variants: lmc-zero −8.3 % (worse on z.mp4 +25.0 %)."
    ]


def test_findings_tell_what_has_no_figure() -> None:
    """A mean over fewer clips does not compete, and what is unknown is not won."""
    found = study(
        points("lmc", EQUAL),
        points("tiles", dict.fromkeys(CLIPS, 2.0)),
        points("nncodec", {"x.mp4": 1.01}),
    )
    (line,) = found.findings()
    assert "the strongest anchor is tiles (−50 %" in line
    assert "fewest bytes of all on 1 of 3 clips (2 comparisons have no figure)" in line


def test_averages_need_all_clips() -> None:
    found = study(points("lmc", EQUAL), points("tiles", {"x.mp4": 1.0}))
    averages = found.averages()
    assert {one["codec"] for one in averages} == {"lmc"}
    assert averages[0]["bytes_per_frame"] == pytest.approx(60)
    assert averages[0]["kl_interval"] == pytest.approx((1.4, 1.4))
    assert averages[0]["dense_agreement"] is None


def test_a_point_without_loss_is_on_no_curve() -> None:
    lossless = points("uncompressed", {"x.mp4": 100})[:1]
    lossless[0]["kl"] = 0.0
    found = study(points("lmc", EQUAL), lossless)
    assert found.comparisons == []
    assert found.findings() == []


def test_mixed_lengths_are_refused() -> None:
    mixed = points("lmc", {"x.mp4": 1.0})
    mixed[0]["frames"] = 3
    with pytest.raises(click.ClickException, match=r"x.mp4, lmc: measured over 2 and 3 frames"):
        curves(mixed)


def test_files(tmp_path: Path) -> None:
    found = study(points("lmc", EQUAL), points("pixels-x265", EQUAL, split=""))
    found.write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "frames.csv",
        "results.csv",
        "study.json",
    ]
    with (tmp_path / "results.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert tuple(reader.fieldnames or ()) == COLUMNS
    assert len(rows) == 36
    assert rows[0]["bytes_motion"] == "3.5"
    assert rows[0]["seconds_decode"] == "0.2"
    assert rows[0]["seconds_motion"] == ""
    assert json.loads(rows[0]["parameters"]) == {"preset": "medium"}
    assert rows[0]["command"] == "python -m tools.rate_distortion"
    assert rows[-1]["bits_per_element"] == ""
    with (tmp_path / "frames.csv").open(newline="") as file:
        frames = list(csv.DictReader(file))
    assert len(frames) == 72
    assert (frames[1]["frame"], frames[1]["top1"], frames[1]["bytes_motion"]) == ("1", "0", "3.5")
    content = json.loads((tmp_path / "study.json").read_text())
    assert content["format"] == 1
    assert content["comparisons"][0]["clips"]["x.mp4"]["pchip"] == pytest.approx(0, abs=1e-9)
    assert read_points(tmp_path / "results.csv")[0]["kl"] == 1.4


def test_what_sends_the_answer_is_an_anchor_of_its_own_kind() -> None:
    found = study(
        points("lmc", EQUAL),
        points("tiles", dict.fromkeys(CLIPS, 2.0)),
        points("labels", dict.fromkeys(CLIPS, 0.5), split=""),
    )
    assert found.findings() == [
        "blocks.10, lmc: the strongest anchor is tiles (−50 % on average); weakest on z.mp4 "
        "against tiles (−50 %); it needs the fewest bytes of all on 3 of 3 clips.",
        "blocks.10, lmc against labels, which send the answer and no features: +100 % on average, "
        "fewer bytes on 0 of 3 clips.",
    ]


def test_fidelities_at_equal_kl() -> None:
    found = study(
        points("lmc", {"x.mp4": 1.0, "y.mp4": 2.0}),
        points("labels", {"x.mp4": 1.0}, split=""),
        points("tiles", {"x.mp4": 1.0})[:2],  # whose KL is larger
    )
    own, labels = found.fidelities()
    assert (own["codec"], own["split"], own["clips"]) == ("lmc", "blocks.10", 2)
    assert 1.5 * 250 < own["bytes_per_frame"] < 1.5 * 600
    assert own["nrmse"] == pytest.approx(0.1 * 0.1, rel=0.2)
    assert own["dense_agreement"] is None
    assert labels["nrmse"] is None
