"""Descriptions of tasks: what is read, and that nothing is guessed."""

from __future__ import annotations

import pytest

from codec.errors import TaskError
from codec.tasks.anything import Anything
from codec.tasks.classification import Classification
from codec.tasks.description import TASK_NAMES, TaskDescription, task_by_name
from codec.tasks.instances import InstanceTask

DETECTION = """
task = "detection"
decoder = "distribution"
scores = [0, 1, 2]
boxes = [3, 4, 5]
strides = [8, 16, 32]
bins = 11
activation = "none"
centre_shift = -0.5
score_threshold = 0.35
nms_iou = 0.6
labels = "coco"
"""
KEYPOINTS = """
task = "keypoints"
decoder = "movenet"
centres = 0
heatmaps = 1
regressions = 2
offsets = 3
sizes = 4
points = 17
score_threshold = 0.3
nms_iou = 0.6
"""
MASK = """
task = "segmentation"
output = 0
activation = "none"
threshold = 0.5
labels = ["background", "person"]
"""
MASKS = 'task = "masks"\ndecoder = "torchvision"\nscore_threshold = 0.5\nlabels = "coco"\n'


def described(tmp_path, text):
    path = tmp_path / "task.toml"
    path.write_text(text, encoding="utf-8")
    return TaskDescription.from_file(path)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (DETECTION, "detection"),
        (KEYPOINTS, "keypoints"),
        (MASK, "segmentation"),
        (MASKS, "masks"),
        ('task = "anything"', "anything"),
        ('task = "classification"', "classification"),
        ('task = "classification"\nlabels = ["a", "b"]\noutput = "logits"', "classification"),
    ],
)
def test_what_is_described_is_made_and_travels_as_json(tmp_path, text, name):
    description = described(tmp_path, text)
    assert description.task().name == name
    again = TaskDescription.from_json(description.to_json())
    assert again.to_json() == description.to_json()
    assert again.task().name == name


def test_coco_has_eighty_classes_with_its_own_numbers(tmp_path):
    task = described(tmp_path, DETECTION).task()
    assert isinstance(task, InstanceTask)
    assert len(task.names) == 80
    assert (task.names[1], task.names[44], task.names[90]) == ("person", "bottle", "toothbrush")


def test_labels_of_a_file_travel_along(tmp_path):
    (tmp_path / "names.txt").write_text("cat\n\ndog\n", encoding="utf-8")
    text = DETECTION.replace('"coco"', '"names.txt"\ncategories = [17, 18]')
    description = described(tmp_path, text)
    assert description.values["labels"] == ["cat", "dog"]
    task = TaskDescription.from_json(description.to_json()).task()
    assert isinstance(task, InstanceTask)
    assert task.names == {17: "cat", 18: "dog"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "key 'task' is missing; expected one of classification"),
        ('task = "detector"', 'task is "detector"; expected one of'),
        (DETECTION + "iou = 1\n", "unknown key 'iou'; expected only task, decoder"),
        (DETECTION.replace("bins = 11", ""), "key 'bins' is missing; expected a positive integer"),
        (DETECTION.replace("bins = 11", "bins = 1.5"), "bins is 1.5; expected a positive integer"),
        (DETECTION.replace("bins = 11", "bins = true"), "bins is true; expected a positive int"),
        (
            DETECTION.replace("0.35", '"high"'),
            'score_threshold is "high"; expected a number from 0',
        ),
        (DETECTION.replace("0.35", "35"), "score_threshold is 35; expected a number from 0 to 1"),
        (DETECTION.replace("0.35", "nan"), "score_threshold is NaN; expected a number from 0 to 1"),
        (DETECTION.replace("-0.5", "1" + 400 * "0"), "expected a number"),
        (DETECTION.replace("[8, 16, 32]", "[8, 16]"), "3 scores, 3 boxes, 2 strides; expected as"),
        (DETECTION.replace("[8, 16, 32]", "[8, 16, 0]"), "expected a list of positive integers"),
        (
            DETECTION.replace("[8, 16, 32]", f"[8, 16, {10**30}]"),
            "positive integers below 10^9",
        ),
        (
            DETECTION.replace("bins = 11", f"bins = {2**31}"),
            "positive integer below 10^9",
        ),
        (
            DETECTION.replace('"coco"', f'["a", "b"]\ncategories = [0, {2**63}]'),
            "different integers from 0 to below 10^9",
        ),
        (DETECTION.replace("[0, 1, 2]", "[0, 1, -2]"), "expected a list of outputs"),
        (DETECTION.replace('"none"', '"softmax"'), "expected one of none, sigmoid"),
        (DETECTION.replace('"distribution"', '"yolo"'), 'decoder is "yolo"; expected one of dist'),
        (DETECTION.replace('"coco"', "[]"), "labels is []; expected a list of labels"),
        (DETECTION.replace('"coco"', "3"), "labels is 3; expected a list of labels, a file"),
        (DETECTION.replace('"coco"', '"no.txt"'), "labels: no.txt: no such file"),
        (DETECTION.replace('"coco"', '["a", "b"]\ncategories = [1]'), "1 numbers for 2 labels"),
        (DETECTION.replace('"coco"', '["a", "b"]\ncategories = [1, 1]'), "different integers"),
        (KEYPOINTS.replace("centres = 0", "centres = -1"), "an output's place from 0 on, or its"),
        (MASK.replace('["background", "person"]', '"coco"'), "a list of two or more"),
        (
            MASK.replace('"none"', '"sigmoid"').replace('"person"', '"a", "b"'),
            "expected two labels",
        ),
        (MASKS.replace("torchvision", "movenet"), "expected one of torchvision"),
        ('task = "anything"\noutput = 1', "unknown key 'output'; expected only task"),
        ("task = ", "is no TOML"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(TaskError) as caught:
        described(tmp_path, text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "task.toml"))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(TaskError, match="no such file"):
        TaskDescription.from_file(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "text", ["[1]", "{", "[" * 100_000, '{"task": "detection"}', '{"task": []}']
)
def test_json_is_checked_too(text):
    with pytest.raises(TaskError, match=r"expected|no JSON"):
        TaskDescription.from_json(text)


def test_tasks_by_name():
    for name in TASK_NAMES:
        assert task_by_name(name, ["background", "thing"]).name == name
    assert isinstance(task_by_name("anything"), Anything)
    assert isinstance(task_by_name("classification"), Classification)
    with pytest.raises(TaskError, match="unknown task 'boxes'; expected one of"):
        task_by_name("boxes")
    with pytest.raises(TaskError, match="needs the labels"):
        task_by_name("segmentation")
