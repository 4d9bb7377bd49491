"""COCO's run lengths, overlaps and suppression, against naive and foreign ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from codec.tasks.boxes import box_iou, matches, suppress
from codec.tasks.rle import decode_mask, encode_mask, mask_iou

MASKS = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(lambda s: arrays(bool, s))


@given(MASKS)
def test_masks_survive_their_run_lengths(mask):
    encoded = encode_mask(mask)
    assert encoded["size"] == list(mask.shape)
    assert (decode_mask(encoded) == mask).all()


@given(MASKS)
def test_run_lengths_are_those_of_pycocotools(mask):
    foreign = pytest.importorskip("pycocotools.mask")
    expected = foreign.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encode_mask(mask)["counts"] == expected["counts"].decode()


def test_long_runs():
    mask = np.zeros((1080, 1920), bool)
    mask[200:900, 300:1500] = True
    assert (decode_mask(encode_mask(mask)) == mask).all()
    assert len(encode_mask(mask)["counts"]) < 4000


def test_counts_may_be_a_list():
    assert decode_mask({"size": [2, 2], "counts": [1, 2, 1]}).tolist() == [
        [False, True],
        [True, False],
    ]


@pytest.mark.parametrize("counts", [[1, 2], [5], [-1, 5], "4"])
def test_runs_that_do_not_fill_the_mask_are_refused(counts):
    if counts == "4":
        assert decode_mask({"size": [2, 2], "counts": counts}).sum() == 0
        return
    with pytest.raises(ValueError, match="expected 4"):
        decode_mask({"size": [2, 2], "counts": counts})


def test_overlap_of_masks():
    one = np.array([[True, True], [False, False]])
    other = np.array([[True, False], [True, False]])
    assert mask_iou(one, other) == pytest.approx(1 / 3)
    assert mask_iou(one & False, other & False) == 1.0


@st.composite
def boxes(draw):
    count = draw(st.integers(0, 25))
    numbers = draw(arrays(np.float64, (count, 4), elements=st.integers(0, 30).map(float)))
    numbers[:, 2:] += numbers[:, :2] + 1
    scores = draw(arrays(np.float64, count, elements=st.floats(0, 1, width=32), unique=True))
    labels = draw(arrays(np.int64, count, elements=st.integers(0, 2)))
    return numbers, scores, labels


def naive(found, scores, labels, most_iou):
    kept = []
    for i in sorted(range(len(found)), key=lambda k: -scores[k]):
        for j in kept:
            low = np.maximum(found[i, :2], found[j, :2])
            high = np.minimum(found[i, 2:], found[j, 2:])
            common = max(high[0] - low[0], 0) * max(high[1] - low[1], 0)
            areas = [np.prod(found[k, 2:] - found[k, :2]) for k in (i, j)]
            if labels[i] == labels[j] and common / (sum(areas) - common) > most_iou:
                break
        else:
            kept.append(i)
    return kept


@given(boxes(), st.sampled_from([0.0, 0.3, 0.6, 1.0]))
def test_suppression_is_the_naive_one(case, most_iou):
    assert suppress(*case, most_iou, 100).tolist() == naive(*case, most_iou)


@given(boxes())
def test_suppression_is_that_of_torchvision(case):
    from torchvision.ops import batched_nms
    from torchvision.ops import box_iou as foreign_iou

    found, scores, labels = (torch.from_numpy(part) for part in case)
    expected = batched_nms(found, scores, labels, 0.55)
    assert suppress(*case, 0.55, 100).tolist() == expected.tolist()
    np.testing.assert_allclose(box_iou(case[0], case[0]), foreign_iou(found, found).numpy())


def test_suppression_keeps_the_most_certain():
    found = np.array([[0, 0, 1, 1], [5, 5, 6, 6], [9, 9, 10, 10]], float)
    kept = suppress(found, np.array([0.1, 0.9, 0.5]), np.zeros(3, np.int64), 0.5, 2)
    assert kept.tolist() == [1, 2]


@given(boxes())
def test_everything_is_matched_with_itself(case):
    found, _, labels = case
    pairs = matches(found, labels, found, labels)
    assert sorted(i for i, _ in pairs) == list(range(len(found)))
    assert all((found[i] == found[j]).all() and labels[i] == labels[j] for i, j in pairs)
