"""From files to profiles: the same inputs give the same file, interrupted or not."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from codec.errors import ModelError, VideoError
from codec.format.header import Preprocessing
from codec.format.profile import Profile
from codec.models.submodels import SplitModel, split_model
from codec.pipeline.calibration import CalibrationOptions, calibrate, steps_of

pytestmark = pytest.mark.video

SIZE = (64, 64)
PREPROCESSING = Preprocessing(72, 64, 0, (127_000,) * 3, (64_000,) * 3)
OPTIONS = CalibrationOptions(views=2, probes=2)
CLIP = Path(__file__).parents[1] / "bitstreams" / "clip" / "big_buck_bunny_64.mp4"


class Tiny(nn.Module):
    """Two convolutions and a head; `kind` says what comes out."""

    def __init__(self, kind: str = "classes") -> None:
        super().__init__()
        self.kind = kind
        self.first = nn.Conv2d(3, 6, 3, 4, 1)
        self.second = nn.Conv2d(6, 8, 3, 2, 1)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x: torch.Tensor) -> object:
        features = torch.relu(self.second(torch.relu(self.first(x))))
        out = self.head(features)
        if self.kind == "dense":
            return out
        if self.kind == "dict":
            return {"boxes": [out, features], "scores": out.mean((2, 3))}
        return 5 * out.mean((2, 3))


def split(kind: str = "classes", where: str = "second") -> SplitModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Tiny(kind).eval().requires_grad_(requires_grad=False)
    return split_model(model, where, SIZE, "tiny")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four pictures of blobs."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    paths = []
    for number in range(4):
        coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 9, 12)).astype(np.float32))
        fine = torch.nn.functional.interpolate(coarse, (90, 120), mode="bicubic").clamp(0, 255)
        pixels = fine[0].permute(1, 2, 0).to(torch.uint8).numpy()
        path = folder / f"{number}.ppm"
        path.write_bytes(b"P6 120 90 255\n" + pixels.tobytes())
        paths.append(path)
    return paths


def file_of(profile: Profile) -> bytes:
    file = io.BytesIO()
    profile.to_file(file)
    return file.getvalue()


def test_the_same_inputs_give_the_same_file(photographs, tmp_path):
    first = calibrate(split(), photographs, PREPROCESSING, OPTIONS)
    again = calibrate(split(), photographs, PREPROCESSING, OPTIONS)
    assert file_of(first) == file_of(again)
    first.save(tmp_path / "p.safetensors")
    loaded = Profile.load(tmp_path / "p.safetensors")
    assert loaded == first
    assert loaded.provenance == first.provenance
    expected = {"model": "tiny", "split": "second", "inputs": 4, "photographs": 4, "videos": 0}
    assert expected.items() <= first.provenance.items()
    assert 0 < first.provenance["kl_at_qp_28"] < 0.2


def test_the_seed_matters(photographs):
    one = calibrate(split(), photographs[:2], PREPROCESSING, OPTIONS)
    other = calibrate(
        split(), photographs[:2], PREPROCESSING, CalibrationOptions(views=2, probes=2, seed=1)
    )
    assert one.hash != other.hash


def interrupted_after(number: int) -> Callable[[int], None]:
    """A listener to progress in which somebody presses control-C after so many inputs."""
    left = number

    def advance(count: int) -> None:
        nonlocal left
        left -= count
        if not left:
            raise KeyboardInterrupt

    return advance


def test_an_interrupted_run_goes_on_to_the_identical_file(photographs, tmp_path):
    expected = calibrate(split(), photographs, PREPROCESSING, OPTIONS)
    partial = tmp_path / "p.partial"
    resumable = {"checkpoint": partial, "checkpoint_seconds": 0.0}
    stop = {"advance": interrupted_after(2)}
    with pytest.raises(KeyboardInterrupt):
        calibrate(split(), photographs, PREPROCESSING, OPTIONS, **resumable, **stop)
    assert partial.is_file()
    advances: list[int] = []
    found = calibrate(
        split(), photographs, PREPROCESSING, OPTIONS, **resumable, advance=advances.append
    )
    assert advances == [2, 1, 1, 8]  # of four inputs there is nothing to tell importance from
    assert sum(advances) == steps_of(4)
    assert file_of(found) == file_of(expected)
    assert list(tmp_path.iterdir()) == [partial]  # until the profile is in place


def test_the_sums_are_kept_until_the_profile_is_in_place(photographs, tmp_path):
    partial = tmp_path / "p.partial"
    failing = {"checkpoint": partial, "warn": lambda _: 1 / 0}  # all inputs are counted by then
    with pytest.raises(ZeroDivisionError):
        calibrate(split(), photographs[:2], PREPROCESSING, OPTIONS, **failing)
    advances: list[int] = []
    resumed = {"checkpoint": partial, "advance": advances.append}
    found = calibrate(split(), photographs[:2], PREPROCESSING, OPTIONS, **resumed)
    assert advances == [2, 4]
    assert file_of(found) == file_of(calibrate(split(), photographs[:2], PREPROCESSING, OPTIONS))


@pytest.mark.parametrize("change", ["shape", "dtype", "missing"])
def test_checkpoints_are_taken_over_whole_or_not_at_all(photographs, tmp_path, change):
    partial = tmp_path / "p.partial"
    arguments = (split(), photographs[:2], PREPROCESSING, OPTIONS)
    expected = calibrate(*arguments, checkpoint=partial)
    with safe_open(partial, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if change == "shape":
        tensors["0.counts"] = torch.zeros(5, dtype=torch.float64)
    elif change == "dtype":
        tensors["0.counts"] = tensors["0.counts"].float()
    else:
        del tensors["0.counts"]
    save_file(tensors, partial, metadata)
    with pytest.raises(FileExistsError):
        calibrate(*arguments, checkpoint=partial)
    assert file_of(calibrate(*arguments, checkpoint=partial, force=True)) == file_of(expected)


def test_few_inputs_are_told(photographs):
    warnings: list[str] = []
    calibrate(split(), photographs[:2], PREPROCESSING, OPTIONS, warn=warnings.append)
    assert len(warnings) == 1
    assert warnings[0].startswith("few inputs: 4 blocks for 8 channels; ")
    many = CalibrationOptions(views=20, probes=1)
    calibrate(split(), photographs, PREPROCESSING, many, warn=warnings.append)
    assert len(warnings) == 1


@pytest.mark.parametrize("other", ["seed", "inputs", "garbage"])
def test_checkpoints_of_other_jobs_are_not_gone_on_from(photographs, tmp_path, other):
    partial = tmp_path / "p.partial"
    resumable = {"checkpoint": partial, "checkpoint_seconds": 0.0}
    stop = {"advance": interrupted_after(1)}
    with pytest.raises(KeyboardInterrupt):
        calibrate(split(), photographs[:2], PREPROCESSING, OPTIONS, **resumable, **stop)
    options, sources = OPTIONS, photographs[:2]
    if other == "seed":
        options = CalibrationOptions(views=2, probes=2, seed=1)
    elif other == "inputs":
        sources = photographs[1:3]
    else:
        partial.write_bytes(partial.read_bytes()[:100])
    before = partial.read_bytes()
    with pytest.raises(FileExistsError, match=r"p\.partial: .* --force"):
        calibrate(split(), sources, PREPROCESSING, options, **resumable)
    assert partial.read_bytes() == before
    advances: list[int] = []
    resumable |= {"force": True, "advance": advances.append}
    calibrate(split(), sources, PREPROCESSING, options, **resumable)
    assert advances == [1, 1, 4]


@pytest.mark.parametrize("kind", ["dense", "dict"])
def test_outputs_that_are_no_classes(kind, photographs):
    profile = calibrate(split(kind, "first"), photographs[:2], PREPROCESSING, OPTIONS)
    assert profile.tensors[0].channels == 6
    assert 0 < profile.provenance["error_at_qp_28"] < 0.06


def test_videos_give_pairs_of_their_frames(photographs):
    sources = [photographs[0], CLIP]
    profile = calibrate(split(), sources, PREPROCESSING, OPTIONS)
    assert profile.provenance["videos"] == profile.provenance["photographs"] == 1
    assert file_of(profile) == file_of(calibrate(split(), sources, PREPROCESSING, OPTIONS))


def test_residuals_are_smaller_than_features(photographs):
    many = CalibrationOptions(views=20, probes=1)  # so that little is shrunk
    profile = calibrate(split(), photographs, PREPROCESSING, many).tensors[0]
    intra, inter = profile.bands[0].scale[:, 0]
    assert inter < intra


def test_small_budgets(photographs):
    said: list[str] = []

    def calibrated(budget: int) -> Profile:
        options = CalibrationOptions(views=2, probes=2, budget=budget)
        return calibrate(split(), photographs[:1], PREPROCESSING, options, warn=said.append)

    profile = calibrated(5000)
    assert len(profile.to_bytes()) <= 5000
    assert profile.tensors[0].bands[0].matrix.ndim == 2
    assert not [line for line in said if "budget" in line]
    assert calibrated(700).tensors[0].bands[0].matrix.ndim == 1
    (line,) = [line for line in said if "budget" in line]
    assert line.startswith("budget of 700 bytes: none of it is left for a matrix of second")
    enough = int(line.split()[-5])
    assert calibrated(enough).tensors[0].bands[0].matrix.ndim == 2


class FirstClass:
    """A task that asks for the first class alone."""

    loss, target = "first_class", 0.01

    def residuals(self, reference: object, outputs: object) -> list[torch.Tensor]:
        return [outputs[:, 0] - reference[:, 0]]

    def lost(self, reference: object, outputs: object) -> float:
        return 0.5 * float(self.residuals(reference, outputs)[0].square().sum())


def test_a_task_says_what_counts(photographs):
    options = CalibrationOptions(views=1, probes=1)
    profile = calibrate(split(), photographs[:2], PREPROCESSING, options, task=FirstClass())
    assert "first_class_at_qp_28" in profile.provenance
    assert profile != calibrate(split(), photographs[:2], PREPROCESSING, options)


def test_what_cannot_be_calibrated_on_is_refused(photographs, tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        calibrate(split(), [], PREPROCESSING, OPTIONS)
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    with pytest.raises(VideoError, match=r"text\.jpg"):
        calibrate(split(), [text], PREPROCESSING, OPTIONS)
    wide = Preprocessing(72, 72, 0, (127_000,) * 3, (64_000,) * 3)
    with pytest.raises(VideoError, match="72x72, the model was split for 64x64"):
        calibrate(split(), [CLIP], wide, OPTIONS)
    broken = split()
    broken.edge.module.first.weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        calibrate(broken, photographs[:1], PREPROCESSING, OPTIONS)
    with pytest.raises(ValueError, match="positive"):
        CalibrationOptions(views=0)
