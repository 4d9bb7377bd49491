"""What is to be found in a clip: COCO's annotations, the ground truth of MOTChallenge, or label
maps.

    annotations.json    `images`, `annotations` and `categories`; the frame of an image is the last
                        number in its `file_name`, less that of the first frame, or its place
    gt.txt              frame, track, left, top, width, height, flag, class, …: a line for a box;
                        frames and pixels are counted from 1, and every frame is annotated
    folder/         of *.png, or one of them: the class of every pixel of a frame, 8-bit grey or a
                    palette; frames as those of COCO's images, in the order of their names

Boxes of MOTChallenge are of persons, as COCO numbers them.  What is flagged 0 of persons and what
looks like them is neither to be found nor wrong to find; vehicles and occluders are left out.

Source: A. Milan et al., "MOT16: a benchmark for multi-object tracking", arXiv:1603.00831.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

import numpy as np

from codec.errors import TaskError
from codec.tasks.rle import encode_mask

__all__ = ["Numbering", "Truth", "refuse_truth"]

Numbering = int | Literal["order"]
"""The number of the first frame in file names, or that images come in the order of frames."""

_PERSON: Final = 1
_LIKE_PERSONS: Final = {_PERSON, 2, 7, 8, 12}
"""MOTChallenge's pedestrians, people on vehicles, static ones, distractors and reflections."""
_CLASSED: Final = (8, 9)
"""Columns of lines that name a class; those of 2015 have ten, and places in space there."""


def refuse_truth(task: str) -> NoReturn:
    """Refuse annotations for a task that they say nothing about: they are of things in frames.

    Raises:
        TaskError: always.
    """
    raise TaskError(f"annotations say nothing about {task}; leave them out")


@dataclass(frozen=True, slots=True)
class Truth:
    """Annotations of a clip in COCO's format, by frame number from 0 on.

    Args:
        annotations: of the frames that are annotated; places are in pixels of the upright frame.
        source: what to call it in messages.
        size: (width, height) of frames, if the file says.
        categories: names by number, if it says.
        maps: whether it says what pixels are, and nothing of single things.
    """

    annotations: dict[int, list[dict[str, Any]]]
    source: str = "annotations"
    size: tuple[int, int] | None = None
    categories: Mapping[int, str] = field(default_factory=dict)
    maps: bool = False

    @classmethod
    def from_file(cls, path: Path, numbering: Numbering | None = None) -> Truth:
        """Read a file of annotations.

        Args:
            path: COCO's `*.json`, MOTChallenge's `*.txt`, or label maps, `*.png` or a folder.
            numbering: default: from 0 on, of MOTChallenge from 1 on.

        Raises:
            TaskError: the file is none of these.
        """
        kind = path.suffix.lower()
        if path.is_dir() or kind == ".png":
            return _of_maps(path, 0 if numbering is None else numbering)
        if kind not in {".json", ".txt"}:
            raise TaskError(
                f"{path}: expected annotations as .json, of COCO, as .txt, of MOTChallenge, or as "
                ".png, of label maps, or a folder of these"
            )
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise TaskError(f"{path}: {(error.strerror or str(error)).lower()}") from error
        except ValueError as error:
            raise TaskError(f"{path}: is no text: {error}") from error
        if kind == ".json":
            return _of_coco(str(path), text, 0 if numbering is None else numbering)
        return _of_mot(str(path), text, 1 if numbering is None else numbering)

    def check(self, names: Mapping[int, str]) -> None:
        """Refuse categories that are numbered in another way than those of a task.

        Raises:
            TaskError: one number has two names, or none of what is annotated is the task's.
        """
        for number, name in self.categories.items():
            if names.get(number, name).lower() != name.lower():
                raise TaskError(
                    f"{self.source}: category {number} is {name!r}, that of the task "
                    f"{names[number]!r}; number them as the task does"
                )
        found = {row["category_id"] for rows in self.annotations.values() for row in rows}
        if names and found and not found & names.keys():
            raise TaskError(
                f"{self.source}: none of its categories, {_listed(found)}, is one of the task's, "
                f"{_listed(set(names))}; number them as the task does"
            )

    def of(self, names: Mapping[int, str], part: str) -> Truth:
        """Return what a task can find of it.

        Args:
            names: of the task's categories, by number; without any, all are kept.
            part: what the task needs of an annotation.

        Raises:
            TaskError: it is not there.
        """
        if self.maps and names:
            raise TaskError(
                f"{self.source}: label maps say nothing of single things; expected annotations of "
                "COCO"
            )
        kept = {
            frame: [row for row in rows if not names or row["category_id"] in names]
            for frame, rows in self.annotations.items()
        }
        for frame, rows in kept.items():
            if any(part not in row for row in rows):
                raise TaskError(
                    f"{self.source}: an annotation of frame {frame} has no {part}, which the task "
                    "is about"
                )
        return replace(self, annotations=kept)


def _of_coco(source: str, text: str, numbering: Numbering) -> Truth:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{source}: is no JSON: {error}") from error
    if not isinstance(read, dict) or not {"images", "annotations"} <= read.keys():
        raise TaskError(f"{source}: expected COCO annotations: images, annotations, categories")
    try:
        frames: dict[Any, int] = {}
        found: dict[int, list[dict[str, Any]]] = {}
        sizes: set[tuple[int, int]] = set()
        for place, image in enumerate(read["images"]):
            name = "" if numbering == "order" else str(image["file_name"])
            frame = frames[image["id"]] = _frame(source, name, place, numbering)
            if frame in found:
                raise TaskError(
                    f"{source}: two images are frame {frame}, one of them "
                    f"{image['file_name']!r}; keep the images of one clip, or take them by order"
                )
            found[frame] = []
            if "width" in image and "height" in image:
                sizes.add((int(image["width"]), int(image["height"])))
        if len(sizes) > 1:
            some = " and ".join(f"{width}x{height}" for width, height in sorted(sizes)[:2])
            raise TaskError(f"{source}: images are of {some}; expected frames of one clip")
        for annotation in read["annotations"]:
            image = annotation["image_id"]
            if image not in frames:
                raise TaskError(
                    f"{source}: an annotation is of image {image!r}, which is not among the images"
                )
            _, _, width, height = (float(value) for value in annotation["bbox"])
            int(annotation["category_id"])
            row = {"area": width * height, "iscrowd": 0, **annotation}
            if "keypoints" in row:
                row.setdefault("num_keypoints", sum(v > 0 for v in row["keypoints"][2::3]))
            found[frames[image]].append(row)
        categories = {int(each["id"]): str(each["name"]) for each in read.get("categories", ())}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TaskError(
            f"{source}: COCO annotations lack or misuse {error}; expected images with id and "
            "file_name, annotations with image_id, category_id and bbox"
        ) from error
    return Truth(found, source, next(iter(sizes), None), categories)


def _of_maps(path: Path, numbering: Numbering) -> Truth:
    try:
        from PIL import Image  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise TaskError(
            f"{path}: label maps need Pillow; pip install 'latent-motion-codec[tasks]'"
        ) from error
    files = sorted(path.glob("*.png")) if path.is_dir() else [path]
    if not files:
        raise TaskError(f"{path}: holds no *.png; expected a label map for every annotated frame")
    found: dict[int, list[dict[str, Any]]] = {}
    sizes: dict[tuple[int, int], Path] = {}
    for place, file in enumerate(files):
        frame = _frame(str(path), file.name, place, numbering)
        if frame in found:
            raise TaskError(f"{path}: two maps are of frame {frame}, one of them {file.name!r}")
        try:
            with Image.open(file, formats=("PNG",)) as picture:
                mode, labels = picture.mode, np.asarray(picture)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise TaskError(f"{file}: cannot be read as a PNG: {error}") from error
        if mode not in {"L", "P"}:
            raise TaskError(
                f"{file}: has samples of mode {mode}; expected one label a pixel, 8-bit grey or a "
                "palette"
            )
        sizes.setdefault((labels.shape[1], labels.shape[0]), file)
        found[frame] = [
            {
                "category_id": int(label),
                "area": int((labels == label).sum()),
                "segmentation": encode_mask(labels == label),
            }
            for label in np.unique(labels)
        ]
    if len(sizes) > 1:
        (one, other), names = list(sizes)[:2], [file.name for file in sizes.values()]
        raise TaskError(
            f"{path}: {names[0]} is of {one[0]}x{one[1]}, {names[1]} of {other[0]}x{other[1]}; "
            "expected frames of one clip"
        )
    return Truth(found, str(path), next(iter(sizes)), maps=True)


def _frame(source: str, name: str, place: int, numbering: Numbering) -> int:
    if numbering == "order":
        return place
    numbers = re.findall(r"\d+", Path(name).stem)
    if not numbers:
        raise TaskError(
            f"{source}: the file name {name!r} holds no number of a frame; "
            "take images in their order"
        )
    return _counted(source, int(numbers[-1]), numbering)


def _counted(source: str, number: int, first: int) -> int:
    if number < first:
        raise TaskError(f"{source}: annotates frame {number}; the first one was said to be {first}")
    return number - first


def _of_mot(source: str, text: str, numbering: Numbering) -> Truth:
    if numbering == "order":
        raise TaskError(f"{source}: lines of MOTChallenge have frame numbers; take them by number")
    found: dict[int, list[dict[str, Any]]] = {}
    for place, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        fields = line.split(",")
        try:
            values = [float(each) for each in fields]
            frame, _, left, top, width, height = (values[k] for k in range(6))
        except (IndexError, ValueError):
            values, frame = [math.nan], math.nan
        if not all(map(math.isfinite, values)) or frame != int(frame) or min(width, height) < 0:
            raise TaskError(
                f"{source}: line {place}: {line[:60]!r}; expected frame, track, left, top, width, "
                "height, flag and class, numbers between commas"
            )
        rows = found.setdefault(_counted(source, int(frame), numbering), [])
        kind = int(values[7]) if len(values) in _CLASSED else _PERSON
        counted = len(values) <= 6 or values[6] != 0
        if kind != _PERSON and kind not in _LIKE_PERSONS:
            continue
        rows.append(
            {
                "category_id": _PERSON,
                "bbox": [left - 1, top - 1, width, height],
                "area": width * height,
                "iscrowd": int(kind != _PERSON or not counted),
            }
        )
    if not found:
        raise TaskError(f"{source}: has no line; expected MOTChallenge's, frame, track, left, …")
    # between and before those with boxes there are frames in which there is nobody
    return Truth({frame: found.get(frame, []) for frame in range(max(found) + 1)}, source)


def _listed(numbers: set[int]) -> str:
    some = sorted(numbers)
    return ", ".join(map(str, some[:8])) + (" …" if len(some) > 8 else "")
