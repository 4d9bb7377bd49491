"""The anchor that sends the answer: every byte is read again, and the first class is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tools.contenders.anchors import ANCHORS
from tools.contenders.labels import EVERYTHING, HEADER, LARGEST, Labels, decode, encode
from tools.contenders.scene import Scene

CLIP = Path(__file__).resolve().parent.parent / "bitstreams" / "clip" / "big_buck_bunny_64.mp4"
BOTH = pytest.mark.parametrize("representation", [LARGEST, EVERYTHING], ids=lambda one: one.variant)


def outputs(frames: int, classes: int, *, seed: int = 0, drift: float = 0.3) -> np.ndarray:
    """Log-probabilities that change slowly, as those of a clip do."""
    generator = np.random.default_rng(seed)
    logits = 2 * generator.normal(size=classes) + np.cumsum(
        drift * generator.normal(size=(frames, classes)), 0
    )
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def divergence(reference: np.ndarray, found: np.ndarray) -> float:
    return float((np.exp(reference) * (reference - found)).sum(1).mean())


@BOTH
@pytest.mark.parametrize("classes", [2, 3, 5, 6, 40, 1000])
def test_what_is_decoded_are_probabilities_whose_first_class_is_kept(representation, classes):
    reference = outputs(6, classes)
    for step in representation.points:
        found = decode(encode(reference, representation, step), representation)
        assert found.shape == reference.shape
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.exp(found.astype(np.float64)).sum(1), 1, atol=1e-5)
        assert (found.argmax(1) == reference.argmax(1)).all()


@BOTH
def test_first_class_is_kept_where_steps_leave_a_tie(representation):
    reference = np.log(np.full((3, 8), 1 / 8)) + 1e-6 * np.eye(8)[[5, 7, 0]]
    found = decode(encode(reference, representation, representation.points[0]), representation)
    assert found.argmax(1).tolist() == [5, 7, 0]


def test_five_probabilities_come_back_to_half_a_step():
    reference = outputs(9, 50, drift=1.0)
    for step in LARGEST.points:
        found = decode(encode(reference, LARGEST, step), LARGEST).astype(np.float64)
        for actual, other in zip(reference, found, strict=True):
            order = np.argsort(-actual)
            ratios, decoded = (one[order[0]] - one[order[1:5]] for one in (actual, other))
            # what leads by a tie-break leads by that much more
            assert np.abs(ratios - decoded).max() <= step / 2 + 2e-3
            assert np.ptp(other[order[5:]]) < 1e-6, "the rest is spread evenly"


def test_all_probabilities_come_back_better_with_every_step():
    reference = outputs(9, 50)
    found = [divergence(reference, decode(encode(reference, EVERYTHING, step), EVERYTHING))
             for step in EVERYTHING.points]  # fmt: skip
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.01


@BOTH
def test_what_repeats_is_cheap(representation):
    still = np.repeat(outputs(1, 1000), 200, 0)
    step = representation.points[1]
    once, often = (len(encode(frames, representation, step)) for frames in (still[:1], still))
    assert (often - once) / 199 < 1.5
    assert often < len(encode(outputs(200, 1000, drift=1.0), representation, step)) / 3


@BOTH
def test_a_decoder_needs_every_byte(representation):
    reference = outputs(12, 100)
    content = encode(reference, representation, representation.points[-1])
    whole = decode(content, representation)
    assert content[: HEADER.size] == HEADER.pack(12, 100, representation.points[-1])
    np.testing.assert_array_equal(decode(content, representation), whole)
    for cut in (4, 8):
        try:
            found = decode(content[:-cut], representation)
        except AssertionError:  # constriction's, of a message that ends too soon
            continue
        if cut > 4:  # the last word may say little
            assert not np.array_equal(found, whole)


@pytest.mark.video
@pytest.mark.weights
def test_bytes_counted_are_bytes_decoded_from(monkeypatch):
    scene = Scene.load(CLIP, model="efficientnet_lite0", weights="default", split="", frames=4)
    read = []

    def watched(content, representation):
        read.append(len(content))
        return decode(content, representation)

    monkeypatch.setattr("tools.contenders.labels.decode", watched)
    for codec in ANCHORS["labels"]:
        assert isinstance(codec, Labels)
        for point in codec.points:
            coded = codec.code(scene, point)
            assert coded.size == read[-1]
            fidelity = scene.judge(coded)
            assert fidelity.top1.all()
            assert fidelity.kl.mean() > 0
            assert fidelity.nrmse is None
            assert fidelity.dense is None


def test_outputs_of_another_shape_are_refused():
    scene = Scene.load(CLIP, model="efficientnet_lite0", weights="default", split="", frames=1)
    coded = ANCHORS["labels"][0].code(scene, 1.0)
    object.__setattr__(coded, "outputs", coded.outputs[:, :-1])
    with pytest.raises(ValueError, match=r"outputs of shape \(1, 999\), expected \(1, 1000\)"):
        scene.judge(coded)
