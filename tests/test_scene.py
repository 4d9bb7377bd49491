"""The scene: it judges what it is given, frame by frame, whoever asks and in whatever thread."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from codec.errors import ModelError, VideoError
from codec.models.preprocessing import default_preprocessing, normalise, normalise_float
from tools.contenders.scene import Coded, Scene

pytestmark = [pytest.mark.slow, pytest.mark.video, pytest.mark.weights]

CLIP = Path(__file__).resolve().parent.parent / "bitstreams" / "clip" / "big_buck_bunny_64.mp4"
FRAMES = 3


def load(model: str = "efficientnet_lite0", split: str = "blocks.10", **options: object) -> Scene:
    weights = "default" if model == "efficientnet_lite0" else "random:0"
    settings = {"weights": weights, "frames": FRAMES, **options}
    return Scene.load(CLIP, model=model, split=split, **settings)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return load()


def test_what_it_loads(scene: Scene) -> None:
    assert (scene.clip, scene.frames, scene.frame_rate) == (CLIP.name, FRAMES, 25)
    assert scene.rgb.shape == (FRAMES, 224, 224, 3)
    assert [tensor.shape for tensor in scene.features] == [(FRAMES, 112, 14, 14)]
    assert scene.reference.shape == (FRAMES, 1000)
    assert scene.dense_reference.shape == (FRAMES, 49)


def test_the_reference_is_the_output_of_the_whole_model(scene: Scene) -> None:
    with torch.no_grad():
        expected = scene.network(normalise(scene.rgb, scene.preprocessing))
    assert torch.allclose(scene.reference, expected, atol=1e-4)


def test_identical_features_are_perfect(scene: Scene) -> None:
    fidelity = scene.judge(Coded(1, features=scene.features))
    assert fidelity.kl.shape == fidelity.top1.shape == fidelity.dense.shape == (FRAMES,)
    assert fidelity.kl.max() == 0
    assert fidelity.top1.all()
    assert (fidelity.dense == 1).all()
    assert fidelity.nrmse == 0
    assert fidelity.accuracy is None
    assert fidelity.seconds_cloud > 0


def test_damage_shows_in_its_frame_alone(scene: Scene) -> None:
    damaged = scene.features[0].copy()
    damaged[1] = damaged[1, :, ::-1]
    fidelity = scene.judge(Coded(1, features=(damaged,)))
    assert fidelity.kl[[0, 2]].max() == 0 < fidelity.kl[1]
    assert fidelity.dense[[0, 2]].min() == 1 > fidelity.dense[1]
    extent = float(np.ptp(scene.features[0]))
    expected = np.sqrt(np.square(damaged - scene.features[0]).mean()) / extent
    assert fidelity.nrmse == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("split", ["", "blocks.10"])
def test_images_go_through_the_whole_model(split: str) -> None:
    """With a split as well; integers and floats alike."""
    scene = load(split=split)
    images = scene.rgb.astype(np.float32)
    assert scene.judge(Coded(1, images=images)).kl.max() < 1e-6
    worse = scene.judge(Coded(1, images=np.clip(images + 40, 0, 255)))
    assert worse.kl.min() > 1e-3
    assert worse.nrmse is None


def test_dense_agreement_is_that_of_the_classifier_at_every_position(scene: Scene) -> None:
    """The mean of the positions' logits is the logits of the pooled map: a linear classifier."""
    task = scene._task
    last = task.body(torch.from_numpy(scene.features[0]))
    positions = last.permute(0, 2, 3, 1).reshape(-1, last.shape[1], 1, 1)
    logits = task.head([positions]).reshape(FRAMES, 49, -1)
    assert torch.allclose(logits.mean(1), scene.reference, atol=1e-4)
    assert np.array_equal(logits.argmax(-1).numpy(), scene.dense_reference)


@pytest.mark.parametrize(
    ("model", "split", "positions"),
    [
        ("resnet34", "add_3", 49),
        ("resnet34", "", 49),
        ("densenet121", "features.denseblock3.denselayer4", 49),  # several tensors
        ("densenet121", "features.norm5", 49),  # at the last map itself
        ("vgg11", "", None),  # its classifier wants all positions at once
    ],
)
def test_dense_agreement_of_other_models(model: str, split: str, positions: int | None) -> None:
    scene = load(model, split, frames=1)
    coded = (
        Coded(1, features=scene.features)
        if split
        else Coded(1, images=scene.rgb.astype(np.float32))
    )
    fidelity = scene.judge(coded)
    assert fidelity.kl.max() < 1e-6
    if positions is None:
        assert scene.dense_reference is None
        assert fidelity.dense is None
    else:
        assert scene.dense_reference.shape == (1, positions)
        assert (fidelity.dense == 1).all()


def test_accuracy_counts_true_classes(scene: Scene) -> None:
    best = scene.reference.argmax(-1).numpy()
    coded = Coded(1, features=scene.features)
    assert scene.judge(coded, best).accuracy == 1
    assert scene.judge(coded, np.where([True, False, False], best, best + 1)).accuracy == (
        pytest.approx(1 / 3)
    )


def test_gradients_stay_off_in_a_thread_of_its_own(scene: Scene) -> None:
    """Workers of a cluster run jobs in threads, where torch's setting is the default again."""
    found: list[bool] = []

    def work() -> None:
        assert torch.is_grad_enabled()
        own = load(frames=1)
        fidelity = own.judge(Coded(1, features=own.features))
        found.extend([own.reference.requires_grad, bool(fidelity.kl.max() == 0)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False, True]


def test_a_short_clip_gives_what_it_has() -> None:
    path = CLIP.with_name("car_24.mp4")
    scene = Scene.load(path, model="resnet18", weights="random:0", split="", frames=1000)
    assert scene.frames == len(scene.rgb) == 24


def test_what_it_refuses(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"blocks\.99"):
        load(split="blocks.99")
    with pytest.raises(VideoError):
        Scene.load(tmp_path / "no.mp4", model="resnet34", weights="random:0", split="", frames=1)
    with pytest.raises(ValueError, match="features of shapes"):
        scene.judge(Coded(1, features=(scene.features[0][:2],)))
    with pytest.raises(ValueError, match="images of shape"):
        scene.judge(Coded(1, images=np.zeros((1, 8, 8, 3), np.float32)))
    with pytest.raises(ValueError, match="bytes of 2 frames, expected 3"):
        scene.judge(Coded(2, features=scene.features, frame_bytes=(1, 1)))


def test_what_is_no_result() -> None:
    tensors = (np.zeros((1, 1, 2, 2), np.float32),)
    with pytest.raises(ValueError, match="one of features, images and outputs"):
        Coded(1)
    with pytest.raises(ValueError, match="one of features, images and outputs"):
        Coded(1, features=tensors, images=np.zeros((1, 2, 2, 3), np.float32))
    with pytest.raises(ValueError, match="size of 0 bytes"):
        Coded(0, features=tensors)
    with pytest.raises(ValueError, match="frames of 3 bytes in sum, of 4 bytes altogether"):
        Coded(4, features=tensors, frame_bytes=(1, 2))


@pytest.mark.parametrize("model", ["efficientnet_lite0", "resnet34"])
def test_float_frames_are_normalised_like_integers(model: str) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    preprocessing = default_preprocessing(model, native=False)
    expected = normalise(rgb, preprocessing)
    assert normalise_float(rgb.astype(np.float32), preprocessing).equal(expected)
