"""Which task it is: by name, or by a TOML file that says what the outputs are.

    task = "detection"             one of `TASK_NAMES`
    decoder = "distribution"       of things found: how they are read out of the outputs
    …                              what these need; see the fields below

Every key is known, there, and of its type, or the file is refused: nothing is guessed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from codec.descriptions import LARGE, MISSING, Fields, is_integer, kind_of, list_of, read_toml
from codec.errors import TaskError
from codec.tasks.anything import Anything
from codec.tasks.classification import Classification
from codec.tasks.coco_names import COCO_NAMES, PERSON_SKELETON
from codec.tasks.distribution_boxes import DistributionBoxes
from codec.tasks.instances import InstanceTask, Kind
from codec.tasks.movenet import Movenet
from codec.tasks.segmentation import UNSEEN, Activation, Segmentation
from codec.tasks.task import Task
from codec.tasks.torchvision_instances import TorchvisionInstances

__all__ = ["TASK_NAMES", "THRESHOLD", "TaskDescription", "task_by_name"]

TASK_NAMES: Final = (
    "classification",
    "detection",
    "masks",
    "keypoints",
    "segmentation",
    "anything",
)
THRESHOLD: Final = 0.5
"""Least score of what torchvision's detectors find, where only a name is given."""


def task_by_name(name: str, labels: Sequence[str] = ()) -> Task:
    """Return the task of a network whose outputs have the form of torchvision's.

    Args:
        name: of `TASK_NAMES`.
        labels: of classes, for classification and segmentation; things found have COCO's.

    Raises:
        TaskError: the name is unknown, or labels are needed.
    """
    if name == "classification":
        return Classification(labels)
    if name == "anything":
        return Anything()
    if name == "segmentation":
        if not labels:
            raise TaskError("segmentation needs the labels of its classes; describe it in TOML")
        return Segmentation(labels, activation="softmax")
    if name not in TASK_NAMES:
        raise TaskError(
            f"unknown task {name!r}; expected one of {', '.join(TASK_NAMES)}, or a TOML file"
        )
    kind = cast(Kind, name)
    decoder = TorchvisionInstances(kind, THRESHOLD)
    return InstanceTask(kind, decoder, COCO_NAMES, _skeleton(kind))


@dataclass(frozen=True, slots=True)
class TaskDescription:
    """What a TOML file says of a task, with the labels that it names another file for.

    It can travel as JSON, and is checked whenever a task is made of it.

    Args:
        source: what to call it in messages.
        values: by key.
    """

    source: str
    values: Mapping[str, Any]

    @classmethod
    def from_file(cls, path: Path) -> TaskDescription:
        """Read and check a TOML file; files of labels lie beside it.

        Raises:
            TaskError: it cannot be read, or is no description of a task.
        """
        values = read_toml(path, TaskError)
        labels = values.get("labels")
        if isinstance(labels, str) and labels != "coco":
            values["labels"] = _labels_of(path, labels)
        described = cls(str(path), values)
        described.task()
        return described

    @classmethod
    def from_json(cls, text: str, source: str = "task") -> TaskDescription:
        """Read what `to_json` wrote.

        Raises:
            TaskError: it is no description of a task.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise TaskError(f"{source}: is no JSON: {error}") from error
        if not isinstance(values, dict):
            raise TaskError(f"{source}: expected keys and values, found {kind_of(values)}")
        described = cls(source, values)
        described.task()
        return described

    def to_json(self) -> str:
        """Write the values, the same ones always alike."""
        return json.dumps(self.values, sort_keys=True, separators=(",", ":"))

    def task(self) -> Task:
        """Make the task.

        Raises:
            TaskError: a key is unknown or missing, or a value is not what it should be.
        """
        fields = Fields(self.source, self.values, TaskError)
        name = fields.choice("task", TASK_NAMES)
        task = _MAKERS[name](fields)
        fields.end()
        return task


def _share(fields: Fields, key: str, default: object = MISSING) -> float:
    return fields.number(key, default, low=0, high=1)


def _output_of(fields: Fields, key: str, default: object = MISSING) -> int | str:
    expected = "an output's place from 0 on, or its name"
    return cast(int | str, fields.take(key, expected, _output, default))


def _outputs(fields: Fields, key: str) -> tuple[int | str, ...]:
    return tuple(fields.take(key, "a list of outputs, by place or name", list_of(_output)))


def _labels(fields: Fields, default: object = MISSING) -> list[str] | None:
    """Return the labels, or None where they are COCO's."""
    expected = 'a list of labels, a file with one a line, or "coco"'
    found = fields.take("labels", expected, lambda v: v == "coco" or _names(v), default)
    return None if found == "coco" else list(found)


def _categories(fields: Fields) -> tuple[dict[int, str], tuple[int, ...]]:
    """Return names by number, and the number of each class in order."""
    labels = _labels(fields)
    if labels is None:
        return COCO_NAMES, tuple(COCO_NAMES)
    numbers = fields.take(
        "categories",
        "a list of different integers from 0 to below 10^9",
        _different,
        list(range(len(labels))),
    )
    if len(numbers) != len(labels):
        fields.refuse(f"categories has {len(numbers)} numbers for {len(labels)} labels")
    return dict(zip(numbers, labels, strict=True)), tuple(numbers)


def _classification(fields: Fields) -> Task:
    labels = _labels(fields, [])
    if labels is None:
        labels = list(COCO_NAMES.values())
    return Classification(labels, _output_of(fields, "output", 0))


def _anything(fields: Fields) -> Task:
    return Anything()


def _segmentation(fields: Fields) -> Task:
    labels = _labels(fields)
    if labels is None or len(labels) < 2:
        fields.refuse("labels of a segmentation are a list of two or more, the background first")
    if len(labels) > UNSEEN:
        fields.refuse(f"labels has {len(labels)} entries; expected at most {UNSEEN}")
    activation = fields.choice("activation", ("softmax", "sigmoid", "none"))
    if activation == "sigmoid" and len(labels) != 2:
        fields.refuse("a sigmoid makes one mask; expected two labels, the background first")
    return Segmentation(
        labels,
        activation=cast(Activation, activation),
        output=_output_of(fields, "output", 0),
        threshold=_share(fields, "threshold", 0.5),
    )


def _detection(fields: Fields) -> Task:
    if fields.choice("decoder", ("distribution", "torchvision")) == "torchvision":
        return _torchvision(fields, "detection")
    scores, boxes = _outputs(fields, "scores"), _outputs(fields, "boxes")
    strides = tuple(
        fields.take("strides", "a list of positive integers below 10^9", list_of(_positive))
    )
    if not len(scores) == len(boxes) == len(strides):
        fields.refuse(
            f"{len(scores)} scores, {len(boxes)} boxes, {len(strides)} strides; expected as many "
            "of each, one for each level"
        )
    names, categories = _categories(fields)
    decoder = DistributionBoxes(
        scores=scores,
        boxes=boxes,
        strides=strides,
        bins=fields.count("bins"),
        categories=categories,
        score_threshold=_share(fields, "score_threshold"),
        nms_iou=_share(fields, "nms_iou"),
        activation=fields.choice("activation", ("none", "sigmoid")),
        centre_shift=fields.number("centre_shift", 0.0),
    )
    return InstanceTask("detection", decoder, names)


def _masks(fields: Fields) -> Task:
    fields.choice("decoder", ("torchvision",))
    return _torchvision(fields, "masks")


def _keypoints(fields: Fields) -> Task:
    if fields.choice("decoder", ("movenet", "torchvision")) == "torchvision":
        return _torchvision(fields, "keypoints")
    decoder = Movenet(
        centres=_output_of(fields, "centres"),
        heatmaps=_output_of(fields, "heatmaps"),
        regressions=_output_of(fields, "regressions"),
        offsets=_output_of(fields, "offsets"),
        sizes=_output_of(fields, "sizes"),
        points=fields.count("points"),
        score_threshold=_share(fields, "score_threshold"),
        nms_iou=_share(fields, "nms_iou"),
    )
    skeleton = PERSON_SKELETON if decoder.points == _PERSON_POINTS else ()
    return InstanceTask("keypoints", decoder, {1: "person"}, skeleton)


def _torchvision(fields: Fields, kind: Kind) -> Task:
    names, _ = _categories(fields)
    decoder = TorchvisionInstances(kind, _share(fields, "score_threshold"))
    return InstanceTask(kind, decoder, names, _skeleton(kind))


_PERSON_POINTS: Final = 17
_MAKERS: Final[dict[str, Callable[[Fields], Task]]] = {
    "classification": _classification,
    "detection": _detection,
    "masks": _masks,
    "keypoints": _keypoints,
    "segmentation": _segmentation,
    "anything": _anything,
}


def _skeleton(kind: Kind) -> tuple[tuple[int, int], ...]:
    return PERSON_SKELETON if kind == "keypoints" else ()


def _labels_of(path: Path, name: str) -> list[str]:
    try:
        text = (path.parent / name).read_text(encoding="utf-8")
    except OSError as error:
        raise TaskError(
            f"{path}: labels: {name}: {(error.strerror or str(error)).lower()}"
        ) from error
    except ValueError as error:
        raise TaskError(f"{path}: labels: {name}: is no text: {error}") from error
    labels = [line.strip() for line in text.splitlines() if line.strip()]
    if not labels:
        raise TaskError(f"{path}: labels: {name}: is empty, expected one label a line")
    return labels


def _positive(value: Any) -> bool:  # noqa: ANN401
    return is_integer(value) and 0 < value < LARGE


def _output(value: Any) -> bool:  # noqa: ANN401
    return (isinstance(value, str) and value != "") or (is_integer(value) and value >= 0)


def _names(value: object) -> bool:
    return list_of(lambda each: isinstance(each, str) and each != "")(value)


def _different(value: Any) -> bool:  # noqa: ANN401
    fits = list_of(lambda each: is_integer(each) and 0 <= each < LARGE)
    return fits(value) and len(set(value)) == len(value)
