"""What is to be found in a clip, as annotations in COCO's format say."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from codec.errors import TaskError

__all__ = ["Truth", "refuse_truth"]


def refuse_truth(task: str) -> NoReturn:
    """Refuse annotations for a task that they say nothing about: they are of things in frames.

    Raises:
        TaskError: always.
    """
    raise TaskError(f"annotations say nothing about {task}; leave them out")


@dataclass(frozen=True, slots=True)
class Truth:
    """Annotations of a clip in COCO's format, by frame number."""

    annotations: dict[int, list[dict[str, Any]]]

    @classmethod
    def from_file(cls, path: Path, *, by_file_name: bool = False) -> Truth:
        """Read a file of annotations.

        Args:
            path: of a JSON file with `images`, `annotations` and `categories`.
            by_file_name: an image's frame is the last number in its `file_name`; else it is its id.

        Raises:
            TaskError: the file is no such file.
        """
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise TaskError(f"{path}: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise TaskError(f"{path}: is no JSON: {error}") from error
        if not isinstance(read, dict) or not {"images", "annotations"} <= read.keys():
            raise TaskError(f"{path}: expected COCO annotations: images, annotations, categories")
        try:
            frames = {each["id"]: _frame(each, by_file_name) for each in read["images"]}
            found: dict[int, list[dict[str, Any]]] = {frame: [] for frame in frames.values()}
            for annotation in read["annotations"]:
                _, _, width, height = annotation["bbox"]
                int(annotation["category_id"])
                row = {"area": width * height, "iscrowd": 0, **annotation}
                found[frames[annotation["image_id"]]].append(row)
        except (KeyError, TypeError, ValueError) as error:
            raise TaskError(
                f"{path}: COCO annotations lack or misuse {error}; expected images with id and "
                "file_name, annotations with image_id, category_id and bbox"
            ) from error
        return cls(found)


def _frame(image: dict[str, Any], by_file_name: bool) -> int:
    if not by_file_name:
        return int(image["id"])
    numbers = re.findall(r"\d+", Path(image["file_name"]).stem)
    if not numbers:
        raise ValueError(f"the file name {image['file_name']!r}, which holds no number")
    return int(numbers[-1])
