"""Keys of measurements: two of one key have one result."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from codec.planning import measurement
from codec.planning.measurement import CutJob, Setting, TimesJob
from codec.running.keys import weights_identity

CLIP = Path(__file__).parents[1] / "bitstreams" / "clip" / "big_buck_bunny_64.mp4"
PUBLISHED = "resnet50-0676ba61.pth"
"""torchvision's first weights of it, whose frames are scaled to 256; those of the second to 232."""
PREPROCESSING = 'resize = "stretch"\nsize = [64, 64]\nmean = [0, 0, 0]\nscale = [255, 255, 255]\n'


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, str]:
    """Files of one content by their names."""
    paths = {name: tmp_path / name for name in (PUBLISHED, "mine.pth", "copy.pth")}
    for path in paths.values():
        path.write_bytes(b"the same")
    return {name: str(path) for name, path in paths.items()}


def test_a_name_that_says_how_frames_are_prepared_counts(
    tmp_path: Path, weights: dict[str, str]
) -> None:
    for of in (
        lambda file: weights_identity("resnet50", file, None),
        lambda file: Setting("resnet50", file, None, None, 2).identity(),
    ):
        assert of(weights[PUBLISHED]) != of(weights["mine.pth"])
        assert of(weights["copy.pth"]) == of(weights["mine.pth"])
    said = tmp_path / "input.toml"
    said.write_text(PREPROCESSING)
    found = [weights_identity("resnet50", file, said) for file in weights.values()]
    assert found == found[:1] * 3


def test_words_for_weights_stand_for_themselves() -> None:
    assert weights_identity("resnet50", "random:0", None) == "random:0"


def cut(model: str, split: str, *photographs: Path) -> CutJob:
    setting = Setting(model, "default" if "lite" in model else "random:0", None, None, 2)
    return CutJob(setting, CLIP, "content", split, 0.07, photographs, (CLIP,), Path("profiles"))


def test_a_measured_profile_is_known_by_what_it_was_measured_on_and_how(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = cut("resnet18", "add_6")
    key = job.key
    assert cut("resnet18", "add_6", CLIP).key != key
    monkeypatch.setattr(measurement, "PAIRS", measurement.PAIRS + 1)
    assert job.key != key


@pytest.mark.weights
def test_what_a_shipped_profile_is_not_measured_on_does_not_count() -> None:
    job = cut("efficientnet_lite0", "blocks.7")
    assert cut("efficientnet_lite0", "blocks.7", CLIP).key == job.key
    assert cut("efficientnet_lite0", "blocks.10").key != job.key


def test_times_are_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    job = TimesJob((), None, Setting("resnet18", "random:0", None, None, 2), CLIP, "content")
    key = job.key
    monkeypatch.setattr(platform, "node", lambda: "another")
    assert job.key != key
