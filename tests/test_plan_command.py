"""`lmc plan` on the shipped clip: real figures, resumed as fresh, and errors in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from small_plan import make_plan
from videos import quadrants, write_video

from codec import cli
from codec.cli.plan import _command
from codec.planning import planner
from codec.planning.plan import EDGE_ONLY, REMOTE
from codec.running.jobs import Store

pytestmark = [pytest.mark.video, pytest.mark.weights]

CLIP = Path(__file__).parents[1] / "bitstreams" / "clip" / "big_buck_bunny_64.mp4"
FEW = ["--frames", 4, "--split", "blocks.7", "--split", "blocks.14", "--link", "2mbit"]
TIMED = ("edge_seconds", "encode_seconds", "decode_seconds", "cloud_seconds")


def lmc(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in arguments])


def planned(folder: Path, *arguments: object) -> dict[str, Any]:
    output = folder / "plan.json"
    result = lmc("plan", CLIP, *arguments, "-o", output, "-f", "-q")
    assert result.exit_code == 0, (result.output, result.exception)
    found: dict[str, Any] = json.loads(output.read_text())
    return found


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan, and what it was made from."""
    folder = tmp_path_factory.mktemp("plan")
    planned(folder, *FEW, "--resume", folder / "work")
    return folder


@pytest.mark.slow
def test_a_real_plan_has_every_option_at_the_loss(kept: Path) -> None:
    found = json.loads((kept / "plan.json").read_text())
    rows = {each["name"]: each for each in found["options"]}
    assert list(rows) == ["blocks.7", "blocks.14", REMOTE, EDGE_ONLY]
    assert found["settings"]["target"] == 0.07
    assert found["settings"]["frames"] == [4]
    for name in ("blocks.7", "blocks.14"):
        row = rows[name]
        assert row["reached"]
        assert row["facts"]["profile"] == "shipped"
        assert all(row["stages"][stage] > 0 for stage in TIMED)
        assert 0.02 < row["loss"] < 0.2
        assert 50 < row["stages"]["bytes_sent"] < 5000
    assert rows["blocks.14"]["stages"]["bytes_sent"] < rows["blocks.7"]["stages"]["bytes_sent"]
    assert rows["blocks.14"]["stages"]["edge_seconds"] > rows["blocks.7"]["stages"]["edge_seconds"]
    assert rows[EDGE_ONLY]["stages"]["bytes_sent"] == 0
    assert rows[REMOTE]["stages"]["edge_seconds"] == 0
    assert found["rankings"]["rate_of_cuts"]["best"] == "blocks.14"


@pytest.mark.slow
def test_what_is_kept_is_not_measured_again(kept: Path) -> None:
    before = json.loads((kept / "plan.json").read_text())
    stamps = {path: path.stat().st_mtime_ns for path in (kept / "work" / "jobs").iterdir()}
    after = planned(kept, *FEW, "--resume", kept / "work")
    del before["provenance"], after["provenance"]
    assert after == before
    assert stamps == {path: path.stat().st_mtime_ns for path in (kept / "work" / "jobs").iterdir()}


@pytest.mark.slow
def test_another_link_measures_nothing(kept: Path) -> None:
    names = {path.name for path in (kept / "work" / "jobs").iterdir()}
    slow = [*FEW[:-1], "100kbit", "--edge-slowdown", 8, "--energy", "edge=4,radio=0.8"]
    found = planned(kept, *slow, "--resume", kept / "work")
    assert {path.name for path in (kept / "work" / "jobs").iterdir()} == names
    assert found["settings"]["link"]["bits_per_second"] == 1e5
    assert found["options"][0]["estimate"]["edge_joules"] > 0


@pytest.mark.slow
def test_resumed_is_as_fresh_but_for_times(kept: Path) -> None:
    before = json.loads((kept / "plan.json").read_text())
    for path in (kept / "work" / "jobs").glob("cut_*blocks.7*"):
        path.unlink()
    after = planned(kept, *FEW, "--resume", kept / "work")
    for one, other in zip(before["options"], after["options"], strict=True):
        for name in ("name", "loss", "parameters", "figures", "bytes_interval", "facts"):
            assert one[name] == other[name], name
        assert one["stages"]["bytes_sent"] == other["stages"]["bytes_sent"]


@pytest.mark.slow
def test_a_network_without_profile_is_calibrated_and_says_on_what(tmp_path: Path) -> None:
    arguments = ["--model", "resnet18", "--weights", "random:0", "--split", "add_6"]
    arguments += ["--frames", 3, "--link", "2mbit", "--resume", tmp_path / "work"]
    found = planned(tmp_path, *arguments)
    assert found["options"][0]["facts"]["profile"] == "clips"
    assert "on the clips themselves" in found["settings"]["profiles"]
    assert len(list((tmp_path / "work" / "profiles").iterdir())) == 1


@pytest.mark.slow
def test_the_table_is_printed_and_the_page_written(kept: Path) -> None:
    pytest.importorskip("jinja2", reason="pages need the extra `page`")
    page = kept / "plan.html"
    result = lmc("plan", CLIP, *FEW, "--resume", kept / "work", "--page", page, "-f")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("efficientnet_lite0, big_buck_bunny_64.mp4 (4 frames), 2 Mbit/s")
    assert any(line.startswith("blocks.14 ") for line in lines)
    assert any(line.startswith("Least latency of all: ") for line in lines)
    assert "</html>" in page.read_text()


def test_a_missing_extra_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    monkeypatch.setattr(planner, "make_plan", None)
    result = lmc("plan", CLIP, *FEW, "--page", tmp_path / "plan.html")
    assert result.exit_code == 1
    assert "--page needs the extra `page`" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured."""
    monkeypatch.setattr(planner, "make_plan", lambda *_, **__: make_plan())


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("option", ["-o", "--page"])
def test_what_goes_to_standard_output_is_alone_there(tmp_path: Path, option: str) -> None:
    pytest.importorskip("jinja2", reason="pages need the extra `page`")
    other = "--page" if option == "-o" else "-o"
    result = lmc("plan", CLIP, *FEW, option, "-", other, tmp_path / "other")
    assert result.exit_code == 0, result.output
    assert result.stdout.rstrip().endswith("}" if option == "-o" else "</html>")
    assert "Least latency of all: " in result.stderr
    result = lmc("plan", CLIP, *FEW, "-o", "-", "--page", "-")
    assert result.exit_code == 2
    assert "-o and --page both name '-'" in result.stderr


@pytest.mark.usefixtures("made_up")
def test_a_page_that_cannot_be_made_leaves_no_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = pytest.importorskip("codec.planning.page", reason="pages need the extra `page`")
    monkeypatch.setattr(page, "plan_page", lambda _: "\udcff")
    result = lmc("plan", CLIP, *FEW, "-o", tmp_path / "plan.json", "--page", tmp_path / "p.html")
    assert isinstance(result.exception, UnicodeEncodeError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_names_that_are_no_utf_8_are_written_as_they_can_be(tmp_path: Path) -> None:
    pytest.importorskip("jinja2", reason="pages need the extra `page`")
    clip = tmp_path / os.fsdecode(b"b\xff.mp4")
    clip.write_bytes(CLIP.read_bytes())
    page, output = tmp_path / "plan.html", tmp_path / "plan.json"
    arguments = ["--split", "blocks.14", "--frames", 2, "--link", "2mbit", "--page", page]
    result = lmc("plan", clip, *arguments, "-o", output)
    assert result.exit_code == 0, (result.output, result.exception)
    assert json.loads(output.read_text())["settings"]["clips"] == ["b?.mp4"]
    assert "b?.mp4" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("/home/me/a.mp4 b/c.mp4 --link 2mbit", "a.mp4 c.mp4 --link 2mbit"),
        ("--model timm:hf/x", "--model timm:hf/x"),
        ("--model=/home/me/n.pt2", "--model=n.pt2"),
        ("--weights=/home/me/w.pth --resume kept/", "--weights=w.pth --resume kept"),
        ("-o/home/me/plan.json -qfo /home/me/plan.json", "-oplan.json -qfo plan.json"),
        ("-qfo/home/me/plan.json --page=-", "-qfoplan.json --page=-"),
        ("--split a/b --rtt=1/2", "--split a/b --rtt=1/2"),
        ("--photographs . " + os.fsdecode(b"b/\xff.mp4"), "--photographs . '?.mp4'"),
    ],
)
def test_a_command_is_shown_without_folders(words: str, shown: str) -> None:
    paths = ["/home/me/a.mp4", "b/c.mp4", "/home/me/n.pt2", "/home/me/w.pth", "kept", "-", "."]
    paths += ["/home/me/plan.json", os.fsdecode(b"b/\xff.mp4")]
    assert _command(words.split(), [Path(path) for path in paths]) == f"lmc {shown}"


def test_reasons_name_files_without_folders(tmp_path: Path) -> None:
    clip, profiles = tmp_path / "clip.mp4", tmp_path / "work" / "profiles"
    text = f"{clip}: and {profiles / 'add.safetensors'} are at odds"
    shown = planner._by_name(text, [tmp_path, clip, profiles])
    assert shown == "clip.mp4: and profiles/add.safetensors are at odds"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--link", "2mb"], "'2mb' is no rate"),
        (["--link", "0mbit"], "'0mbit' is no rate"),
        (["--link", "2mbit", "--rtt", "60"], "'60' is not a time"),
        (["--link", "2mbit", "--energy", "4"], "'4' is not edge=WATTS,radio=WATTS"),
        (["--link", "2mbit", "--edge-slowdown", "0"], "0.0 is not in the range"),
        (["--link", "2mbit", "--edge-slowdown", "nan"], "'nan' is not a finite number"),
        (["--link", "2mbit", "--fidelity", "nan"], "'nan' is not a finite number"),
        (["--link", "2mbit", "--fidelity", "inf"], "'inf' is not a finite number"),
        (["--link", "2mbit", "--fidelity", "-inf"], "is not in the range"),
        ([], "Missing option '--link'"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str) -> None:
    result = lmc("plan", CLIP, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_no_clip_is_wrong_usage() -> None:
    result = lmc("plan", "--link", "2mbit")
    assert result.exit_code == 2
    assert "Missing argument 'CLIPS" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([CLIP, "--model", "no_such_network"], "no_such_network"),
        (["missing.mp4"], "missing.mp4"),
        ([CLIP, "--split", "no_such_split"], "no_such_split"),
        ([CLIP, "--photographs", "missing.jpg", "--model", "resnet18"], "missing.jpg"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(arguments: list[object], said: str) -> None:
    result = lmc("plan", *arguments, "--weights", "random:0", "--link", "2mbit", "--frames", 2)
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("lmc: ")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_all_clips_are_looked_at_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "complete", None)
    arguments = ["--weights", "random:0", "--link", "2mbit", "--frames", 2]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no clip")
    result = lmc("plan", CLIP, broken, "--model", "resnet18", *arguments)
    assert result.exit_code == 1
    assert "broken.mp4" in result.stderr
    wide = tmp_path / "wide.mkv"
    write_video(wide, [quadrants(160, 64)] * 2)
    whole = tmp_path / "whole.toml"
    whole.write_text('resize = "none"\nmean = [0, 0, 0]\nscale = [255, 255, 255]\n')
    arguments += ["--preprocessing", whole, "--model", "resnet18"]
    result = lmc("plan", CLIP, wide, *arguments)
    assert result.exit_code == 1
    assert "wide.mkv: frames of 160x64, those of" in result.stderr
    assert "big_buck_bunny_64.mp4 are " in result.stderr


@dataclass
class Moody:
    """A job that is refused until it is not."""

    results: list[dict[str, Any]]
    key: str = "moody"
    label: str = "moody"
    group: str = "moods"

    def run(self) -> dict[str, Any]:
        return self.results.pop(0)


def test_what_was_refused_is_tried_again(tmp_path: Path) -> None:
    store, job = Store(tmp_path), Moody([{"refused": "not today"}, {"points": []}])
    for _ in range(3):
        planner._complete([job], store, quiet=True)
    assert store.read("moody") == {"points": []}
    assert job.results == []


@pytest.mark.slow
@pytest.mark.parametrize("damaged", ["{}", "[]", '{"points": 1}', "{"])
def test_a_result_of_another_shape_is_told_by_its_file(kept: Path, damaged: str) -> None:
    (path,) = (kept / "work" / "jobs").glob("cut_*blocks.14*")
    whole = path.read_text()
    path.write_text(damaged)
    result = lmc("plan", CLIP, *FEW, "--resume", kept / "work")
    path.write_text(whole)
    assert result.exit_code == 1
    assert f"{path}: not the JSON of a result (" in result.stderr
    assert result.stderr.count("\n") == 1


WAITING = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells ignore in the background
from codec import cli
from codec.cli.plan import _command
from codec.planning import planner

def waiting(jobs, store, **_):
    store.write("one", {{}})
    print("ready", flush=True)
    time.sleep(60)

planner.complete = waiting
sys.argv[1:] = {arguments!r}
cli.main()
"""


@pytest.mark.slow
def test_a_signal_leaves_no_folder(tmp_path: Path) -> None:
    arguments = ["plan", str(CLIP), *map(str, FEW), "--weights", "random:0"]
    with subprocess.Popen(
        [sys.executable, "-c", WAITING.format(arguments=arguments)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        assert len(list(tmp_path.glob("lmc-plan-*"))) == 1
        running.send_signal(signal.SIGINT)
        try:
            _, errors = running.communicate(timeout=60)
        finally:
            running.kill()
    assert running.returncode == 128 + signal.SIGINT
    assert errors.decode() == "lmc: ended by SIGINT\n"
    assert list(tmp_path.glob("lmc-plan-*")) == []


def test_an_input_is_never_overwritten(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(CLIP.read_bytes())
    result = lmc("plan", clip, "--link", "2mbit", "-o", clip, "-f")
    assert result.exit_code == 2
    assert "would be destroyed" in result.stderr
    assert clip.read_bytes() == CLIP.read_bytes()
