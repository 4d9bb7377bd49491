"""Two studies compared: known factors, curves that moved, the command's answers and refusals."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("scipy", reason="BD-rate needs the extra `study`")

from tools.compare import main, moved_curves
from tools.rate_distortion.study import read_points

RATE = [60.0, 110.0, 250.0, 600.0, 1300.0, 2900.0]
KL = [1.4, 0.6, 0.21, 0.07, 0.018, 0.004]
COLUMNS = ("clip", "split", "codec", "variant", "point", "frames", "bytes_per_frame", "kl", "nrmse")


def write(
    path: Path, factors: dict[str, float], *, points: int = 6, codec: str = "lmc", **changes: Any
) -> Path:
    rows = [
        {
            "clip": clip,
            "split": "blocks.10",
            "codec": codec,
            "variant": "",
            "point": 40 - 4 * number,
            "frames": 64,
            "bytes_per_frame": rate * factor,
            "kl": kl,
            "nrmse": "" if number == 0 else kl / 10,
        }
        | changes
        for clip, factor in factors.items()
        for number, (rate, kl) in enumerate(list(zip(RATE, KL, strict=True))[:points])
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_rates_by_known_factors(tmp_path: Path) -> None:
    before = write(tmp_path / "a.csv", {"x.mp4": 1, "y.mp4": 1, "z.mp4": 1})
    after = write(tmp_path / "b.csv", {"x.mp4": 0.9, "y.mp4": 1.2, "z.mp4": 1})
    result = invoke(before, after)
    assert result.exit_code == 0, result.output
    assert "-10.0 % (-10.0)" in result.output
    assert "+20.0 % (+20.0)" in result.output
    assert "+3.3 %" in result.output  # the mean
    moved = result.output.partition("moved most:\n")[2].splitlines()
    assert [line.split()[0] for line in moved] == ["+20.00", "-10.00", "+0.00"]


def test_short_curves_are_compared_by_the_ratios_of_their_points(tmp_path: Path) -> None:
    before = write(tmp_path / "a.csv", {"x.mp4": 1}, points=3)
    after = write(tmp_path / "b.csv", {"x.mp4": 1.02}, points=3)
    result = invoke(before, after)
    assert result.exit_code == 0, result.output
    assert "too few points for BD-rate" in result.output
    assert result.output.endswith("x.mp4 blocks.10 lmc: bytes_per_frame +2.00 %\n")


def test_check_fails_when_a_curve_moves(tmp_path: Path) -> None:
    before = write(tmp_path / "a.csv", {"x.mp4": 1})
    assert invoke(before, before, "--check").exit_code == 0
    within = write(tmp_path / "b.csv", {"x.mp4": 1.009})
    result = invoke(before, within, "--check")
    assert result.exit_code == 0
    assert result.output == "nothing moved by more than 1 %, KL by 10 %\n"
    beyond = write(tmp_path / "c.csv", {"x.mp4": 1.011})
    assert invoke(before, beyond, "--check").exit_code == 1
    assert invoke(before, beyond, "--check", "--tolerance", 2).exit_code == 0


def test_curves_of_other_points_have_moved(tmp_path: Path) -> None:
    before = read_points(write(tmp_path / "a.csv", {"x.mp4": 1, "y.mp4": 1}, points=2))
    after = read_points(write(tmp_path / "b.csv", {"x.mp4": 1}, points=3))
    assert moved_curves(before, after) == [
        "x.mp4 blocks.10 lmc: points 40 36 before, 40 36 32 after",
        "y.mp4 blocks.10 lmc: points 40 36 before, none after",
    ]


def test_kl_and_nrmse_count_too(tmp_path: Path) -> None:
    before = read_points(write(tmp_path / "a.csv", {"x.mp4": 1}, points=3))
    after = read_points(write(tmp_path / "b.csv", {"x.mp4": 1}, points=3))
    after[1]["kl"] *= 1.331
    assert moved_curves(before, after) == []  # 10 % of the mean
    assert moved_curves(before, after, kl_tolerance=9) == ["x.mp4 blocks.10 lmc: kl +10.00 %"]
    after[1]["nrmse"] *= 0.9  # one of the two that have one
    assert moved_curves(before, after) == ["x.mp4 blocks.10 lmc: nrmse -5.13 %"]


def test_figures_and_conditions_that_one_side_lacks_have_moved(tmp_path: Path) -> None:
    before = read_points(write(tmp_path / "a.csv", {"x.mp4": 1}, points=3))
    for change, message in (
        ({"kl": 0.0}, "kl is missing or zero on one side"),
        ({"nrmse": None}, "nrmse is missing or zero on one side"),
        ({"kl": float("nan")}, "kl +nan %"),
        ({"frames": 32}, "frames 64 before, 32 after"),
    ):
        after = [dict(point) for point in before]
        after[1] |= change
        assert moved_curves(before, after) == [f"x.mp4 blocks.10 lmc: {message}"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("clip,kl\nx,1\n", "has no column 'split'"),
        (",".join(COLUMNS) + "\n", "no row in it"),
        (",".join(COLUMNS) + "\nx,s,lmc,,four,64,60,1,\n", "line 2: could not convert"),
        (",".join(COLUMNS) + "\nx,s,lmc,,4,64,,1,\n", "line 2: a point without rate or KL"),
        (",".join(COLUMNS) + "\nx,s,lmc\n", "line 2: 3 cells under 9 columns"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    good = write(tmp_path / "a.csv", {"x.mp4": 1})
    bad = tmp_path / "b.csv"
    bad.write_text(content)
    result = invoke(good, bad)
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.count("\n") == 1


def test_nothing_in_common_is_refused(tmp_path: Path) -> None:
    before = write(tmp_path / "a.csv", {"x.mp4": 1})
    other = write(tmp_path / "b.csv", {"x.mp4": 1}, codec="tiles")
    assert "have no codec and split in common" in invoke(before, other).output
    assert "no row of the codecs" in invoke(before, other, "--codec", "lmc").output


def test_studies_of_a_detector_are_compared_by_its_first_figure(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / f"{name}.csv", {"x.mp4": factor}) for name, factor in (("a", 1), ("b", 2))
    ]
    classifier = write(tmp_path / "c.csv", {"x.mp4": 1})
    for path in paths:
        path.write_text(path.read_text().replace(",kl,", ",score_error,"))
    result = invoke(*paths, "--kl", "0.5:1")
    assert result.exit_code == 0, result.output
    assert "equal score_error" in result.output
    assert "+100.0 % (+100.0)" in result.output
    checked = invoke(paths[0], paths[0], "--check")
    assert checked.output == "nothing moved by more than 1 %, squared score error by 10 %\n"
    assert "expected one task" in invoke(paths[0], classifier).output
