"""`--truth`, and places in results, through the command line, with a detector of what is bright."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn
from videos import flat, write_video

from codec.cli.group import main
from codec.files.damage import Damage

pytestmark = pytest.mark.video
pytest.importorskip("pycocotools", reason="what judges boxes is in the extra `tasks`")

WIDTH, HEIGHT, SIDE = 160, 120, 64
FRAMES = 4
INPUT = f"""
resize = "letterbox"
size = [{SIDE}, {SIDE}]
mean = [0, 0, 0]
scale = [255, 255, 255]
"""
TASK = """
task = "detection"
decoder = "distribution"
scores = [0]
boxes = [1]
strides = [8]
bins = 8
activation = "none"
score_threshold = 0.5
nms_iou = 0.5
labels = ["person"]
categories = [1]
"""


class Brightest(nn.Module):
    """A cell of 8 x 8 pixels that is bright is a box of 8 x 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.Conv2d(3, 4, 8, stride=8)
        nn.init.constant_(self.pool.weight, 1 / 192)
        nn.init.zeros_(self.pool.bias)
        self.far = nn.Parameter(torch.tensor([12.0, 12] + 6 * [0.0]).repeat(4))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        scores = torch.relu(self.pool(images))[:, :1].flatten(2).transpose(1, 2)
        return scores, self.far.expand(1, scores.shape[1], 32) + 0 * scores


def lmc(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    if code == 1:
        assert result.stderr.count("\n") == 1
    return result.stdout if code == 0 else result.stderr


def box(number: int) -> list[float]:
    """Where it is bright in a frame: one cell of the input, which shows 2.5 x 2.5 pixels as one."""
    return [20.0 * (number + 2), 40.0, 20.0, 20.0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("truth")
    program = torch.export.export(Brightest().eval(), (torch.zeros(1, 3, SIDE, SIDE),))
    torch.export.save(program, path / "net.pt2")
    (path / "input.toml").write_text(INPUT)
    (path / "task.toml").write_text(TASK)
    pictures = [flat(0, WIDTH, HEIGHT) for _ in range(FRAMES)]
    for number, picture in enumerate(pictures):
        left, top, width, height = (int(side) for side in box(number))
        picture[top : top + height, left : left + width] = 255
    write_video(path / "clip.mkv", pictures)
    (path / "gt.txt").write_text(
        "".join(f"{n + 1},1,{box(n)[0] + 1},{box(n)[1] + 1},20,20,1,1,1\n" for n in range(FRAMES))
    )
    (path / "coco.json").write_text(json.dumps(annotations()))
    return path


def annotations(first: int = 0, width: int = WIDTH) -> dict[str, object]:
    return {
        "images": [
            {"id": 10 + n, "file_name": f"{n + first:06}.png", "width": width, "height": HEIGHT}
            for n in range(FRAMES)
        ],
        "annotations": [
            {"id": n + 1, "image_id": 10 + n, "category_id": 1, "bbox": box(n), "area": 400}
            for n in range(FRAMES)
        ],
        "categories": [{"id": 1, "name": "person"}],
    }


@pytest.fixture
def encode(folder: Path) -> list[object]:
    return [
        *("encode", folder / "clip.mkv", "-q", "-f", "-o", folder / "x.lmc"),
        *("--model", folder / "net.pt2", "--split", "relu", "--qp", 0),
        *("--preprocessing", folder / "input.toml", "--task", folder / "task.toml"),
    ]


@pytest.fixture(scope="module")
def stream(folder: Path) -> Path:
    made = folder / "clip.lmc"
    lmc(
        *("encode", folder / "clip.mkv", "-q", "-o", made, "--report", folder / "report.json"),
        *("--model", folder / "net.pt2", "--split", "relu", "--qp", 0, "--evaluate"),
        *("--preprocessing", folder / "input.toml", "--task", folder / "task.toml"),
        *("--truth", folder / "gt.txt"),
    )
    return made


def test_encoding_reports_both_sides(folder, stream):
    report = json.loads((folder / "report.json").read_text())
    assert report["frames_truth"] == FRAMES
    names = ["ap", "ap50", "ap_truth", "ap50_truth", "ap_truth_uncoded", "ap50_truth_uncoded"]
    assert [report[name] for name in names] == pytest.approx([1] * 6)


@pytest.mark.parametrize("truth", ["gt.txt", "coco.json"])
def test_decoding_prints_what_encoding_reports(folder, stream, truth):
    report = json.loads((folder / "report.json").read_text())
    options = ["--model", folder / "net.pt2", "--truth", folder / truth, "-q"]
    told = lmc("decode", stream, *options, "--reference", folder / "clip.mkv")
    figures = dict(line.split() for line in told.splitlines())
    assert float(figures.pop("nrmse")) == report["nrmse"]
    assert len(figures) == 11
    for name, value in figures.items():
        assert float(value) == pytest.approx(report[name], rel=1e-5)
    told = lmc("decode", stream, *options, "--source-size", f"{WIDTH}x{HEIGHT}")
    assert [line.split()[0] for line in told.splitlines()] == [
        "frames_truth",
        "ap_truth",
        "ap50_truth",
    ]
    part = lmc("decode", stream, *options, "--frames", "2:3", "--source-size", f"{WIDTH}x{HEIGHT}")
    assert part.split() == ["frames_truth", "1", "ap_truth", "1", "ap50_truth", "1"]


def test_places_are_those_of_the_frames_where_these_are_known(folder, stream):
    model = ["--model", folder / "net.pt2", "-q"]
    size = ["--source-size", f"{WIDTH}x{HEIGHT}"]
    clip = ["--reference", folder / "clip.mkv"]
    for options in (size, clip, ["--truth", folder / "coco.json"]):
        lmc("decode", stream, "--task", folder / "boxes.json", "-f", *model, *options)
        rows = json.loads((folder / "boxes.json").read_text())
        assert [row["image_id"] for row in rows] == list(range(FRAMES))
        for number, row in enumerate(rows):
            np.testing.assert_allclose(row["bbox"], box(number), atol=0.02)
    lmc("decode", stream, "--task", folder / "boxes.json", "-f", *model)
    rows = json.loads((folder / "boxes.json").read_text())
    assert rows[0]["bbox"] == pytest.approx([16, 24, 8, 8], abs=0.02)  # in the letterbox


def test_sizes_that_cannot_be(folder, stream):
    decode = ["decode", stream, "--model", folder / "net.pt2", "-q"]
    assert "pixels of the clip's frames" in lmc(*decode, "--truth", folder / "gt.txt", code=1)
    for size in ("160", "0x5", "ax5", "5x", "99999999x5", "1x2x3"):
        assert "is not WxH" in lmc(*decode, "--source-size", size, code=2)
    both = ["--source-size", "5x5", "--reference", folder / "clip.mkv"]
    assert "leave --source-size out" in lmc(*decode, *both, code=2)


def test_annotations_that_do_not_fit(folder, encode, stream):
    def refused(name: str, content: object, *more: object) -> str:
        path = folder / name
        path.write_text(json.dumps(content) if not isinstance(content, str) else content)
        return lmc(*encode, "--evaluate", "--truth", path, *more, code=1)

    found = refused("late.json", annotations(first=1))
    assert "annotates frames 1 to 4, counted from 0, the clip has frames 0 to 3" in found
    lmc(*encode, "--evaluate", "--truth", folder / "late.json", "--truth-frames", 1)
    lmc(*encode, "--evaluate", "--truth", folder / "late.json", "--truth-frames", "order")
    assert "are of 99x120, the clip's frames of 160x120" in refused("w.json", annotations(width=99))
    names = annotations() | {"categories": [{"id": 1, "name": "horse"}]}
    assert "category 1 is 'horse', that of the task 'person'" in refused("n.json", names)
    assert "line 1: 'what'" in refused("a.txt", "what")
    assert "give both" in lmc(*encode, "--truth", folder / "gt.txt", code=2)
    wrong = ["--evaluate", "--truth", folder / "gt.txt", "--truth-frames", "first"]
    assert "neither a number nor order" in lmc(*encode, *wrong, code=2)


def test_what_judges_is_missed_before_any_frame(folder, encode, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    (folder / "x.lmc").unlink(missing_ok=True)
    told = lmc(*encode, "--evaluate", code=1)
    assert "pip install 'latent-motion-codec[tasks]'" in told
    assert not (folder / "x.lmc").exists()
    lmc(*encode)  # nothing is judged


def test_frames_behind_damage_have_no_numbers(folder, encode, monkeypatch):
    monkeypatch.setattr("codec.files.video.Damage", lambda: Damage(places=1, frames=3))
    (folder / "x.lmc").unlink(missing_ok=True)
    truth = ["--evaluate", "--truth", folder / "gt.txt"]
    assert "3 frames were lost to damage" in lmc(*encode, *truth, "--damaged", "skip", code=1)
    assert not (folder / "x.lmc").exists()
    lmc(*encode, "--damaged", "skip")
    decode = ["decode", folder / "x.lmc", "--model", folder / "net.pt2", "-q"]
    decode += ["--reference", folder / "clip.mkv"]
    told = lmc(*decode, "--truth", folder / "gt.txt", "--task", folder / "x.json", code=1)
    assert "3 frames were lost to damage" in told
    assert not (folder / "x.json").exists()
    assert lmc(*decode).startswith("nrmse ")


@pytest.mark.parametrize("effort", [5, 9])
@pytest.mark.parametrize(
    "task", ["detection", "masks", "keypoints", "anything", None, "task.toml", "map.toml"]
)
def test_efforts_of_classifiers_are_refused_for_other_tasks(folder, encode, task, effort):
    (folder / "map.toml").write_text(
        'task = "segmentation"\nactivation = "none"\nlabels = ["a", "b"]\n'
    )
    (folder / "x.lmc").unlink(missing_ok=True)
    place = folder / task if task and task.endswith(".toml") else task
    asked = encode[:-2] + ([] if task is None else ["--task", place])
    told = lmc(*asked, "--effort", effort, code=1)
    name = {None: "anything", "task.toml": "detection", "map.toml": "segmentation"}.get(task, task)
    assert told.startswith("lmc: efforts from 5 on choose levels by the probabilities of classes")
    assert f"is {name}; use effort 4" in told
    assert not (folder / "x.lmc").exists()
