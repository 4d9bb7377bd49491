"""The programs of the gallery: each is short, runs, and draws its picture; the index shows them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="pictures need the extra `study`")

from click.testing import CliRunner
from PIL import Image
from small_detector import write_detector
from videos import moving, write_video

ROOT = Path(__file__).resolve().parents[1]
GALLERY = ROOT / "tools" / "gallery"
SHARED = {"__init__", "networks", "pictures"}
PROGRAMS = sorted(path.stem for path in GALLERY.glob("*.py") if path.stem not in SHARED)
CAR = ROOT / "bitstreams" / "clip" / "car_24.mp4"


def drawn(path: Path) -> tuple[int, int]:
    """Size of a picture that is more than blank paper."""
    picture = Image.open(path).convert("RGB")
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 10
    size: tuple[int, int] = picture.size
    return size


def run(program: str, arguments: list[str]) -> None:
    """Run a command of the gallery in this process."""
    module = pytest.importorskip(f"tools.gallery.{program}")
    result = CliRunner().invoke(module.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output


def detector(folder: Path) -> list[str]:
    """A clip, and the options of a small detector."""
    write_detector(folder)
    write_video(folder / "clip.mkv", moving(9, (1, 2), 64, 64))
    known = {"--model": "small.pt2", "--preprocessing": "small.toml", "--task": "detection.toml"}
    named = [word for option, name in known.items() for word in (option, str(folder / name))]
    return [str(folder / "clip.mkv"), str(folder / "picture.png"), *named, "--split", "relu"]


def test_programs_are_short_and_shown() -> None:
    assert len(PROGRAMS) == 6
    index = (GALLERY / "README.md").read_text(encoding="utf-8")
    for program in PROGRAMS:
        lines = (GALLERY / f"{program}.py").read_text(encoding="utf-8").splitlines()
        assert len(lines) < 60, program
        picture = GALLERY / f"{program}.png"
        assert picture.stat().st_size < 60_000, program
        assert drawn(picture)[0] < 1200
        assert f"]({program}.png)" in index
        assert f"python -m tools.gallery.{program} " in index
    assert {path.stem for path in GALLERY.glob("*.png")} == set(PROGRAMS)


def test_own_tensors(tmp_path: Path) -> None:
    from tools.gallery import own_tensors

    own_tensors.main(tmp_path / "picture.png")
    drawn(tmp_path / "picture.png")


@pytest.mark.parametrize("program", ["detector_in_two", "carried_boxes"])
def test_a_detector(program: str, tmp_path: Path) -> None:
    run(program, detector(tmp_path))
    drawn(tmp_path / "picture.png")


def test_boxes_are_carried_where_their_content_goes() -> None:
    from tools.gallery.carried_boxes import carried

    field = np.zeros((8, 8, 2), np.float32)
    field[2:4, 2:4] = -3, -5  # (y, x): content comes from above and from the left
    box = np.array([20.0, 20, 70, 70])
    assert carried(box, field).tolist() == [25, 23, 75, 73]
    assert carried(box, 0 * field).tolist() == box.tolist()


@pytest.mark.slow
@pytest.mark.video
@pytest.mark.weights
def test_the_live_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("aioquic", reason="the live link needs the extra `live`")
    from tools.gallery import live_link

    live_link.main(CAR, tmp_path / "picture.png")
    drawn(tmp_path / "picture.png")
    assert re.match(r"\d+ results, the last of them: \w+", capsys.readouterr().out)


def test_a_live_link_over_which_nothing_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("aioquic", reason="the live link needs the extra `live`")
    from tools.gallery import live_link

    async def sent(*_: object) -> tuple[object, list[object]]:
        return SimpleNamespace(frames=[]), []

    monkeypatch.setattr(live_link, "sent", sent)
    live_link.main(CAR, tmp_path / "picture.png")
    drawn(tmp_path / "picture.png")
    assert capsys.readouterr().out == "0 results, the last of them: none\n"


@pytest.mark.slow
@pytest.mark.video
@pytest.mark.weights
def test_own_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scipy", reason="the study needs the extra `study`")
    from tools.gallery import own_codec

    monkeypatch.setattr(sys, "argv", ["own_codec"])
    own_codec.main(str(CAR), str(tmp_path / "picture.png"))
    drawn(tmp_path / "picture.png")
    assert "subtracted" in (tmp_path / "picture" / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_new_network(tmp_path: Path) -> None:
    # any pictures will do, and any network: what it is worth is another matter
    write_video(tmp_path / "clip.mkv", moving(4, (1, 2), 256, 256))
    photographs = []
    for number in range(3):
        photographs.append(tmp_path / f"{number}.png")
        pixels = np.random.default_rng(number).integers(0, 255, (32, 40, 3), np.uint8)
        Image.fromarray(pixels).resize((320, 256)).save(photographs[-1])
    clip, picture = tmp_path / "clip.mkv", tmp_path / "picture.png"
    options = ["--model", "resnet18", "--split", "layer3", "--weights", "random:0"]
    run("new_network", [str(clip), str(picture), *map(str, photographs), *options, "--frames", "4"])
    drawn(picture)
    assert (tmp_path / "picture.safetensors").stat().st_size > 1000
