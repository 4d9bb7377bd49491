"""Annotations of COCO and of MOTChallenge: of which frames, and what is said of wrong ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import TaskError
from codec.tasks.coco_names import COCO_NAMES
from codec.tasks.description import task_by_name
from codec.tasks.found import Instances
from codec.tasks.segmentation import LabelMap, Segmentation
from codec.tasks.truth import Truth

ANNOTATIONS = {
    "images": [
        {"id": 900, "file_name": "clip2/frame_0003.png", "width": 64, "height": 48},
        {"id": 901, "file_name": "4.png", "width": 64, "height": 48},
    ],
    "annotations": [
        {"id": 1, "image_id": 900, "category_id": 1, "bbox": [0, 0, 10, 10]},
        {"id": 2, "image_id": 901, "category_id": 3, "bbox": [5, 5, 10, 10]},
    ],
    "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "Car"}],
}


def coco(tmp_path, **changes):
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(ANNOTATIONS | changes), encoding="utf-8")
    return path


def mot(tmp_path, text):
    path = tmp_path / "gt.txt"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("numbering", "frames"), [(None, [3, 4]), (3, [0, 1]), ("order", [0, 1])])
def test_frames_of_images(tmp_path, numbering, frames):
    truth = Truth.from_file(coco(tmp_path), numbering)
    assert sorted(truth.annotations) == frames
    assert [truth.annotations[frame][0]["category_id"] for frame in frames] == [1, 3]
    assert truth.size == (64, 48)
    assert truth.categories == {1: "person", 3: "Car"}


def test_frames_without_annotations_do_not_count(tmp_path):
    pytest.importorskip("pycocotools")
    scoring = task_by_name("detection").against(Truth.from_file(coco(tmp_path)))
    found = Instances(np.array([[0.0, 0, 10, 10]]), np.ones(1), np.ones(1, np.int64))
    for number in range(5):  # only frames 3 and 4 are annotated
        scoring.add(number, found)
    assert scoring.figures() == pytest.approx({"ap": 0.5, "ap50": 0.5})


@pytest.mark.parametrize(
    ("changes", "numbering", "message"),
    [
        ({"images": [{}]}, None, "lack or misuse 'file_name'"),
        ({"images": [{"id": 1}], "annotations": [{"image_id": 1}]}, "order", "misuse 'bbox'"),
        ({"images": [{"id": 1, "file_name": "a.png"}]}, None, "'a.png' holds no number"),
        ({"images": [{"id": k, "file_name": "7.png"} for k in (1, 2)]}, None, "images are frame 7"),
        ({}, 4, "annotates frame 3; the first one was said to be 4"),
        (
            {"images": [{"id": k, "file_name": f"{k}", "width": k, "height": 5} for k in (1, 2)]},
            None,
            "images are of 1x5 and 2x5",
        ),
        (
            {"annotations": [{"image_id": 5, "bbox": [0, 0, 1, 1], "category_id": 1}]},
            None,
            "an annotation is of image 5, which is not among",
        ),
    ],
)
def test_wrong_annotations_are_refused(tmp_path, changes, numbering, message):
    path = coco(tmp_path, **changes)
    with pytest.raises(TaskError, match=message) as caught:
        Truth.from_file(path, numbering)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{", "is no JSON"),
        ("a.json", b"[]", "expected COCO annotations"),
        ("a.json", b"\xff", "is no text"),
        ("a.csv", b"", r"expected annotations as \.json, of COCO, as \.txt"),
        ("a.txt", b"\n", "has no line"),
        ("a.txt", b"1,1,5\n", "line 1: '1,1,5'; expected frame, track"),
        ("a.txt", b"1,1,0,0,5,5,1,1,1\n1 1 0 0 5 5", "line 2: '1 1 0 0 5 5'"),
        ("a.txt", b"1.5,1,0,0,5,5", "line 1"),
        ("a.txt", b"nan,1,0,0,5,5", "line 1"),
        ("a.txt", b"0,1,0,0,5,5", "annotates frame 0; the first one was said to be 1"),
    ],
)
def test_files_that_are_none(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(TaskError, match=message):
        Truth.from_file(path)
    with pytest.raises(TaskError, match="no such file"):
        Truth.from_file(tmp_path / "none.json")


def test_challenge(tmp_path):
    text = (
        "2,1,11,21,30,40,1,1,0.9\n"
        "2,2,1,1,5,5,0,1,1\n"  # flagged
        "2,3,1,1,6,6,0,8,1\n"  # a distractor
        "\n"
        "4,4,1,1,7,7,0,3,1\n"  # a car
    )
    path = mot(tmp_path, text)
    truth = Truth.from_file(path)
    assert list(truth.annotations) == [0, 1, 2, 3]
    assert truth.annotations[0] == truth.annotations[2] == truth.annotations[3] == []
    rows = truth.annotations[1]
    assert [row["bbox"] for row in rows] == [[10, 20, 30, 40], [0, 0, 5, 5], [0, 0, 6, 6]]
    assert [row["iscrowd"] for row in rows] == [0, 1, 1]
    assert list(Truth.from_file(path, 0).annotations) == [0, 1, 2, 3, 4]
    with pytest.raises(TaskError, match="take them by number"):
        Truth.from_file(path, "order")


def test_the_challenge_of_2015_has_places_instead_of_classes(tmp_path):
    path = mot(tmp_path, "1,1,1,1,5,5,1,-4.3,2.4,0\n1,2,1,1,5,5,0,-1,-1,-1\n1,3,1,1,5,5\n")
    rows = Truth.from_file(path).annotations[0]
    assert [(row["category_id"], row["iscrowd"]) for row in rows] == [(1, 0), (1, 1), (1, 0)]


@pytest.fixture
def maps(tmp_path):
    """Label maps of frames 0 and 2 of 4 x 3 pixels: half background, half of class 1; and a pixel
    that nobody has labelled.
    """
    image = pytest.importorskip("PIL.Image")
    labels = np.array([[0, 0, 1, 1]] * 3, np.uint8)
    labels[0, 0] = 255
    folder = tmp_path / "maps"
    folder.mkdir()
    image.fromarray(labels).save(folder / "clip_0000.png")
    coloured = image.fromarray(labels).convert("P")
    coloured.putdata(labels.ravel())
    coloured.save(folder / "clip_0002.png")
    return folder


def test_label_maps(maps):
    truth = Truth.from_file(maps)
    assert sorted(truth.annotations) == [0, 2]
    assert truth.size == (4, 3)
    task = Segmentation(["background", "thing"], activation="softmax")
    scoring = task.against(truth)
    scoring.add(0, LabelMap(np.array([[1, 0, 1, 1]] * 3, np.uint8)))
    scoring.add(1, LabelMap(np.ones((3, 4), np.uint8)))  # of which nothing is said
    scoring.add(2, LabelMap(np.array([[0, 0, 1, 1]] * 3, np.uint8)))
    figures = scoring.figures()
    assert figures["pixel_agreement"] == 20 / 22
    assert figures["miou"] == pytest.approx((8 / 10 + 12 / 14) / 2)
    assert sorted(Truth.from_file(maps, "order").annotations) == [0, 1]
    assert sorted(Truth.from_file(maps / "clip_0002.png", 2).annotations) == [0]


def test_label_maps_that_are_refused(maps, tmp_path):
    from PIL import Image

    with pytest.raises(TaskError, match="say nothing of single things"):
        task_by_name("masks").against(Truth.from_file(maps))
    Image.new("L", (5, 3)).save(maps / "3.png")
    with pytest.raises(TaskError, match=r"3\.png is of 5x3, clip_0000\.png of 4x3"):
        Truth.from_file(maps)
    Image.new("RGB", (4, 3)).save(maps / "3.png")
    with pytest.raises(TaskError, match="mode RGB; expected one label a pixel"):
        Truth.from_file(maps)
    (maps / "3.png").write_bytes(b"no picture")
    with pytest.raises(TaskError, match="cannot be read as a PNG"):
        Truth.from_file(maps)
    (maps / "3.png").rename(maps / "later_2.png")
    with pytest.raises(TaskError, match=r"two maps are of frame 2, one of them 'later_2\.png'"):
        Truth.from_file(maps)
    with pytest.raises(TaskError, match=r"holds no \*\.png"):
        Truth.from_file(tmp_path)


def test_what_is_flagged_is_neither_wrong_nor_missing(tmp_path):
    pytest.importorskip("pycocotools")
    path = mot(tmp_path, "1,1,1,1,10,10,1,1,1\n1,2,31,31,10,10,0,1,1\n2,1,31,31,10,10,0,1,1\n")
    scoring = task_by_name("detection").against(Truth.from_file(path))
    both = Instances(
        np.array([[30.0, 30, 40, 40], [0, 0, 10, 10]]), np.array([0.9, 0.8]), np.ones(2, np.int64)
    )
    scoring.add(0, both)
    nothing = Instances(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
    scoring.add(1, nothing)
    assert scoring.figures() == pytest.approx({"ap": 1, "ap50": 1})
    alone = task_by_name("detection").against(Truth.from_file(path))
    alone.add(1, nothing)
    assert alone.figures() == {"ap": 1.0, "ap50": 1.0}


@given(
    st.integers(0, 5),
    st.lists(
        st.tuples(
            st.integers(0, 20),
            *(st.integers(-99, 999) for _ in range(2)),
            *(st.integers(0, 999) for _ in range(2)),
        ),
        min_size=1,
        max_size=9,
    ),
)
def test_every_box_of_the_challenge_is_kept(tmp_path_factory, first, boxes):
    lines = [f"{frame + first},7,{x},{y},{w},{h},1,1,1" for frame, x, y, w, h in boxes]
    path = mot(tmp_path_factory.mktemp("mot"), "\n".join(lines))
    truth = Truth.from_file(path, first)
    found = [(f, *r["bbox"]) for f, rows in truth.annotations.items() for r in rows]
    assert sorted(found) == sorted((f, x - 1, y - 1, w, h) for f, x, y, w, h in boxes)


def test_categories_are_those_of_the_task(tmp_path):
    truth = Truth.from_file(coco(tmp_path))
    truth.check(COCO_NAMES)
    truth.check({})
    with pytest.raises(TaskError, match="category 1 is 'person', that of the task 'cat'"):
        truth.check({1: "cat"})
    with pytest.raises(TaskError, match="none of its categories, 1, 3, is one of the task's, 17"):
        truth.check({17: "cat"})
    kept = truth.of({1: "person"}, "bbox")
    assert [len(rows) for rows in kept.annotations.values()] == [1, 0]
    with pytest.raises(TaskError, match="an annotation of frame 3 has no segmentation"):
        truth.of({}, "segmentation")
