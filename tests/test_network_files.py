"""A network of one's own, from a file, through the command line: encoded, finished, drawn."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import av
import pytest
import torch
from click.testing import CliRunner
from networks import BrightMap

from codec.cli.group import main
from codec.errors import ModelError
from codec.files.streams import StreamReader
from codec.pipeline.decoding import model_of

pytestmark = pytest.mark.video

CLIP = Path(__file__).resolve().parents[1] / "bitstreams" / "clip" / "car_24.mp4"
PREPROCESSING = """
resize = "letterbox"
size = [64, 96]
channels = "BGR"
mean = [110, 115, 120]
scale = [60, 60, 60]
"""
MASK = """
task = "segmentation"
activation = "none"
threshold = 0.5
labels = ["rest", "bright"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with net.pt2, other.pt2, input.toml and mask.toml."""
    path = tmp_path_factory.mktemp("network")
    for seed, name in enumerate(("net", "other")):
        torch.manual_seed(seed)
        program = torch.export.export(BrightMap().eval(), (torch.zeros(1, 3, 64, 96),))
        torch.export.save(program, path / f"{name}.pt2")
    (path / "input.toml").write_text(PREPROCESSING)
    (path / "mask.toml").write_text(MASK)
    return path


def lmc(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout if code == 0 else result.stderr


@pytest.fixture(scope="module")
def stream(folder: Path) -> Path:
    made = folder / "clip.lmc"
    options = ["--preprocessing", folder / "input.toml", "--task", folder / "mask.toml"]
    options += ["--frames", 4, "--evaluate", "--report", folder / "report.json", "-q"]
    split = "relu+relu_1"
    lmc("encode", CLIP, "-o", made, "--model", folder / "net.pt2", "--split", split, *options)
    return made


def test_the_stream_says_what_it_is_of(folder, stream):
    with stream.open("rb") as file:
        header = StreamReader(file).header
    assert header.model.startswith("net.pt2@")
    assert header.split == "relu+relu_1"
    assert json.loads(header.task)["task"] == "segmentation"
    assert header.preprocessing is not None
    assert header.preprocessing.input_size == (64, 96)
    assert header.preprocessing.bgr
    assert [spec.shape for spec in header.tensors] == [(6, 32, 48), (8, 16, 24)]
    assert [(spec.stride_y, spec.stride_x) for spec in header.tensors] == [(2, 2), (4, 4)]
    report = json.loads((folder / "report.json").read_text())
    assert report["model"] == header.model
    assert report["miou"] > 0.9
    assert 0 <= report["distortion"] < 0.01


def test_the_task_is_finished_with_the_file_of_the_stream(folder, stream):
    results = folder / "masks.json"
    lmc("decode", stream, "--model", folder / "net.pt2", "--task", results, "-q")
    assert results.stat().st_size > 2
    report = json.loads((folder / "report.json").read_text())
    found = lmc("decode", stream, "--model", folder / "net.pt2", "--reference", CLIP, "--frames", 4)
    assert float(found.split()[1]) == report["nrmse"]
    assert "pass it with --model FILE" in lmc("decode", stream, "--task", "-", code=1)
    other = lmc("decode", stream, "--model", folder / "other.pt2", "--task", "-", code=1)
    assert "not of other.pt2@" in other


def test_label_maps_are_compared_with(folder, tmp_path):
    image = pytest.importorskip("PIL.Image")
    maps = tmp_path / "maps"
    maps.mkdir()
    for number in (1, 2):
        image.new("L", (384, 216), number - 1).save(maps / f"{number:04}.png")
    report, made = tmp_path / "report.json", tmp_path / "clip.lmc"
    options = ["--model", folder / "net.pt2", "--split", "relu+relu_1", "--frames", 3, "-q"]
    options += ["--preprocessing", folder / "input.toml", "--task", folder / "mask.toml"]
    truth = ["--truth", maps, "--truth-frames", 1]
    lmc("encode", CLIP, "-o", made, *options, "--evaluate", *truth, "--report", report)
    found = json.loads(report.read_text())
    assert found["frames_truth"] == 2
    assert found["pixel_agreement_truth"] == pytest.approx(0.5, abs=0.05)  # all 0, then all 1
    printed = lmc("decode", made, "--model", folder / "net.pt2", *truth, "--source-size", "384x216")
    assert f"{found['miou_truth']:.6g}" in printed


def test_a_network_of_any_size_is_listed_at_one(tmp_path):
    height, width = (4 * torch.export.Dim(name, min=4, max=64) for name in ("rows", "columns"))
    sides = ({2: height, 3: width},)
    program = torch.export.export(
        BrightMap().eval(), (torch.zeros(1, 3, 64, 96),), dynamic_shapes=sides
    )
    path = tmp_path / "any.pt2"
    torch.export.save(program, path)
    assert "lmc models --size" in lmc("models", path, code=1)
    listed = lmc("models", path, "--size", "96x64")
    assert "at 96x64" in listed
    assert "6x32x48 /2" in listed
    assert "is not WxH" in lmc("models", path, "--size", "96", code=2)
    assert "name it" in lmc("models", "--size", "96x64", code=2)


@pytest.mark.parametrize("name", ["net.pt2", "net.onnx"])
def test_what_is_no_file_is_not_waited_for(folder, tmp_path, name):
    path = tmp_path / name
    assert "there is no such file" in lmc("models", path, code=1)
    os.mkfifo(path)
    options = ["--split", "relu", "--preprocessing", folder / "input.toml"]
    for command in (["models", path], ["encode", CLIP, "-o", "-", "--model", path, *options]):
        assert "is no regular file; a pipe cannot be read twice" in lmc(*command, code=1)
    path.unlink()
    path.mkdir()
    assert "is a directory; name a file" in lmc("models", path, code=1)


def test_whole_frames(folder, tmp_path):
    """`--native` is what a file may say itself; it may not say something else."""
    rows, columns = (4 * torch.export.Dim(name, min=4) for name in ("rows", "columns"))
    sides = ({2: rows, 3: columns},)
    model = tmp_path / "any.pt2"
    program = torch.export.export(
        BrightMap().eval(), (torch.zeros(1, 3, 64, 96),), dynamic_shapes=sides
    )
    torch.export.save(program, model)
    whole = tmp_path / "whole.toml"
    whole.write_text('resize = "none"\npad_multiple = 4\nmean = [0, 0, 0]\nscale = [9, 9, 9]\n')
    made = tmp_path / "clip.lmc"
    encode = ["encode", CLIP, "-o", made, "--model", model, "--split", "relu+relu_1", "-q"]
    encode += ["--frames", 1, "--native", "--preprocessing"]
    assert "leave --native out" in lmc(*encode, folder / "input.toml", code=1)
    lmc(*encode, whole)
    with made.open("rb") as file:
        header = StreamReader(file).header
    assert (header.input_height, header.input_width) == (216, 384)
    assert "nrmse" in lmc("decode", made, "--model", model, "--reference", CLIP, "--frames", 1)


def test_a_stream_names_no_file_to_open(folder, stream):
    with stream.open("rb") as file:
        header = StreamReader(file).header
    here = replace(header, model=str(folder / "net.pt2"))
    with pytest.raises(ModelError, match="pass it with --model FILE"):
        model_of(here, weights=None, any_weights=False, device="cpu")


def test_what_both_networks_find_is_drawn(folder, stream):
    pytest.importorskip("PIL", reason="drawing needs the extra `tasks`")
    drawn = folder / "drawn.mp4"
    options = ["--model", folder / "net.pt2", "--reference", CLIP, "-q"]
    lmc("decode", stream, "--draw", drawn, *options)
    with av.open(str(drawn)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 4
    assert (frames[0].width, frames[0].height) == (384, 216)  # the clip's own
    assert "needs the frames of --reference" in lmc("decode", stream, "--draw", drawn, code=2)


def test_what_nothing_is_known_of_is_not_drawn(folder, tmp_path):
    model, made = folder / "net.pt2", tmp_path / "clip.lmc"
    options = ["--preprocessing", folder / "input.toml", "--frames", 1, "-q"]
    lmc("encode", CLIP, "-o", made, "--model", model, "--split", "relu+relu_1", *options)
    drawn = tmp_path / "drawn.mp4"
    told = lmc("decode", made, "--draw", drawn, "--model", model, "--reference", CLIP, "-q", code=1)
    assert "there is nothing to draw; say with --task of encode" in told
    assert not drawn.exists()


def test_what_a_command_reads_is_no_output_of_it(folder, tmp_path):
    for name in ("net.pt2", "input.toml"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "mask.toml").write_text(MASK.replace('["rest", "bright"]', '"names.txt"'))
    (tmp_path / "names.txt").write_text("rest\nbright\n")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    model = ["--model", tmp_path / "net.pt2", "--split", "relu+relu_1"]
    said = ["--preprocessing", tmp_path / "input.toml", "--task", tmp_path / "mask.toml"]
    for name, label in (("net.pt2", "--model"), ("mask.toml", "--task"), ("names.txt", "--task")):
        out = ["-o", tmp_path / name, "-f", "--frames", 1, "-q"]
        told = lmc("encode", CLIP, *out, *model, *said, code=2)
        assert f"is the same file as {label}" in told
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_task_is_no_output_of_decode(folder, stream):
    model = ["--model", folder / "net.pt2", "-q", "-f"]
    before = (folder / "mask.toml").read_bytes()
    for name in (folder / "mask.toml", folder / "new.toml", "segmentation"):
        told = lmc("decode", stream, *model, "--task", name, code=2)
        assert "the task itself is in the stream" in told
    assert (folder / "mask.toml").read_bytes() == before
    assert not (folder / "new.toml").exists()


def test_what_is_salvaged_is_drawn(folder, stream):
    pytest.importorskip("PIL", reason="drawing needs the extra `tasks`")
    cut, drawn = folder / "cut.lmc", folder / "cut.mp4"
    cut.write_bytes(stream.read_bytes()[:-40])  # of the last frame, and the end packet
    options = ["--model", folder / "net.pt2", "--reference", CLIP, "-q", "--salvage"]
    lmc("decode", cut, "--draw", drawn, *options, code=1)
    with av.open(str(drawn)) as container:
        assert len(list(container.decode(video=0))) == 3


def test_what_is_not_said_is_asked_for(folder):
    model = ["--model", folder / "net.pt2", "--split", "relu+relu_1"]
    out = ["encode", CLIP, "-o", folder / "x.lmc", "--frames", 1]
    assert "--preprocessing FILE" in lmc(*out, *model, code=1)
    known = ["--preprocessing", folder / "input.toml"]
    effort = lmc(*out, *model, *known, "--effort", 5, code=1)
    assert "the task of net.pt2@" in effort
    assert "is anything; use effort 4" in effort
    told = lmc(*out, *model, *known, "--task", "guess", code=1)
    assert told.startswith("lmc: guess: ")
    past = lmc(*out, "--model", folder / "net.pt2", "--split", "conv2d_1+relu_1", *known, code=1)
    assert told.count("\n") == past.count("\n") == 1
