"""The `lmc` command as its users meet it: results, exit codes, one-line errors, pipes."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import wave
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from videos import moving, write_video

import codec
from codec import cli
from codec.encoding import encoder
from codec.files.streams import StreamReader
from codec.format.profile import Profile
from codec.pipeline.edge import EdgeSource

pytestmark = [pytest.mark.video, pytest.mark.weights]

CLIP = Path(__file__).parents[1] / "bitstreams" / "clip" / "big_buck_bunny_64.mp4"
FRAMES = 6
RATE = 25
"""Frames a second of the clip."""
ELEMENTS = 40 * 28 * 28
"""Of a frame, at the split."""
RANDOM = ["--model", "resnet18", "--split", "add", "--weights", "random:0", "-q"]


def lmc(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in arguments], input=stdin)


LMC = [sys.executable, "-m", "codec"]


def run(*arguments: object, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*LMC, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        check=False,
    )


def succeed(*arguments: object, stdin: bytes | None = None) -> Result:
    result = lmc(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result


def told(*arguments: object, code: int = 1, stdin: bytes | None = None) -> Result:
    """Expect an error without traceback, in one line if it is no usage error."""
    result = lmc(*arguments, stdin=stdin)
    assert result.exit_code == code, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit)
    if code == 1:
        assert result.stderr.startswith("lmc: ")
        assert result.stderr.count("\n") == 1
    return result


def fail(*arguments: object, code: int = 1, stdin: bytes | None = None) -> str:
    """Expect an error and no result; return it."""
    result = told(*arguments, code=code, stdin=stdin)
    assert result.stdout == ""
    return result.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clip.lmc of six frames, two of them key frames, and its report.json."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("made")
    options = ["--frames", FRAMES, "--split", "blocks.4", "--keyint", 3, "--no-scene-cut"]
    outputs = ["-o", folder / "clip.lmc", "--report", folder / "report.json"]
    result = succeed("encode", CLIP, *options, *outputs, "--qp", 28, "--evaluate")
    assert "nrmse" in result.stdout
    return folder


@pytest.fixture(scope="module")
def report(made: Path) -> dict[str, Any]:
    return json.loads((made / "report.json").read_text())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder, in which a failing command must leave nothing."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- what a good run gives ------------------------------------------------------------------------


def test_report(made, report):
    assert report["frames"] == FRAMES
    assert report["key_frames"] == 2
    assert report["bytes"] == (made / "clip.lmc").stat().st_size
    assert report["bytes_per_frame"] == report["bytes"] / FRAMES
    parts = [
        value
        for key, value in report.items()
        if key.startswith("bytes_") and key not in {"bytes_per_frame", "bytes_header_profile"}
    ]
    assert sum(parts) == pytest.approx(report["bytes"])
    assert report["kbit_per_s"] == pytest.approx(8e-3 * report["bytes_per_frame"] * RATE)
    assert report["bits_per_element"] == pytest.approx(8 * report["bytes_per_frame"] / ELEMENTS)
    assert 0.001 < report["nrmse"] < 0.1
    assert 0 < report["kl"] < 5
    assert FRAMES * report["top1_agreement"] in range(FRAMES + 1)
    for stage in ("video", "edge", "motion", "coding"):
        assert 0 < report[f"seconds_{stage}"] < 600
    assert not any(isinstance(value, dict) for value in report.values())
    assert len(report["frame_md5"]) == FRAMES
    assert names(made) == ["clip.lmc", "report.json"]


def test_framing_stays_small(report):
    # a packet's framing may take 10 bytes, that of a key frame more; the end packet has its own
    assert report["bytes_framing"] <= 10 * FRAMES + 10 * report["key_frames"] + 24


def test_md5_is_that_of_the_report(made, report):
    lines = succeed("decode", made / "clip.lmc", "--md5").stdout.splitlines()
    assert lines == [f"{digest}  {number}" for number, digest in enumerate(report["frame_md5"])]


def test_reference_gives_the_nrmse_of_the_report(made, report):
    output = succeed("decode", made / "clip.lmc", "--reference", CLIP).stdout
    assert float(output.split()[1]) == report["nrmse"]


def test_npz_and_its_slice(made, here):
    assert succeed("decode", made / "clip.lmc", "-o", "all.npz").stdout == (
        "6 frames: blocks.4 40x28x28\n"
    )
    succeed("decode", made / "clip.lmc", "-o", "part.npz", "--frames", "2:5")
    with np.load("all.npz") as whole, np.load("part.npz") as part:
        assert list(whole) == ["blocks.4", "pts"]
        assert whole["blocks.4"].shape == (FRAMES, 40, 28, 28)
        assert whole["blocks.4"].dtype == np.float32
        assert whole["pts"].tolist() == [512 * number for number in range(FRAMES)]
        for name in whole:
            assert np.array_equal(part[name], whole[name][2:5])
    assert names(here) == ["all.npz", "part.npz"]


def test_task(made, here):
    succeed("decode", made / "clip.lmc", "--task", "labels.json")
    found = json.loads(Path("labels.json").read_text())
    assert [frame["frame"] for frame in found] == list(range(FRAMES))
    for frame in found:
        assert len(frame["top5"]) == 5
        assert {"class", "label", "probability"} <= set(frame["top5"][0])
        assert isinstance(frame["top5"][0]["label"], str)
    assert found == json.loads(succeed("decode", made / "clip.lmc", "--task", "-").stdout)
    assert names(here) == ["labels.json"]


@pytest.mark.slow
def test_a_part_of_a_clip_and_its_reference(here):
    succeed(
        "encode", CLIP, "-o", "x.lmc", "--frames", "3:6", "--split", "blocks.4", "--report", "r"
    )
    nrmse = json.loads(Path("r").read_text())["nrmse"]
    reference = ["decode", "x.lmc", "--reference", CLIP]
    output = succeed(*reference, "--reference-frames", "3:6").stdout
    assert float(output.split()[1]) == nrmse
    succeed(*reference, "--reference-frames", "3:6", "--frames", "1:2")
    assert "--reference-frames" in fail(*reference)


def test_other_weights_are_refused_unless_told(made, here):
    arguments = ["decode", made / "clip.lmc", "--task", "t.json", "--weights", "random:1"]
    message = fail(*arguments)
    assert "--any-weights" in message
    assert names(here) == []
    succeed(*arguments, "--any-weights")
    assert len(json.loads(Path("t.json").read_text())) == FRAMES


@pytest.mark.parametrize("motion", ["zero", "none", "bitstream"])
def test_motion_sources(motion, here):
    options = ["--motion", motion, "--frames", 3, "--split", "blocks.4", "-q"]
    assert succeed("encode", CLIP, "-o", "x.lmc", *options, "--report", "r.json").output == ""
    found = json.loads(Path("r.json").read_text())
    assert found["motion"] == motion
    lines = succeed("decode", "x.lmc", "--md5").stdout.split()
    assert lines[::2] == found["frame_md5"]


def test_a_model_without_a_shipped_profile(here):
    succeed("encode", CLIP, "-o", "x.lmc", "--frames", 3, *RANDOM, "--report", "r.json")
    found = json.loads(Path("r.json").read_text())
    assert 0 < found["bytes_header_profile"] < found["bytes_header"] < found["bytes"]
    assert found["bytes"] == Path("x.lmc").stat().st_size
    output = succeed("decode", "x.lmc", "--reference", CLIP).stdout
    assert float(output.split()[1]) == found["nrmse"]
    assert "embedded" in succeed("inspect", "x.lmc").stdout


def test_native(here):
    options = ["--native", "--frames", 2, "--split", "blocks.4", "-q", "--report", "r.json"]
    succeed("encode", CLIP, "-o", "x.lmc", *options)
    output = succeed("decode", "x.lmc", "--reference", CLIP).stdout
    assert float(output.split()[1]) == json.loads(Path("r.json").read_text())["nrmse"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "split", "tensors"),
    [("resnet34", "add_3", 1), ("densenet121", "features.denseblock2.denselayer2", 3)],
)
def test_the_networks_of_the_paper(model, split, tensors, here):
    options = ["--model", model, "--split", split, "--weights", "random:0", "--frames", 3]
    succeed("encode", CLIP, "-o", "x.lmc", *options, "-q", "--report", "r.json")
    found = json.loads(Path("r.json").read_text())
    lines = succeed("decode", "x.lmc", "--md5", "-o", "x.npz").stdout.split()
    assert lines[::2] == found["frame_md5"]
    output = succeed("decode", "x.lmc", "--reference", CLIP).stdout
    assert float(output.split()[1]) == found["nrmse"]
    with np.load("x.npz") as loaded:
        assert len(loaded) == tensors + 1


# --- calibrate ------------------------------------------------------------------------------------


CALIBRATE = ["calibrate", CLIP, "--views", 1, "--probes", 1]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile of the model of `RANDOM`, measured on one pair of frames."""
    path = tmp_path_factory.mktemp("calibrated") / "p.safetensors"
    assert succeed(*CALIBRATE, "-o", path, *RANDOM).output == ""
    return path


def test_a_profile_is_measured_and_travels_in_the_stream(calibrated, here):
    options = ["--frames", 3, *RANDOM, "--profile", calibrated, "--report", "r.json"]
    succeed("encode", CLIP, "-o", "x.lmc", *options)
    found = json.loads(Path("r.json").read_text())
    assert 10_000 < found["bytes_header_profile"] < found["bytes_header"] < found["bytes"]
    assert "embedded" in succeed("inspect", "x.lmc").stdout
    assert succeed("decode", "x.lmc", "--md5").stdout.split()[::2] == found["frame_md5"]


def test_the_same_command_gives_the_same_file_and_a_report(calibrated, here):
    arguments = [word for word in RANDOM if word != "-q"]
    result = succeed(*CALIBRATE, "-o", "p.safetensors", *arguments)
    report = result.stdout
    assert result.stderr.startswith("lmc: warning: few inputs: ")
    assert Path("p.safetensors").read_bytes() == calibrated.read_bytes()
    for key in ("weights_hash", "inputs_sha256", "seed", "kl_at_qp_28", "profile_bytes"):
        assert key in report
    assert names(here) == ["p.safetensors"]


def test_a_budget_bounds_the_profile(calibrated, here):
    succeed(*CALIBRATE, "-o", "p.safetensors", *RANDOM, "--budget", 30_000)
    small, whole = Profile.load(Path("p.safetensors")), Profile.load(calibrated)
    assert small.provenance["budget"] == 30_000
    assert len(small.to_bytes()) <= 30_000 < len(whole.to_bytes())
    assert "--budget" in fail(*CALIBRATE, "-o", "q", *RANDOM, "--budget", 0, code=2)


@pytest.mark.slow
def test_shipped_profiles_are_not_embedded(here):
    profile = profile_of_split("blocks.4")
    options = ["--frames", 1, "--split", "blocks.4", "-q", "--report", "r.json", "-f"]
    sizes = []
    for more in ([], ["--profile", profile]):
        succeed("encode", CLIP, "-o", "x.lmc", *options, *more)
        found = json.loads(Path("r.json").read_text())
        assert found["bytes_header_profile"] == 0
        sizes.append(found["bytes"])
    assert sizes[0] == sizes[1]
    # other weights have other sensitivities: the shipped profile is not theirs
    succeed("encode", CLIP, "-o", "x.lmc", *options, "--weights", "random:0")
    assert json.loads(Path("r.json").read_text())["bytes_header_profile"] > 0


def profile_of_split(split: str) -> Path:
    folder = Path(codec.__file__).parent / "format" / "profiles"
    index = json.loads((folder / "index.json").read_text())
    return folder / index[f"efficientnet_lite0@{split}"]


@pytest.mark.slow
def test_profiles_of_something_else_are_refused(calibrated, here):
    encode = ["encode", CLIP, "-o", "x.lmc", "--profile", calibrated]
    other = ["--model", "resnet18", "--split", "add_1", "--weights", "random:0"]
    assert "measured for split add, asked for add_1" in fail(*encode, *other)
    other = ["--model", "resnet18", "--split", "add", "--weights", "random:1"]
    assert "lmc calibrate" in fail(*encode, *other)
    assert "measured for model resnet18" in fail(*encode)
    Path("text").write_text("no profile")
    assert "text: not a profile" in fail("encode", CLIP, "-o", "x", "--profile", "text")
    assert "missing: no such file" in fail("encode", CLIP, "-o", "x", "--profile", "missing")
    assert names(here) == ["text"]


def test_a_profile_travels_apart(calibrated, here):
    encode = ["encode", CLIP, "--frames", 3, *RANDOM, "--profile", calibrated]
    succeed(*encode, "-o", "carried.lmc", "--report", "carried.json")
    succeed(*encode, "-o", "apart.lmc", "--report", "apart.json", "--profile-apart")
    carried, apart = (json.loads(Path(f"{name}.json").read_text()) for name in ("carried", "apart"))
    name = Profile.load(calibrated).hash.hex()
    assert carried["profile"] == f"{name}, embedded"
    assert apart["profile"] == f"{name}, apart"
    assert apart["bytes_header_profile"] == 0
    assert apart["profile_bytes_apart"] == carried["bytes_header_profile"]
    saved = carried["bytes"] - apart["bytes"]
    assert 0 <= saved - apart["profile_bytes_apart"] <= 4  # an index of smaller offsets
    assert Path("apart.lmc").stat().st_size == apart["bytes"]
    assert apart["frame_md5"] == carried["frame_md5"]
    given = ["--profile", calibrated]
    for stream in ("apart.lmc", "carried.lmc"):  # given though carried: it is the same
        assert succeed("decode", stream, "--md5", *given).stdout.split()[::2] == apart["frame_md5"]
    printed = succeed("inspect", "apart.lmc", *given).stdout
    assert f"{name}, travels apart, {apart['profile_bytes_apart']} bytes" in printed
    content = json.loads(succeed("inspect", "apart.lmc", "--json", *given).stdout)
    assert content["bytes"] == apart["bytes"]
    # through pipes, and the task too
    stream = succeed(*encode, "-o", "-", "--profile-apart").stdout_bytes
    assert stream == Path("apart.lmc").read_bytes()
    result = succeed("decode", "-", "--task", "-", *given, stdin=stream)
    assert len(json.loads(result.stdout)) == 3


def test_profiles_apart_that_are_missing_or_others(made, calibrated, here):
    encode = ["encode", CLIP, "-o", "x.lmc", "--frames", 1, *RANDOM]
    assert "--profile-apart needs --profile FILE" in fail(*encode, "--profile-apart", code=2)
    succeed(*encode, "--profile", calibrated, "--profile-apart")
    wanted = Profile.load(calibrated).hash.hex()
    other = profile_of_split("blocks.4")
    found = Profile.load(other).hash.hex()
    for command in (["decode", "x.lmc", "--task", "t"], ["inspect", "x.lmc"]):
        message = fail(*command)
        assert f"profile {wanted} is not shipped" in message
        assert "--profile FILE" in message
        message = fail(*command, "--profile", other)
        assert (
            f"the profile given has hash {found}, the stream was written with {wanted}" in message
        )
        assert "missing: no such file" in fail(*command, "--profile", "missing")
        assert "x.lmc: not a profile" in fail(*command, "--profile", "x.lmc")
    # of a stream that names a shipped one, another is refused as well
    assert f"written with {found}" in fail("decode", made / "clip.lmc", "--profile", calibrated)
    succeed("decode", made / "clip.lmc", "--profile", other)
    shutil.copy(calibrated, "p")
    message = fail("decode", "x.lmc", "-o", "p", "--profile", "p", "--force", code=2)
    assert "--profile 'p'" in message
    assert names(here) == ["p", "x.lmc"]


@pytest.mark.slow
def test_what_cannot_be_calibrated_on(here):
    Path("text.jpg").write_text("no picture")
    Path("p").write_text("mine")
    random = ["--views", 1, "--probes", 1, *RANDOM]
    assert "text.jpg" in fail("calibrate", "text.jpg", "-o", "q", *random)
    assert "missing.jpg: no such file" in fail("calibrate", "missing.jpg", "-o", "q", *random)
    assert "--force" in fail(*CALIBRATE, "-o", "p", *RANDOM)
    assert "SOURCES" in fail("calibrate", "-o", "q", *RANDOM, code=2)
    assert "--split" in fail(*CALIBRATE, "-o", "q", "--model", "resnet18", code=2)
    assert names(here) == ["p", "text.jpg"]
    Path("q.partial").write_text("mine too")
    assert "q.partial: exists" in fail(*CALIBRATE, "-o", "q", *RANDOM)
    assert Path("q.partial").read_text() == "mine too"
    succeed(*CALIBRATE, "-o", "q", *RANDOM, "--force")
    assert names(here) == ["p", "q", "text.jpg"]


# --- limits ---------------------------------------------------------------------------------------


def allowed(*command: object, limits: dict[str, int]) -> dict[str, int]:
    """Run a command under bounds, raise what its errors say, and return what was enough."""
    limits = dict(limits)
    for _ in range(20):
        words = [word for name in limits for word in ("--limits", f"{name}={limits[name]}")]
        result = lmc(*command, *words)
        if result.exit_code == 0:
            return limits
        assert result.stderr.startswith("lmc: "), result.output
        assert result.stderr.count("\n") == 1
        (name, number), (_, in_library) = re.findall(r"(\w+)=(\d+)", result.stderr)
        assert int(number) == int(in_library) > limits[name]
        limits[name] = int(number)
    raise AssertionError(limits)


@pytest.mark.slow
def test_errors_say_which_limit_will_do(made, calibrated, here):
    least = {field.name: 0 for field in fields(codec.Limits)}
    stream = made / "clip.lmc"
    enough = allowed("inspect", stream, limits=least)
    assert enough["elements"] == ELEMENTS
    assert enough["input_pixels"] == 224 * 224
    assert enough["tensors"] == 1
    assert enough["profile_bytes"] == 0
    # seeking reads the index
    enough = allowed("decode", stream, "--frames", "4:5", limits=enough)
    assert enough["index_entries"] == 2
    encode = ["encode", CLIP, "-o", "x.lmc", "--frames", 1, *RANDOM, "--profile", calibrated]
    enough = allowed(*encode, "--force", limits=least)
    assert enough["profile_bytes"] > 100_000
    joined = ",".join(f"{name}={value}" for name, value in enough.items())
    succeed("decode", "x.lmc", "--limits", joined)


def test_too_much_is_refused_before_the_network_runs(calibrated, here, monkeypatch):
    monkeypatch.setattr(EdgeSource, "features", lambda *_: pytest.fail("the network runs"))
    encode = ["encode", CLIP, "-o", "x.lmc", *RANDOM]
    for more in ([], ["--profile", calibrated]):
        message = fail(*encode, *more, "--limits", "elements=1000")
        assert "resnet18 at add: elements: 200704 in the stream, limit 1000" in message
        assert "pass --limits elements=200704" in message
        assert "to decoders too" in message
    assert "header_bytes=" in fail(*encode, "--profile", calibrated, "--limits", "header_bytes=999")
    assert "vectors=784" in fail(*encode, "--grid", 8, "--limits", "vectors=700")
    assert names(here) == []


@pytest.mark.slow
def test_packets_that_decoders_would_refuse_are_not_written(here):
    message = fail("encode", CLIP, "-o", "x.lmc", *RANDOM, "--limits", "packet_bytes=99")
    assert "packet bytes: " in message
    assert names(here) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("memory=5", "'memory' is none of header_bytes, profile_bytes"),
        ("elements", "'elements' is not elements=NUMBER"),
        ("elements=", "'elements=' is not elements=NUMBER"),
        ("elements=-1", "'elements=-1' is not"),
        ("elements=1e9", "'elements=1e9' is not"),
        ("elements=" + "9" * 5000, "is not elements=NUMBER"),
        ("elements=5,elements=6", "elements is given twice"),
        ("elements=5,", "'' is none of"),
        ("", "'' is none of"),
    ],
)
def test_limits_that_are_none(value, message, made):
    assert message in fail("inspect", made / "clip.lmc", "--limits", value, code=2)


# --- inspect and models ---------------------------------------------------------------------------


def test_inspect_adds_up(made, report):
    found = json.loads(succeed("inspect", made / "clip.lmc", "--json").stdout)
    size = (made / "clip.lmc").stat().st_size
    assert found["bytes"] == size
    frames = found["frames"]
    assert found["bytes_header"] + sum(f["bytes"] for f in frames) + found["bytes_end"] == size
    assert [frame["type"] for frame in frames] == ["key", "inter", "inter"] * 2
    for frame in frames:
        payload = frame["bytes"] - frame["bytes_framing"]
        assert sum(frame["bits"].values()) / 8 <= payload + 1
        assert payload <= sum(frame["bits"].values()) / 8 + 9
        assert sum(frame["blocks"].values()) > 0
        assert frame["type"] == "key" or frame["bytes_framing"] <= 10
    framing = found["bytes_end"] + sum(frame["bytes_framing"] for frame in frames)
    assert framing == report["bytes_framing"]


def test_inspect_prints_every_frame(made):
    output = succeed("inspect", made / "clip.lmc").stdout
    assert "efficientnet_lite0" in output
    assert "blocks.4 40x28x28" in output
    assert sum(" inter " in line for line in output.splitlines()) == 4
    assert "key frames: 2, on average" in output


def test_inspect_is_light(made):
    code = (
        "import sys\nfrom codec.cli import main\n"
        f"sys.argv = ['lmc', 'inspect', '--json', {str(made / 'clip.lmc')!r}]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "assert not {'torch', 'torchvision', 'av'} & set(sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert finished.returncode == 0, finished.stderr.decode()


def test_models():
    rows = json.loads(succeed("models", "efficientnet_lite0", "--json").stdout)
    row = next(row for row in rows if row["split"] == "blocks.4")
    assert row["elements"] == 40 * 28 * 28
    assert row["tensors"][0]["shape"] == [40, 28, 28]
    assert row["tensors"][0]["stride"] == [8, 8]
    text = succeed("models", "resnet34").stdout
    assert "add_3 " in text
    assert "128x28x28 /8" in text


def test_models_that_are_transformers_or_no_classifiers():
    assert "768x14x14 /16, 768x1x1 /224" in lmc("models", "vit_b_16").stdout
    rows = json.loads(succeed("models", "ssdlite320_mobilenet_v3_large", "--json").stdout)
    pyramid = next(row for row in rows if row["split"] == "pyramid")
    assert pyramid["tensors"][0]["stride"] == [16, 16]
    assert pyramid["edge_macs"] > 0


# --- errors ---------------------------------------------------------------------------------------


def a_wave(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(1600))


def test_videos_that_are_none(here):
    Path("text.mp4").write_text("not a video\n")
    Path("empty.mp4").touch()
    a_wave(here / "audio.wav")
    before = names(here)
    for source, message in [
        ("missing.mp4", "no such file"),
        (here, "directory"),
        ("text.mp4", "text.mp4"),
        ("empty.mp4", "empty"),
        ("audio.wav", "no video stream"),
    ]:
        assert message in fail("encode", source, "-o", "x.lmc", *RANDOM)
    assert "video" in fail("encode", "-", "-o", "x.lmc", *RANDOM, stdin=b"")
    assert names(here) == before


def test_damaged_video_leaves_nothing(here):
    Path("cut.mp4").write_bytes(CLIP.read_bytes()[:2000])
    fail("encode", "cut.mp4", "-o", "x.lmc", *RANDOM)
    assert names(here) == ["cut.mp4"]


def test_outputs(made, here):
    Path("x.lmc").write_bytes(b"mine")
    assert "--force" in fail("encode", CLIP, "-o", "x.lmc")
    assert "no folder" in fail("encode", CLIP, "-o", "no/x.lmc")
    assert "directory" in fail("encode", CLIP, "-o", here)
    assert "--force" in fail("encode", CLIP, "-o", "y.lmc", "--report", "x.lmc")
    assert "--force" in fail("decode", made / "clip.lmc", "-o", "x.lmc")
    assert "no folder" in fail("decode", made / "clip.lmc", "--task", "no/x.json")
    assert Path("x.lmc").read_bytes() == b"mine"
    succeed("encode", CLIP, "-o", "x.lmc", "--frames", 1, *RANDOM, "--force")
    assert len(list(StreamReader(io.BytesIO(Path("x.lmc").read_bytes())))) == 1
    assert names(here) == ["x.lmc"]


def test_two_outputs_of_one_name(made, here):
    same = here / "." / "x"
    assert "both name" in fail("encode", CLIP, "-o", "x", "--report", same, code=2)
    assert "both name" in fail("decode", made / "clip.lmc", "-o", "-", "--task", "-", code=2)
    assert "--md5" in fail("decode", made / "clip.lmc", "-o", "-", "--md5", code=2)


@pytest.mark.parametrize(
    ("error", "code"), [(OSError(28, "No space left on device"), 1), (KeyboardInterrupt(), 130)]
)
def test_an_interrupted_run_leaves_nothing(here, monkeypatch, error, code):
    original = encoder.Encoder.encode

    def interrupted(self: Any, *arguments: Any, **options: Any) -> Any:
        if self._kept[0] is not None:
            raise error
        return original(self, *arguments, **options)

    monkeypatch.setattr(encoder.Encoder, "encode", interrupted)
    result = lmc("encode", CLIP, "-o", "x.lmc", "--report", "r.json", "--frames", 3, *RANDOM)
    assert result.exit_code == code
    if isinstance(error, OSError):
        assert result.stderr == "lmc: no space left on device\n"
    assert names(here) == []


def test_models_and_splits_that_are_none(here):
    arguments = ["encode", CLIP, "-o", "x.lmc"]
    assert "resnet34" in fail(*arguments, "--model", "resnet43", "--split", "add_3")
    assert "blocks.4" in fail(*arguments, "--split", "block.4")
    assert "lmc models" in fail("models", "nothing")
    assert "lmc models resnet34" in fail(*arguments, "--model", "resnet34", code=2)
    assert names(here) == []


def test_weights_that_are_none(here):
    Path("text.txt").write_text("weights\n")
    Path("bad.pth").write_bytes(b"weights")
    Path("bad.safetensors").write_bytes(b"weights")
    before = names(here)
    arguments = ["encode", CLIP, "-o", "x.lmc", "--weights"]
    for weights in ("text.txt", "bad.pth", "bad.safetensors", "missing.pth", "random:x"):
        assert weights in fail(*arguments, weights)
    assert names(here) == before


@pytest.mark.parametrize("value", ["", "x", "0", "-1", "5:5", "5:3", "1:2:3", "-2:4"])
def test_ranges_that_are_none(value, here):
    fail("encode", CLIP, "-o", "x.lmc", f"--frames={value}", code=2)


def test_ranges_outside(made, here):
    assert "64 frames" in fail("encode", CLIP, "-o", "x.lmc", "--frames", "64:", *RANDOM)
    message = fail("decode", made / "clip.lmc", "-o", "x.npz", "--frames", "6:")
    assert "has only 6 frames, so there is no frame 6" in message
    assert names(here) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [("qp", 52), ("qp", -1), ("keyint", 0), ("grid", 3), ("search-range", 0), ("motion", "x")],
)
def test_options_outside_their_ranges(option, value, here):
    assert f"--{option}" in fail("encode", CLIP, "-o", "x.lmc", f"--{option}={value}", code=2)


@pytest.mark.parametrize("device", ["meta", "banana", "cuda:99", ""])
def test_devices_that_are_none(device, made, here):
    assert "cannot be used here" in fail("decode", made / "clip.lmc", "--device", device, code=2)
    assert "--device" in fail("encode", CLIP, "-o", "x.lmc", "--device", device, code=2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_no_cuda(here):
    assert "'cuda' cannot be used here" in fail(
        "encode", CLIP, "-o", "x.lmc", "--device", "cuda", code=2
    )


def test_streams_that_are_none(here):
    Path("empty.lmc").touch()
    for command in ("inspect", "decode"):
        assert "not a latent-motion stream" in fail(command, CLIP)
        assert "ends within the sequence header" in fail(command, "empty.lmc")
        assert "missing.lmc: no such file" in fail(command, "missing.lmc")
        assert "directory" in fail(command, here)
        assert "ends within the sequence header" in fail(command, "-", stdin=b"")


def test_damaged_streams_leave_nothing(made, here):
    stream = (made / "clip.lmc").read_bytes()
    header = StreamReader(io.BytesIO(stream)).header_bytes
    for length in (7, header - 1, header, header + 30, len(stream) - 1):
        Path("bad.lmc").write_bytes(stream[:length])
        told("inspect", "bad.lmc")
        told("decode", "bad.lmc", "-o", "x.npz", "--md5")
        fail("decode", "-", "-o", "x.npz", stdin=stream[:length])
    for place in (0, 8, header - 2, header, header + 30, len(stream) - 20, len(stream) - 3):
        damaged = bytearray(stream)
        damaged[place] ^= 0x10
        Path("bad.lmc").write_bytes(damaged)
        told("inspect", "bad.lmc")
        fail("decode", "bad.lmc", "-o", "x.npz")
    assert names(here) == ["bad.lmc"]


# --- files that must not be lost ------------------------------------------------------------------


def aliases(path: Path) -> list[Path]:
    """Return other names of a file in the working folder."""
    hard, soft = Path("hard"), Path("soft")
    hard.hardlink_to(path)
    soft.symlink_to(path)
    return [path, hard, soft, Path("..") / path.absolute().parent.name / path]


def test_outputs_that_are_inputs(made, calibrated, here):
    shutil.copy(made / "clip.lmc", "mine")
    before = Path("mine").read_bytes()
    other = ["-o", "out", "-f"]
    for alias in aliases(Path("mine")):
        for arguments in (
            ["encode", "mine", "-o", alias],
            ["encode", "mine", "-o", "out", "--report", alias],
            ["encode", CLIP, "-o", alias, "--profile", "mine"],
            ["encode", CLIP, "-o", alias, "--weights", "mine"],
            ["calibrate", CLIP, "mine", "-o", alias],
            ["calibrate", CLIP, "-o", alias, "--weights", "mine"],
            ["decode", "mine", "-o", alias],
            ["decode", "mine", *other, "--task", alias],
            ["decode", CLIP, *other, "--task", alias, "--reference", "mine"],
            ["decode", CLIP, *other, "--task", alias, "--weights", "mine"],
        ):
            message = fail(*arguments, "-f", code=2)
            assert "is the same file as" in message, arguments
            assert str(alias) in message
    Path("p.partial").hardlink_to("mine")
    assert "'p.partial'" in fail("calibrate", "mine", "-o", "p", "-f", code=2)
    assert Path("mine").read_bytes() == before
    assert names(here) == ["hard", "mine", "p.partial", "soft"]


@pytest.mark.slow
def test_redirections_that_are_files_of_the_command(made, here):
    shutil.copy(made / "clip.lmc", "mine")
    before = Path("mine").read_bytes()
    for arguments in (["decode", "-", "-o", "mine", "-f"], ["encode", "-", "-o", "mine", "-f"]):
        with open("mine", "rb") as file:  # noqa: PTH123 - a redirection
            finished = subprocess.run([*LMC, *arguments], stdin=file, capture_output=True)  # noqa: PLW1510
        assert finished.returncode == 2
        assert b"from standard input" in finished.stderr
    for arguments in (["encode", "mine", "-o", "-"], ["inspect", "mine"], ["decode", "mine"]):
        with open("mine", "ab") as file:  # noqa: PTH123 - as above
            finished = subprocess.run([*LMC, *arguments], stdout=file, stderr=subprocess.PIPE)  # noqa: PLW1510
        assert finished.returncode == 2
        assert b"standard output is the same file as" in finished.stderr
    assert Path("mine").read_bytes() == before


def test_two_outputs_that_are_one_file_by_links(made, here):
    Path("a").touch()
    Path("b").hardlink_to("a")
    Path("c").symlink_to("missing")
    Path("d").symlink_to("missing")
    for one, other in ("ab", "cd"):
        arguments = ["decode", made / "clip.lmc", "-o", one, "--task", other, "-f"]
        assert "both name" in fail(*arguments, code=2)
    # a device takes whatever it is given
    succeed("decode", made / "clip.lmc", "-o", "/dev/null", "--task", "/dev/null")


def test_names_that_are_none(made, here):
    stream = made / "clip.lmc"
    assert "NUL" in fail("decode", "a\0b", code=2)
    assert "NUL" in fail("encode", CLIP, "-o", "x", "--profile", "a\0b", code=2)
    Path("loop").symlink_to("loop")
    Path("file").touch()
    for output, message in [
        ("loop", "symbolic links"),
        ("new/", "directory"),
        ("", "directory"),
        ("file/x", "no folder"),
        ("x" * 256, "name too long"),
    ]:
        assert message in fail("decode", stream, "-o", output, "-f")
        assert message in fail("encode", CLIP, "-o", output, "-f", *RANDOM)
        assert message in fail("calibrate", CLIP, "-o", output, "-f", *RANDOM)
    odd = os.fsdecode(b"\xff.npz")
    succeed("decode", stream, "-o", odd)
    assert "udcff" in fail("inspect", os.fsdecode(b"\xff.lmc"))
    assert names(here) == sorted(["file", "loop", odd])


def test_files_of_the_wrong_kind(made, here):
    succeed("decode", made / "clip.lmc", "-o", "x.npz", "--frames", 1)
    for command in ("decode", "inspect"):
        for path in (CLIP, "x.npz", "/dev/null", "/dev/zero", made / "report.json", ""):
            fail(command, path)
    for path in (made / "clip.lmc", "x.npz", "/dev/null", made / "report.json", here):
        fail("encode", path, "-o", "y", *RANDOM)
    assert names(here) == ["x.npz"]


# --- streams that are cut or damaged --------------------------------------------------------------


@pytest.fixture
def broken(made: Path, here: Path) -> dict[str, bytes]:
    """Streams of which the first three frames, or all, are whole: what is wrong -> the stream."""
    stream = (made / "clip.lmc").read_bytes()
    reader = StreamReader(io.BytesIO(stream))
    ends = [reader.header_bytes, *(reader.bytes_read for _ in reader)]
    damaged, index = bytearray(stream), bytearray(stream)
    damaged[ends[3] + 200] ^= 1
    index[-9] ^= 1
    return {
        "cut in a packet": stream[: ends[4] - 1],
        "cut between packets": stream[: ends[3]],
        "damaged": bytes(damaged),
        "damaged index": bytes(index),
        "no index": stream[: ends[6]],
    }


def test_what_is_whole_comes_before_the_error(broken, report):
    lines = [f"{digest}  {number}" for number, digest in enumerate(report["frame_md5"])]
    for what, stream in broken.items():
        whole = 6 if "index" in what else 3
        Path("bad").write_bytes(stream)
        by_name = told("decode", "bad", "--md5")
        by_pipe = told("decode", "-", "--md5", stdin=stream)
        assert by_name.stdout.splitlines() == by_pipe.stdout.splitlines() == lines[:whole], what
        assert by_name.stderr == by_pipe.stderr
        part = told("decode", "bad", "--md5", "--frames", "1:")
        assert part.stdout.splitlines() == lines[1:whole], what
        assert (
            succeed("decode", "bad", "--md5", "--frames", "1:3").stdout.split("\n")[:-1]
            == (lines[1:3])
        )
        printed = told("inspect", "bad")
        assert sum(" inter " in line for line in printed.stdout.splitlines()) == whole // 3 * 2
        found = json.loads(told("inspect", "bad", "--json").stdout)
        assert len(found["frames"]) == whole
        assert f"lmc: {found['error']}\n" == by_name.stderr == printed.stderr
        assert found["bytes_end"] == 0


@pytest.mark.slow
def test_salvage(made, broken, here):
    outputs = ["-o", "x.npz", "--task", "t.json"]
    for what, stream in broken.items():
        whole = 6 if "index" in what else 3
        Path("bad").write_bytes(stream)
        message = fail("decode", "bad", *outputs)
        assert f"--salvage keeps the {whole} frames before that" in message
        assert names(here) == ["bad"]
        result = told("decode", "bad", *outputs, "--salvage")
        assert result.stdout == f"{whole} frames: blocks.4 40x28x28\n"
        assert result.stderr == told("decode", "bad").stderr
        with np.load("x.npz") as loaded:
            assert loaded["pts"].tolist() == [512 * number for number in range(whole)]
        assert len(json.loads(Path("t.json").read_text())) == whole
        Path("x.npz").unlink()
        Path("t.json").unlink()
    header = StreamReader(io.BytesIO(broken["damaged"])).header_bytes
    Path("bad").write_bytes(broken["damaged"][:header])
    assert "packet 0" in fail("decode", "bad", *outputs, "--salvage")
    assert names(here) == ["bad"]
    Path("bad").unlink()
    succeed("decode", made / "clip.lmc", "-o", "x.npz", "--salvage")


# --- pipes and processes --------------------------------------------------------------------------


@pytest.mark.slow
def test_pipes(here):
    options = ["--frames", FRAMES, "--split", "blocks.4"]
    encoded = run("encode", "-", "-o", "-", *options, stdin=CLIP.read_bytes())
    assert encoded.returncode == 0, encoded.stderr.decode()
    assert b"kbit_per_s" in encoded.stderr
    decoded = run("decode", "-", "-o", "-", stdin=encoded.stdout)
    assert decoded.returncode == 0
    assert decoded.stderr == b"6 frames: blocks.4 40x28x28\n"
    with np.load(io.BytesIO(decoded.stdout)) as loaded:
        assert loaded["blocks.4"].shape[0] == FRAMES


def test_errors_of_a_process_are_one_line(here):
    for arguments in (
        ["encode", "missing.mp4", "-o", "x.lmc", "--frames", "2"],
        ["inspect", "missing.lmc"],
    ):
        finished = run(*arguments)
        assert finished.returncode == 1
        assert finished.stdout == b""
        assert finished.stderr.count(b"\n") == 1
        assert finished.stderr.startswith(b"lmc: missing")


def test_a_reader_that_leaves_early_is_no_error_message(made):
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("no bash")
    words = f"'{sys.executable}' -m codec inspect '{made / 'clip.lmc'}' --json | head -c 1"
    finished = subprocess.run([shell, "-c", words], capture_output=True, check=False)
    assert finished.stdout == b"{"
    assert finished.stderr == b""


@pytest.mark.parametrize("command", ["", "encode", "decode", "calibrate", "inspect", "models"])
def test_help_explains_every_option(command):
    result = succeed(*command.split(), "--help")
    parameters = cli.main.commands[command].params if command else []
    for parameter in parameters:
        if parameter.param_type_name == "option":
            assert parameter.opts[-1] in result.stdout
            assert parameter.help, parameter.name


@pytest.mark.slow
def test_a_full_disk_is_told_with_the_name(made, here):
    stream = made / "clip.lmc"
    for arguments in (
        ["decode", stream, "-o", "/dev/full"],
        ["decode", stream, "--task", "/dev/full"],
        ["encode", CLIP, "-o", "/dev/full", "--frames", 1, *RANDOM],
        ["encode", CLIP, "-o", "/dev/null", "--report", "/dev/full", "--frames", 1, *RANDOM],
    ):
        assert fail(*arguments) == "lmc: /dev/full: no space left on device\n"
    for arguments in (
        ["--help"],
        ["decode", stream, "--md5"],
        ["decode", stream, "-o", "-"],
        ["inspect", stream],
    ):
        with Path("/dev/full").open("wb") as full:
            finished = subprocess.run(
                [*LMC, *map(str, arguments)], stdout=full, stderr=subprocess.PIPE, check=False
            )
        assert finished.returncode == 1
        assert finished.stderr == b"lmc: standard output: no space left on device\n"
    assert names(here) == []


@pytest.mark.slow
def test_a_quota_is_told_with_the_name_of_the_output(made, here):
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    for arguments, name in (
        (["decode", made / "clip.lmc", "-o", "x.npz"], "x.npz"),
        (["encode", CLIP, "-o", "x.lmc", "--frames", "1", "--split", "blocks.4", "-q"], "x.lmc"),
        ([*CALIBRATE, "-o", "p", *RANDOM], "p.partial"),
    ):
        finished = subprocess.run(
            [*LMC, *map(str, arguments)], capture_output=True, preexec_fn=limited, check=False
        )
        assert finished.returncode == 1
        assert finished.stderr.decode() == f"lmc: {name}: file too large\n"
    assert names(here) == []


@pytest.mark.slow
def test_streams_that_are_closed(made, here):
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("no bash")
    for words, message in [
        ("decode - <&-", b"standard input: is closed"),
        ("encode - -o x <&-", b"standard input: is closed"),
        (f"decode '{made / 'clip.lmc'}' -o - >&-", b"standard output: is closed"),
    ]:
        line = f"'{sys.executable}' -m codec {words}"
        finished = subprocess.run([shell, "-c", line], capture_output=True, check=False)
        assert finished.returncode == 1
        assert finished.stderr == b"lmc: " + message + b"\n"


@pytest.mark.slow
def test_terminals_are_no_place_for_bytes(made, here):
    controller, terminal = os.openpty()
    try:
        for arguments in (["decode", made / "clip.lmc", "-o", "-"], ["decode", "-"]):
            finished = subprocess.run(
                [*LMC, *map(str, arguments)],
                stdin=terminal,
                stdout=terminal,
                stderr=subprocess.PIPE,
                check=False,
                timeout=60,
            )
            assert finished.returncode == 2
            assert b"is a terminal" in finished.stderr
    finally:
        os.close(controller)
        os.close(terminal)


WAITING = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells ignore in the background
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and nohup this
import codec
from codec import cli
from codec.encoding import encoder

def waiting(*_, **__):
    print("ready", flush=True)
    {wait}

encoder.Encoder.encode = waiting
sys.argv[1:] = {arguments!r}
cli.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_signals_leave_nothing(here, name):
    arguments = ["encode", str(CLIP), "-o", "x.lmc", "--report", "r", "--frames", "1", *RANDOM]
    # a call into C that knows nothing of Python's signals: the GIL is free, the handlers wait
    wait = "import ctypes; ctypes.CDLL(None).pause(); time.sleep(60); ctypes.CDLL(None).sleep(60)"
    code = WAITING.format(wait=wait, arguments=arguments)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        assert any(path.name.startswith(".lmc-") for path in here.iterdir())
        running.send_signal(getattr(signal, name))
        try:
            _, errors = running.communicate(timeout=60)
        finally:
            running.kill()
    assert running.returncode == 128 + getattr(signal, name)
    assert errors.decode() == f"lmc: ended by {name}\n"
    assert names(here) == []


@pytest.mark.slow
def test_a_damaged_video_stops_or_is_skipped_and_told_of(tmp_path: Path) -> None:
    clip, stream, report = (tmp_path / name for name in ("clip.mkv", "clip.lmc", "report.json"))
    write_video(
        clip, moving(30, (1, 1)), codec="mpeg4", pixel_format="yuv420p", options={"g": "10"}
    )
    whole = clip.read_bytes()
    with av.open(str(clip)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0)]
    place = whole.index(packets[13]) + 8
    clip.write_bytes(whole[:place] + bytes([85] * 40) + whole[place + 40 :])

    said = fail("encode", clip, "-o", stream, *RANDOM)
    assert "cannot be decoded at frame 13 (" in said
    assert "--damaged skip" in said
    assert not stream.exists()

    result = succeed("encode", clip, "-o", stream, "--damaged", "skip", "--report", report, *RANDOM)
    assert result.stderr == f"lmc: warning: {clip}: 1 damaged place, 7 frames lost\n"
    found = json.loads(report.read_text())
    assert (found["frames"], found["source_damage"], found["source_frames_lost"]) == (23, 1, 7)
    # the reference is read as the encoder read it
    assert succeed("decode", stream, "--reference", clip, "-q").stdout.startswith("nrmse ")
