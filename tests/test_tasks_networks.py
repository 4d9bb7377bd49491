"""Tasks on real networks: what they find in clips lies where it is."""

from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from test_preprocessing import NANODET
from test_tasks_description import DETECTION, KEYPOINTS, MASK, described

from codec.cli.group import main
from codec.tasks.boxes import box_iou
from codec.tasks.task import Geometry

pytestmark = [pytest.mark.weights, pytest.mark.video]


@pytest.fixture(scope="module")
def frame(data_dir):
    """A person in front of a wall, 640 x 480."""
    from codec.files.video import VideoReader
    from codec.format.header import Preprocessing

    keep = Preprocessing(0, 0, 1, (0, 0, 0), (1000, 1000, 1000))
    with VideoReader(data_dir / "videos" / "asl_walk.mkv", keep) as reader:
        return next(islice(reader, 1)).rgb


def outputs(data_dir, name, rgb, size, mean=0.0, scale=1.0, *, swapped=False):
    network = torch.export.load(data_dir / "models" / f"{name}.pt2").module()
    planes = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float()
    image = torch.nn.functional.interpolate(planes, (size, size), mode="bilinear", antialias=True)
    if swapped:
        image = image.flip(1)
    image = (image - torch.tensor(mean).reshape(-1, 1, 1)) / torch.tensor(scale).reshape(-1, 1, 1)
    with torch.no_grad():
        return network(image), Geometry.stretched(size, size, rgb.shape[1], rgb.shape[0])


@pytest.mark.filterwarnings("ignore")
def test_person(data_dir, frame, tmp_path):
    bgr = ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395))
    found = (
        described(tmp_path, DETECTION)
        .task()
        .finish(*outputs(data_dir, "nanodet", frame, 416, *bgr, swapped=True))
    )
    assert found.labels[0] == 1
    assert found.scores[0] > 0.7
    person = np.array([[196, 84, 444, 478]], float)
    assert box_iou(found.boxes[:1], person)[0, 0] > 0.9

    pose = (
        described(tmp_path, KEYPOINTS)
        .task()
        .finish(*outputs(data_dir, "movenet_multipose", frame, 256))
    )
    assert len(pose) == 1
    assert box_iou(pose.boxes, person)[0, 0] > 0.85
    nose, left, right = pose.points[0, 0], pose.points[0, 5], pose.points[0, 6]
    assert right[0] < nose[0] < left[0]
    assert nose[1] < min(left[1], right[1])

    mask = (
        described(tmp_path, MASK)
        .task()
        .finish(*outputs(data_dir, "selfie_segmentation", frame, 256, 0.0, 255.0))
    )
    rows, columns = np.nonzero(mask.labels)
    around = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], float)
    assert box_iou(around, person)[0, 0] > 0.85


@pytest.mark.filterwarnings("ignore")
def test_a_person_against_annotations(data_dir, tmp_path):
    """Through the command line: boxes are where the person is in the clip, not in the input."""
    pytest.importorskip("pycocotools", reason="what judges boxes is in the extra `tasks`")
    clip, network = data_dir / "videos" / "asl_walk.mkv", data_dir / "models" / "nanodet.pt2"
    (tmp_path / "input.toml").write_text(NANODET)
    (tmp_path / "task.toml").write_text(DETECTION)
    (tmp_path / "gt.txt").write_text("1,1,197,85,248,394,1,1,1\n")
    asked = [
        *("encode", clip, "-o", tmp_path / "a.lmc", "-q", "--frames", 1, "--effort", 0),
        *("--model", network, "--split", "add_11+add_18+add_27", "--qp", 30),
        *("--preprocessing", tmp_path / "input.toml", "--task", tmp_path / "task.toml"),
        *("--evaluate", "--truth", tmp_path / "gt.txt", "--report", tmp_path / "report.json"),
    ]
    result = CliRunner().invoke(main, [str(word) for word in asked])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["ap50_truth"] == report["ap50_truth_uncoded"] == pytest.approx(1)
    assert report["ap_truth_uncoded"] > 0.8
    assert report["found_uncoded"] >= 1
