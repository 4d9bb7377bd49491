"""Figures of the studies: fixed colours, fronts, and files that are equal when figures are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="figures need the extra `study`")
pytest.importorskip("scipy", reason="figures need the extra `study`")

import matplotlib.pyplot as plt
from small_study import CLIPS, make_study

from tools.rate_distortion.figures import (
    CODECS,
    bd_rate_figure,
    colour_of,
    fronts,
    rate_distortion_figure,
    style_of,
)
from tools.report.figures import PALETTE, figure_style, save


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def luminance(colour: str) -> float:
    """As in the contrast ratio of WCAG 2."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", PALETTE)
def test_colours_stand_out_on_light_and_dark(name: str) -> None:
    ink = luminance(PALETTE[name])
    assert 1.05 / (ink + 0.05) > 2.5, "on white"
    assert (ink + 0.05) / (luminance("#191d21") + 0.05) > 2.9, "on the dark card"


def test_no_two_known_codecs_look_alike() -> None:
    assert len(set(CODECS.values())) == len(CODECS)


def test_an_unknown_codec_keeps_its_colour() -> None:
    assert style_of("mine") == style_of("mine")
    assert colour_of("mine") in PALETTE.values()
    assert re.fullmatch("#[0-9a-f]{6}", colour_of('"><script>'))


def test_files_are_deterministic(tmp_path: Path) -> None:
    found = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths = save(rate_distortion_figure(make_study(), "blocks.10"), tmp_path / folder / "x.10")
        assert [path.name for path in paths] == ["x.10.svg", "x.10.png"]
        found.append([path.read_bytes() for path in paths])
    assert found[0] == found[1]
    assert b"<dc:date>" not in found[0][0]
    assert not plt.get_fignums(), "saving closes the figure"


def test_fronts_fall_and_leave_out_what_is_lossless() -> None:
    study = make_study()
    found = fronts(point for point in study["points"] if point["clip"] == CLIPS[0])
    assert "lossless" not in found or not found["lossless"]
    for front in (found["lmc"], found["tiles"]):
        pairs = [(point["bytes_per_frame"], point["kl"]) for point in front]
        assert len(pairs) >= 4
        assert all(a[0] < b[0] and a[1] > b[1] for a, b in pairwise(pairs))


@pytest.mark.parametrize("clip", [None, CLIPS[0]])
def test_curves_of_a_clip_or_of_all(clip: str | None) -> None:
    figure = rate_distortion_figure(make_study(), "blocks.10", clip)
    titles = [axis.get_title("left") for axis in figure.axes if axis.lines]
    assert titles == ([clip] if clip else list(CLIPS))
    for axis in figure.axes:
        if axis.lines:
            assert axis.get_xscale() == axis.get_yscale() == "log"
            assert {line.get_label() for line in axis.lines} >= {"lmc", "tiles", "pixels-x265"}


def test_bars_have_a_dot_for_each_clip_that_was_compared() -> None:
    figure = bd_rate_figure(make_study(), "blocks.10")
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["tiles", "pixels-x265"]
    dots = [line for line in axis.lines if line.get_linestyle() == "None"]
    assert [len(line.get_xdata()) for line in dots] == [2, 1]


@pytest.mark.parametrize("kind", [rate_distortion_figure, bd_rate_figure])
def test_an_empty_study_makes_an_empty_figure(kind: Any, tmp_path: Path) -> None:
    empty = {**make_study(), "points": [], "comparisons": []}
    assert all(path.stat().st_size for path in save(kind(empty, "blocks.10"), tmp_path / "empty"))


def test_the_style_ends_with_its_block() -> None:
    before = dict(plt.rcParams)
    with figure_style():
        assert plt.rcParams["svg.hashsalt"]
    assert dict(plt.rcParams) == before


def test_names_are_taken_literally(tmp_path: Path) -> None:
    study = make_study(("$a_{b.mp4", "c$d$.mp4"), own="_$own")
    svg, _ = save(rate_distortion_figure(study, "blocks.10"), tmp_path / "names")
    text = svg.read_text()
    for name in ("$a_{b.mp4", "c$d$.mp4", "_$own"):
        assert re.search(rf"<!-- \s*{re.escape(name)} -->", text.replace("\\$", "$"))
