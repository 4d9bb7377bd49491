"""A task over a clip: against the uncoded network, and both against annotations."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from codec.errors import TaskError
from codec.models.sources import segmenters
from codec.pipeline.evaluation import Evaluation
from codec.pipeline.network_tasks import described, task_of
from codec.tasks.classification import Classification
from codec.tasks.description import TASK_NAMES, task_by_name
from codec.tasks.segmentation import Segmentation
from codec.tasks.task import Geometry
from codec.tasks.truth import Truth

GEOMETRY = Geometry.stretched(32, 32, 64, 48)


def found(*corners):
    """What torchvision's detectors return, of persons, in pixels of the input."""
    boxes = torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)
    count = len(boxes)
    return {"boxes": boxes, "scores": torch.ones(count), "labels": torch.ones(count).long()}


def annotated(frames, **more):
    row = {"category_id": 1, "bbox": [0, 0, 20, 24], "area": 480, "iscrowd": 0}
    return Truth({frame: [dict(row)] for frame in frames}, "truth.json", **more)


def test_both_sides_against_annotations():
    pytest.importorskip("pycocotools")
    right, wrong = found([0, 0, 10, 16]), found([20, 20, 30, 30])  # 20 x 24 in the frame
    evaluation = Evaluation(task_by_name("detection"), GEOMETRY, annotated([5, 6]), first=4)
    for outputs, uncoded in ((wrong, wrong), (right, right), (wrong, right)):
        evaluation.update(outputs, uncoded)
    figures = evaluation.figures()
    assert figures["frames_truth"] == 2
    assert figures["ap_truth_uncoded"] == pytest.approx(1)
    assert figures["ap50_truth"] == pytest.approx(51 / 101)  # precision 1 up to a recall of 1/2
    assert 0 < figures["ap"] < 1


def test_without_the_uncoded_network():
    pytest.importorskip("pycocotools")
    evaluation = Evaluation(task_by_name("detection"), GEOMETRY, annotated([0]))
    evaluation.update(found([0, 0, 10, 16]), None)
    figures = evaluation.figures()
    assert figures == pytest.approx({"frames_truth": 1, "ap_truth": 1, "ap50_truth": 1})


@pytest.mark.parametrize("frames", [[9], [0, 1, 2], []])
def test_annotations_of_other_frames_are_refused(frames):
    pytest.importorskip("pycocotools")
    evaluation = Evaluation(task_by_name("detection"), GEOMETRY, annotated(frames), to_the_end=True)
    for _ in range(2):
        evaluation.update(found([0, 0, 10, 16]), found())
    with pytest.raises(TaskError, match=r"the clip has frames 0 to 1; say with --truth-frames"):
        evaluation.figures()


def test_annotations_of_other_sizes_or_tasks_are_refused_at_once():
    with pytest.raises(TaskError, match="images are of 48x64, the clip's frames of 64x48"):
        Evaluation(task_by_name("detection"), GEOMETRY, annotated([0], size=(48, 64)))
    with pytest.raises(TaskError, match="nothing about classification"):
        Evaluation(Classification(), GEOMETRY, annotated([0]))


@pytest.mark.parametrize("kind", ["detection", "masks", "keypoints"])
def test_what_judges_is_asked_for_at_once(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(TaskError, match=r"need pycocotools; pip install"):
        Evaluation(task_by_name(kind), GEOMETRY)


def test_no_truth_no_figures_of_it():
    evaluation = Evaluation(Classification(), GEOMETRY)
    evaluation.update(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0]]))
    assert evaluation.figures() == {"kl": 0, "top1_agreement": 1}
    assert np.isfinite(evaluation.figures()["kl"])


@pytest.mark.parametrize("model", segmenters())
def test_segmentation_networks_are_known_by_name(model):
    task = task_of("", model)
    assert isinstance(task, Segmentation)
    assert (len(task.labels), task.labels[15]) == (21, "person")
    outputs = {"out": torch.zeros(1, 21, 32, 32)}
    outputs["out"][:, 15, :16] = 1
    evaluation = Evaluation(task, GEOMETRY)
    evaluation.update(outputs, outputs)
    assert evaluation.figures() == {"distortion": 0, "miou": 1, "pixel_agreement": 1}
    assert (task.finish(outputs, GEOMETRY).labels[:24] == 15).all()


@pytest.mark.parametrize("name", TASK_NAMES)
def test_tasks_that_a_name_suffices_for(name):
    if name == "segmentation":
        with pytest.raises(TaskError, match="needs the labels of its classes; describe it in TOML"):
            described(name)
        return
    task = task_of(described(name), "net.pt2@0")
    assert task.name == name
    assert getattr(task, "decoder", None) == getattr(task_by_name(name), "decoder", None)
