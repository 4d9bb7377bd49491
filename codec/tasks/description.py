"""Which task it is: by name, or by a TOML file that says what the outputs are.

    task = "detection"             one of `TASK_NAMES`
    decoder = "distribution"       of things found: how they are read out of the outputs
    …                              what these need; see the fields below

Every key is known, there, and of its type, or the file is refused: nothing is guessed.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, cast

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

__all__ = ["TASK_NAMES", "TaskDescription", "task_by_name"]

TASK_NAMES: Final = (
    "classification",
    "detection",
    "masks",
    "keypoints",
    "segmentation",
    "anything",
)
_TORCHVISION_THRESHOLD: Final = 0.5
_LARGE: Final = 1e9
_COUNTS: Final = range(1, 2**31)
_MISSING: Final = object()


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
    decoder = TorchvisionInstances(kind, _TORCHVISION_THRESHOLD)
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
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise TaskError(f"{path}: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:  # of TOML or of UTF-8; of lists in lists
            raise TaskError(f"{path}: is no TOML: {error}") from error
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
            raise TaskError(f"{source}: expected keys and values, found {_kind_of(values)}")
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
        fields = _Fields(self.source, self.values)
        name = fields.choice("task", TASK_NAMES)
        task = _MAKERS[name](fields)
        fields.finish()
        return task


class _Fields:
    """Takes the values of a description one by one, checks them, and refuses what is left."""

    def __init__(self, source: str, values: Mapping[str, Any]) -> None:
        self._source, self._values = source, values
        self._asked: list[str] = []

    def finish(self) -> None:
        unknown = sorted(set(self._values) - set(self._asked))
        if unknown:
            self.refuse(f"unknown key {unknown[0]!r}; expected only {', '.join(self._asked)}")

    def choice(self, key: str, choices: Sequence[str], default: object = _MISSING) -> str:
        expected = f"one of {', '.join(choices)}"
        return cast(
            str, self._take(key, expected, lambda v: isinstance(v, str) and v in choices, default)
        )

    def share(self, key: str, default: object = _MISSING) -> float:
        return float(
            self._take(key, "a number from 0 to 1", lambda v: _number(v) and 0 <= v <= 1, default)
        )

    def number(self, key: str, default: object = _MISSING) -> float:
        return float(self._take(key, "a number", lambda v: _number(v) and abs(v) < _LARGE, default))

    def count(self, key: str, default: object = _MISSING) -> int:
        return int(self._take(key, f"a positive integer up to {_COUNTS[-1]}", _positive, default))

    def counts(self, key: str) -> tuple[int, ...]:
        expected = f"a list of positive integers up to {_COUNTS[-1]}"
        return tuple(self._take(key, expected, _list_of(_positive)))

    def output(self, key: str, default: object = _MISSING) -> int | str:
        return cast(
            int | str, self._take(key, "an output's place from 0 on, or its name", _output, default)
        )

    def outputs(self, key: str) -> tuple[int | str, ...]:
        return tuple(self._take(key, "a list of outputs, by place or name", _list_of(_output)))

    def labels(self, default: object = _MISSING) -> list[str] | None:
        """Return the labels, or None where they are COCO's."""
        expected = 'a list of labels, a file with one a line, or "coco"'
        found = self._take("labels", expected, lambda v: v == "coco" or _labels(v), default)
        return None if found == "coco" else list(found)

    def categories(self, labels: list[str] | None) -> tuple[dict[int, str], tuple[int, ...]]:
        """Return names by number, and the number of each class in order."""
        if labels is None:
            return COCO_NAMES, tuple(COCO_NAMES)
        numbers = self._take(
            "categories",
            f"a list of different integers from 0 to {_COUNTS[-1]}",
            _different,
            list(range(len(labels))),
        )
        if len(numbers) != len(labels):
            self.refuse(f"categories has {len(numbers)} numbers for {len(labels)} labels")
        return dict(zip(numbers, labels, strict=True)), tuple(numbers)

    def _take(
        self,
        key: str,
        expected: str,
        fits: Callable[[Any], bool],
        default: object = _MISSING,
    ) -> Any:  # noqa: ANN401 - of the type that `fits` has seen
        self._asked.append(key)
        if key not in self._values:
            if default is _MISSING:
                self.refuse(f"key {key!r} is missing; expected {expected}")
            return default
        value = self._values[key]
        if not fits(value):
            self.refuse(f"{key} is {_shown(value)}; expected {expected}")
        return value

    def refuse(self, what: str) -> NoReturn:
        raise TaskError(f"{self._source}: {what}")

    def equal_lengths(self, **lists: Sequence[object]) -> None:
        if len({len(each) for each in lists.values()}) != 1:
            counts = ", ".join(f"{len(each)} {name}" for name, each in lists.items())
            self.refuse(f"{counts}; expected as many of each, one for each level")

    def at_most(self, key: str, found: int, most: int) -> None:
        if found > most:
            self.refuse(f"{key} has {found} entries, expected at most {most}")


def _classification(fields: _Fields) -> Task:
    labels = fields.labels([])
    if labels is None:
        labels = list(COCO_NAMES.values())
    return Classification(labels, fields.output("output", 0))


def _anything(fields: _Fields) -> Task:
    return Anything()


def _segmentation(fields: _Fields) -> Task:
    labels = fields.labels()
    if labels is None or len(labels) < 2:
        fields.refuse("labels of a segmentation are a list of two or more, the background first")
    fields.at_most("labels", len(labels), UNSEEN)
    activation = fields.choice("activation", ("softmax", "sigmoid", "none"))
    if activation == "sigmoid" and len(labels) != 2:
        fields.refuse("a sigmoid makes one mask; expected two labels, the background first")
    return Segmentation(
        labels,
        activation=cast(Activation, activation),
        output=fields.output("output", 0),
        threshold=fields.share("threshold", 0.5),
    )


def _detection(fields: _Fields) -> Task:
    if fields.choice("decoder", ("distribution", "torchvision")) == "torchvision":
        return _torchvision(fields, "detection")
    scores, boxes = fields.outputs("scores"), fields.outputs("boxes")
    strides = fields.counts("strides")
    fields.equal_lengths(scores=scores, boxes=boxes, strides=strides)
    names, categories = fields.categories(fields.labels())
    decoder = DistributionBoxes(
        scores=scores,
        boxes=boxes,
        strides=strides,
        bins=fields.count("bins"),
        categories=categories,
        score_threshold=fields.share("score_threshold"),
        nms_iou=fields.share("nms_iou"),
        activation=fields.choice("activation", ("none", "sigmoid")),
        centre_shift=fields.number("centre_shift", 0.0),
    )
    return InstanceTask("detection", decoder, names)


def _masks(fields: _Fields) -> Task:
    fields.choice("decoder", ("torchvision",))
    return _torchvision(fields, "masks")


def _keypoints(fields: _Fields) -> Task:
    if fields.choice("decoder", ("movenet", "torchvision")) == "torchvision":
        return _torchvision(fields, "keypoints")
    decoder = Movenet(
        centres=fields.output("centres"),
        heatmaps=fields.output("heatmaps"),
        regressions=fields.output("regressions"),
        offsets=fields.output("offsets"),
        sizes=fields.output("sizes"),
        points=fields.count("points"),
        score_threshold=fields.share("score_threshold"),
        nms_iou=fields.share("nms_iou"),
    )
    skeleton = PERSON_SKELETON if decoder.points == _PERSON_POINTS else ()
    return InstanceTask("keypoints", decoder, {1: "person"}, skeleton)


def _torchvision(fields: _Fields, kind: Kind) -> Task:
    names, _ = fields.categories(fields.labels())
    decoder = TorchvisionInstances(kind, fields.share("score_threshold"))
    return InstanceTask(kind, decoder, names, _skeleton(kind))


_PERSON_POINTS: Final = 17
_MAKERS: Final[dict[str, Callable[[_Fields], Task]]] = {
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
        raise TaskError(f"{path}: labels: {name}: {error.strerror or error}") from error
    except ValueError as error:
        raise TaskError(f"{path}: labels: {name}: is no text: {error}") from error
    labels = [line.strip() for line in text.splitlines() if line.strip()]
    if not labels:
        raise TaskError(f"{path}: labels: {name}: is empty, expected one label a line")
    return labels


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value  # noqa: PLR0124


def _integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _positive(value: Any) -> bool:  # noqa: ANN401
    return _integer(value) and value in _COUNTS


def _output(value: Any) -> bool:  # noqa: ANN401
    return (isinstance(value, str) and value != "") or (_integer(value) and value >= 0)


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and value != [] and all(map(fits, value))


def _labels(value: object) -> bool:
    return _list_of(lambda each: isinstance(each, str) and each != "")(value)


def _different(value: Any) -> bool:  # noqa: ANN401
    fits = _list_of(lambda each: _integer(each) and (each == 0 or each in _COUNTS))
    return fits(value) and len(set(value)) == len(value)


def _kind_of(value: object) -> str:
    names = {dict: "a table", list: "a list", str: "a string", bool: "a truth value"}
    return names.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{_kind_of(value)} ({text[:50]}…)"
