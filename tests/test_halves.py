"""Networks in two callables, and with a stream between them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import codec
from codec.errors import FeatureError, ModelError
from codec.models.preprocessing import normalise
from codec.models.weights import weights_in_header
from codec.pipeline.halves import as_tensor

CLIP = Path(__file__).parents[1] / "bitstreams" / "clip" / "car_24.mp4"


class Skipping(nn.Module):
    """A small network whose head takes two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 4, 1)
        self.second = nn.Conv2d(4, 6, 3, 2, 1)
        self.head = nn.Linear(10, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first = self.first(images).relu()
        second = self.second(first).relu()
        return self.head(torch.cat([first.mean((2, 3)), second.mean((2, 3))], 1))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return Skipping().eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(20, 3, 64, 96, generator=generator)


def through(features, edge, **options) -> codec.Clip:
    file = io.BytesIO()
    codec.encode(features, file, split=edge, **options)
    file.seek(0)
    return codec.open(file)


@pytest.mark.parametrize("at", ["first", "relu", "second"])
def test_both_halves_make_the_whole(network, images, at):
    edge, cloud = codec.split(network, at=at, size=(64, 96))
    features = edge(images)
    assert isinstance(features, dict) == (at == "second")
    torch.testing.assert_close(cloud(features), network(images))
    assert edge.tensors == cloud.tensors
    assert edge.tensors[0].stride_y == 4


def test_a_stream_fits_between_them(network, images):
    edge, cloud = codec.split(network, at="second", size=(64, 96))
    features = edge(images)
    clip = through(features, edge, qp=4)
    assert (clip.header.model, clip.header.split, clip.header.preprocessing) == ("", "", None)
    assert clip.tensors == edge.tensors
    assert (clip.header.input_height, clip.header.input_width) == (64, 96)
    batch = clip[:]
    torch.testing.assert_close(cloud(batch.features), network(images), atol=0.02, rtol=0)
    torch.testing.assert_close(cloud(batch.numpy()), cloud(batch.features))
    torch.testing.assert_close(cloud(list(batch.features.values())), cloud(batch.features))


def test_one_tensor_goes_through_as_one_tensor(network, images):
    edge, cloud = codec.split(network, at="relu", size=(64, 96))
    clip = through(edge(images.numpy()), edge, qp=4)
    assert clip[3:5].features.shape == (2, 4, 16, 24)
    torch.testing.assert_close(cloud(clip[3:5].features), network(images[3:5]), atol=0.02, rtol=0)
    assert repr(cloud).startswith("<Cloud of a network of your own at relu: relu (4, 16, 24), n^k")


def test_high_efforts_see_the_cloud(network, images):
    edge, _ = codec.split(network, at="relu", size=(64, 96))
    features = edge(images[:4])
    plain = through(features, edge, qp=30, effort=4)
    seeing = through(features, edge, qp=30, effort=7)
    assert any(a.md5() != b.md5() for a, b in zip(plain, seeing, strict=True))


def test_the_encoder_runs_where_the_edge_runs(network, images, monkeypatch):
    edge, cloud = codec.split(network, at="relu", size=(64, 96))
    features, found = edge(images[:2]), []
    monkeypatch.setattr(
        "codec.pipeline.writing.Encoder",
        lambda *given, device, **options: (
            found.append(device) or codec.Encoder(*given, device=device, **options)
        ),
    )
    through(features, edge)
    through(features, edge, device="cpu")
    assert found == [edge.device, "cpu"]
    with pytest.raises(TypeError, match="split is a Cloud, expected the edge of"):
        through(features, cloud)


def test_features_of_another_split_are_refused(network, images):
    edge, cloud = codec.split(network, at="relu", size=(64, 96))
    other, _ = codec.split(network, at="second", size=(64, 96))
    with pytest.raises(ValueError, match="a split knows stride, offset and size"):
        through(edge(images), edge, stride=4)
    with pytest.raises(FeatureError, match=r"features named .*, expected relu"):
        through(other(images), edge)
    with pytest.raises(ModelError, match=r"features named .*, expected relu"):
        cloud(other(images))
    with pytest.raises(ModelError, match=r"features of shapes \[\(4, 16, 24\)\], expected batches"):
        cloud(edge(images)[0])
    with pytest.raises(ModelError, match=r"expected batches \(N, C, H, W\) of \[\(4, 16, 24\)\]"):
        cloud([edge(images), edge(images)])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 64, 96, 3), np.uint8), "how a network of your own wants them normalised"),
        (torch.zeros(3, 64, 96), r"images of shape \(3, 64, 96\), expected \(N, 3, H, W\)"),
        (torch.zeros(1, 3, 64, 64), r"height and width \(64, 96\)"),
        (torch.zeros(1, 4, 64, 96), "the edge does not run on"),
    ],
)
def test_images_that_the_edge_does_not_take(network, images, message):
    edge, _ = codec.split(network, at="relu", size=(64, 96))
    with pytest.raises(ModelError, match=message):
        edge(images)


@pytest.mark.parametrize("images", [np.zeros((0, 64, 96, 3), np.uint8), torch.zeros(0, 3, 64, 96)])
def test_no_images_have_no_features(images):
    halves = codec.SplitModel.of(
        lambda batch: batch.view(batch.size(0), -1, 8, 8, 12, 8).mean((3, 5)),  # not of nothing
        lambda features: features,
        [codec.TensorSpec("t", 3, 8, 12, 8, 8)],
        (64, 96),
    )
    preprocessing = codec.default_preprocessing("resnet18", native=False)
    edge = codec.Edge(halves, "", bytes(8), preprocessing, torch.device("cpu"))
    assert edge(torch.zeros(1, 3, 64, 96)).shape == (1, 3, 8, 12)
    features = edge(images)
    assert features.shape == (0, 3, 8, 12)
    with pytest.raises(FeatureError, match="features of no frames, expected at least one"):
        codec.encode(features, io.BytesIO(), split=edge)
    with pytest.raises(ModelError, match="height and width"):
        edge(torch.zeros(0, 3, 64, 64))


def test_what_cannot_be_split(network):
    with pytest.raises(ValueError, match="needs size="):
        codec.split(network, at="relu")
    with pytest.raises(ValueError, match="brings its weights"):
        codec.split(network, at="relu", size=(64, 96), weights="random:0")
    with pytest.raises(ModelError, match="unknown model 'resnet3'"):
        codec.split("resnet3", at="add_3")
    with pytest.raises(ModelError, match="layer9"):
        codec.split("resnet18", at="layer9", weights="random:0")


@pytest.mark.parametrize("size", [32, (32,), (32.0, 32), "ab", (1, 2, 3)])
def test_a_size_is_a_pair_of_integers(network, size):
    with pytest.raises(ValueError, match=r"expected \(height, width\), two integers"):
        codec.split(network, at="relu", size=size)


def test_views_and_foreign_bytes_are_taken(network, images):
    edge, _ = codec.split(network, at="relu", size=(64, 96))
    array = images[:2].numpy()
    for same in (array[:, ::-1].copy()[:, ::-1], array.astype(">f4")):
        assert torch.equal(edge(same), edge(array))
    assert as_tensor(np.float32(1)).shape == ()


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ("default", "default"),
        ("random:7", "random:7"),
        ("/home/me/nets/mine.safetensors", "mine.safetensors"),
        ("a\nb.pth", "a?b.pth"),
    ],
)
def test_a_stream_names_weights_but_no_folder(weights, named):
    assert weights_in_header(weights) == named


@pytest.mark.slow
@pytest.mark.parametrize("size", [None, (96, 100)])
def test_a_named_model_names_itself(size):
    edge, cloud = codec.split("resnet18", at="layer2", weights="random:0", size=size)
    height, width = size or (224, 224)
    frames = np.random.default_rng(0).integers(0, 255, (2, height, width, 3), np.uint8)
    assert cloud(edge(frames)).shape == (2, 1000)
    assert torch.equal(edge(frames[..., ::-1].copy()[..., ::-1]), edge(frames))
    assert torch.equal(edge(frames[0]), edge(normalise(frames[0], edge.preprocessing)))
    with pytest.raises(ModelError, match=r"uint8 frames of shape \(2, 3, 9, 9\)"):
        edge(np.zeros((2, 3, 9, 9), np.uint8))
    header = through(edge(frames), edge, motion=frames).header
    assert (header.model, header.split, header.weights) == ("resnet18", "layer2", "random:0")
    assert header.weights_hash == edge.weights_hash != bytes(8)
    assert (header.input_height, header.input_width) == (height, width)
    assert header.preprocessing == edge.preprocessing


@pytest.mark.video
@pytest.mark.weights
def test_a_video_through_the_default_model(tmp_path):
    edge, cloud = codec.split(at="blocks.10")
    with codec.VideoReader(CLIP, edge.preprocessing, frames=(0, 3)) as video:
        frames = np.stack([frame.rgb for frame in video])
    features = edge(frames)
    codec.encode(features, tmp_path / "clip.lmc", qp=4, split=edge, motion=frames)
    clip = codec.open(tmp_path / "clip.lmc")
    assert clip.header.profile is None  # the shipped one
    found, actual = (cloud(each).softmax(1) for each in (clip[:].features, features))
    assert (found - actual).abs().max() < 0.05
