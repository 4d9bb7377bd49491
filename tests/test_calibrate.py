"""`lmc calibrate` of a network of one's own, from a file, as `lmc encode` takes it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from networks import BrightMap

from codec.cli.group import main
from codec.format.profile import Profile

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
SPLIT = "relu+relu_1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with net.pt2, input.toml, mask.toml, whole.toml and two photographs."""
    path = tmp_path_factory.mktemp("network")
    torch.manual_seed(0)
    size = torch.export.Dim("height", min=16, max=512), torch.export.Dim("width", min=16, max=512)
    program = torch.export.export(
        BrightMap().eval(),
        (torch.zeros(1, 3, 64, 96),),
        dynamic_shapes=({2: 4 * size[0], 3: 4 * size[1]},),
    )
    torch.export.save(program, path / "net.pt2")
    (path / "input.toml").write_text(PREPROCESSING)
    whole = PREPROCESSING.replace("letterbox", "none").replace(
        "size = [64, 96]", "pad_multiple = 4"
    )
    (path / "whole.toml").write_text(whole)
    (path / "mask.toml").write_text(MASK)
    for name, (width, height) in {"a.ppm": (100, 60), "b.ppm": (72, 90)}.items():
        pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
        head = b"P6 %d %d 255\n" % (width, height)
        (path / name).write_bytes(head + pixels.tobytes())
    return path


def lmc(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout if code == 0 else result.stderr


def options(folder: Path, preprocessing: str = "input.toml") -> list[object]:
    known = ["--preprocessing", folder / preprocessing, "--task", folder / "mask.toml"]
    return ["--model", folder / "net.pt2", "--split", SPLIT, *known]


@pytest.mark.slow
@pytest.mark.parametrize("preprocessing", ["input.toml", "whole.toml"])
def test_several_tensors_of_a_file_by_their_task(folder, tmp_path, preprocessing):
    made = tmp_path / "p.safetensors"
    sources = [folder / "a.ppm", folder / "b.ppm"]
    few = ["--views", 2, "--probes", 2]
    asked = options(folder, preprocessing)
    report = lmc("calibrate", *sources, "-o", made, *asked, *few)
    assert "distortion_at_qp_28" in report
    assert "not predicted: too few inputs: 2, and 5 or more tell where errors cost" in report
    profile = Profile.load(made)
    assert [tensor.channels for tensor in profile.tensors] == [6, 8]
    assert all(tensor.bands[0].matrix.ndim == 2 for tensor in profile.tensors)
    lmc("calibrate", *sources, "-o", tmp_path / "again", *asked, *few, "-q")
    assert (tmp_path / "again").read_bytes() == made.read_bytes()
    lmc("calibrate", *sources, "-o", tmp_path / "other", *asked[:-2], *few, "-q")
    assert Profile.load(tmp_path / "other") != profile


def test_the_profile_is_encoded_with(folder, tmp_path):
    made, asked = tmp_path / "p.safetensors", options(folder)
    lmc("calibrate", CLIP, "-o", made, *asked, "--views", 2, "--probes", 2, "-q")
    stream, report = tmp_path / "s.lmc", tmp_path / "r.json"
    encode = ["encode", CLIP, "-o", stream, *asked, "--frames", 2, "--report", report, "-q"]
    lmc(*encode, "--evaluate", "--profile", made)
    found = json.loads(report.read_text())
    assert found["bytes_header_profile"] > 1000
    assert found["distortion"] < 0.1
    md5 = lmc("decode", stream, "--md5").split()[::2]
    assert md5 == found["frame_md5"]


def test_importance_goes_from_photographs_to_the_blocks_of_a_stream(folder, tmp_path):
    """Where a map is saturated errors cost nothing: calibrate, the file, encode, inspect."""
    torch.manual_seed(0)
    network = BrightMap(gain=60).eval()
    torch.export.save(
        torch.export.export(network, (torch.zeros(1, 3, 64, 96),)), tmp_path / "n.pt2"
    )
    rng, photographs = np.random.default_rng(0), []
    for number in range(6):
        coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 4, 6)).astype(np.float32))
        pixels = torch.nn.functional.interpolate(coarse, (64, 96), mode="bicubic").clamp(0, 255)
        photographs.append(tmp_path / f"{number}.ppm")
        content = pixels[0].permute(1, 2, 0).to(torch.uint8).numpy().tobytes()
        photographs[-1].write_bytes(b"P6 96 64 255\n" + content)
    made, stream = tmp_path / "p.safetensors", tmp_path / "s.lmc"
    asked = ["--model", tmp_path / "n.pt2", *options(folder)[2:]]
    found = lmc("calibrate", *photographs, "-o", made, *asked, "--views", 1, "--probes", 1)
    assert "predicted: its logarithm deviates by" in found
    profile = Profile.load(made)
    assert profile.importance is not None

    def offset_bits(path: Path, *more: object) -> float:
        encode = ["encode", CLIP, "-o", stream, *asked, "--frames", 2, "-q", "--force"]
        lmc(*encode, "--profile", path, *more)
        content = json.loads(lmc("inspect", stream, "--json", "--profile", path))
        assert content["header"]["importance"] == (
            f"{Profile.load(path).provenance['importance']} (by the profile given)"
        )
        return content["frames"][0]["bits"].get("offsets", 0)

    assert offset_bits(made) > 10
    assert offset_bits(made, "--target-nrmse", 0.05) == 0
    plain = tmp_path / "plain.safetensors"
    said = profile.provenance | {"importance": "not predicted: left out"}
    replace(profile, importance=None, provenance=said).save(plain)
    assert offset_bits(plain) == 0
    assert "importance" not in json.loads(lmc("inspect", stream, "--json"))["header"]


def test_what_is_no_task_or_preprocessing(folder, tmp_path):
    calibrate = ["calibrate", folder / "a.ppm", "-o", tmp_path / "p", "--model", folder / "net.pt2"]
    calibrate += ["--split", SPLIT]
    assert "say it in a TOML file" in lmc(*calibrate, code=1)
    known = ["--preprocessing", folder / "input.toml"]
    assert "no.toml: " in lmc(*calibrate, *known, "--task", folder / "no.toml", code=1)
    assert "expects one dict" in lmc(*calibrate, *known, "--task", "detection", code=1)
