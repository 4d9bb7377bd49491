"""Which task a network is asked to finish: said by the user, carried by the stream, or known by the
network's name.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from codec.encoding.config import DEFAULT_EFFORT
from codec.encoding.refinement import CloudFunction
from codec.errors import ModelError, TaskError
from codec.models.sources import classifiers, detectors, labels, segmenters
from codec.models.timm_models import TIMM, timm_classes
from codec.tasks.anything import Anything
from codec.tasks.classification import Classification
from codec.tasks.description import TASK_NAMES, THRESHOLD, TaskDescription, task_by_name
from codec.tasks.outputs import float_tensors
from codec.tasks.segmentation import Segmentation
from codec.tasks.task import Task

__all__ = ["class_logits", "described", "labelled", "task_files", "task_like", "task_of"]

INSTANCES = {"detection", "masks", "keypoints"}
PASCAL_CLASSES = 21
"""Of torchvision's segmentation networks, the background among them."""


def described(task: str | None) -> str:
    """Return what a header says of a task: one JSON object, or nothing.

    Args:
        task: a name of `TASK_NAMES`, whose outputs have the form of torchvision's, or a TOML file.

    Raises:
        TaskError: it is neither, or does not say what it should.
    """
    if task is None:
        return ""
    if task not in TASK_NAMES:
        if not task.endswith(".toml") and not Path(task).exists():
            near = difflib.get_close_matches(task, TASK_NAMES, n=1)
            raise TaskError(
                f"{task}: is neither one of {', '.join(TASK_NAMES)} nor a TOML file"
                + (f"; nearest: {near[0]}" if near else "")
            )
        return TaskDescription.from_file(Path(task)).to_json()
    task_by_name(task)  # says what is missing of one that a name does not suffice for
    values: dict[str, object] = {"task": task}
    if task in INSTANCES:
        values |= {"decoder": "torchvision", "labels": "coco", "score_threshold": THRESHOLD}
    return TaskDescription.from_json(json.dumps(values), task).to_json()


def task_of(description: str, model: str) -> Task:
    """Return the task of a stream: the one that its header describes; else that of classifiers,
    detectors and segmentation networks that are known by name; and for any other network nothing
    but its outputs.

    Raises:
        TaskError: the description is none.
    """
    if description:
        return TaskDescription.from_json(description, "the stream's task").task()
    if model in classifiers() or (model.startswith(TIMM) and timm_classes(model)):
        return Classification()
    kinds = {"keypointrcnn": "keypoints", "maskrcnn": "masks"}
    if model in detectors():
        return task_by_name(kinds.get(model.partition("_")[0], "detection"))
    if model in segmenters():
        return Segmentation(labels(model, PASCAL_CLASSES), activation="softmax", output="out")
    return Anything()


def task_like(outputs: object) -> Task:
    """Return the task that outputs of which nobody says anything are taken for: classification, if
    they are one (N, classes), else anything.
    """
    found = list(float_tensors(outputs).values())
    classes = len(found) == 1 and found[0].ndim == 2 and found[0].shape[1] > 1
    return Classification() if classes else Anything()


def labelled(task: Task, model: str, outputs: object) -> Task:
    """Return a classification with the labels of a network that is known by name."""
    if not isinstance(task, Classification) or task.labels or model not in classifiers():
        return task
    return Classification(labels(model, task.logits(outputs).shape[1]))


def class_logits(
    cloud: Callable[[Sequence[Tensor]], Any], description: str, model: str
) -> CloudFunction:
    """Return the cloud as efforts from 5 on see it, features to logits, whichever output these are.

    Raises:
        ModelError: the network is not known to classify.
    """
    task = task_of(description, model)
    if not isinstance(task, Classification):
        raise ModelError(
            f"efforts from {DEFAULT_EFFORT + 1} on choose levels by the probabilities of classes, "
            f"and the task of {model or 'the network'} is {task.name}; use effort "
            f"{DEFAULT_EFFORT}, or say with the task classification that it classifies"
        )
    return lambda features: task.logits(cloud(features))


def task_files(task: str | None) -> list[Path]:
    """Return the files that `described` reads: TOML, and labels that it names; checks nothing."""
    if task is None or task in TASK_NAMES:
        return []
    path = Path(task)
    with suppress(OSError, ValueError, RecursionError):
        labels = tomllib.loads(path.read_text(encoding="utf-8")).get("labels")
        if isinstance(labels, str) and labels != "coco":
            return [path, path.parent / labels]
    return [path]
