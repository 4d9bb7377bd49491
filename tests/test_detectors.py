"""torchvision's detectors and segmentation networks, cut at their natural places."""

from __future__ import annotations

import copy

import pytest
import torch
from networks import assert_same, images

from codec.errors import ModelError
from codec.models.detectors import Detector
from codec.models.published import input_size_of, preprocessing_of
from codec.models.sources import list_models, load_model
from codec.models.split_points import describe_costs, describe_splits
from codec.models.submodels import split_model


@pytest.fixture(scope="module")
def detector() -> Detector:
    model = load_model("fasterrcnn_mobilenet_v3_large_320_fpn", "random:1")
    assert isinstance(model, Detector)
    return all_boxes(model)


def all_boxes(model: Detector) -> Detector:
    """Random weights are sure of nothing: keep what they find nevertheless."""
    for module in (model.network, getattr(model.network, "roi_heads", None)):
        if hasattr(module, "score_thresh"):
            module.score_thresh = 0.0
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "tensors"),
    [("pyramid", 2), ("laterals", 2), ("stages", 2), ("backbone.body.6", 1), ("backbone", 2)],
)
def test_detector_halves(detector, split, tensors):
    x = images(2, 96, 128)
    halves = split_model(detector, split, (96, 128))
    whole = detector(x)
    assert len(halves.tensors) == tensors
    assert min(len(found["boxes"]) for found in whole) > 0
    assert_same(halves.cloud(halves.edge(x)), whole)
    assert_same(halves.cloud(halves.edge(x)), whole)  # and leaves nothing behind


def test_halves_leave_the_detector_alone(detector):
    x = images(1, 64, 64)
    before = detector(x)
    halves = split_model(detector, "pyramid", (64, 64))
    halves.cloud(halves.edge(images(1, 64, 64, seed=1)))
    assert_same(detector(x), before)
    assert_same(copy.deepcopy(detector)(x), before)


def test_gradients_reach_the_features(detector):
    halves = split_model(detector, "pyramid", (64, 64))
    features = [tensor.requires_grad_() for tensor in halves.edge(images(1, 64, 64))]
    halves.cloud(features)[0]["scores"].sum().backward()
    assert all(tensor.grad is not None for tensor in features)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [name for name in list_models() if "_fpn" in name or "ssd" in name],
)
def test_every_detector(name):
    model = load_model(name, "random:1")
    assert isinstance(model, Detector)
    all_boxes(model)
    published = preprocessing_of(name)
    assert published is not None
    size = (96, 128) if published.short_side else published.size
    x = images(1, *size)
    whole = model(x)
    # SSD has neither; behind RetinaNet's second laterals its coarsest levels need the body, too
    lacking = {"laterals", "stages"} if "ssd" in name else set()
    if name == "retinanet_resnet50_fpn_v2":
        lacking = {"laterals"}
    for split in ("pyramid", "laterals", "stages"):
        if split in lacking:
            with pytest.raises(ModelError):
                split_model(model, split, size)
        else:
            halves = split_model(model, split, size)
            assert_same(halves.cloud(halves.edge(x)), whole)


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("lraspp_mobilenet_v3_large", ["backbone", "backbone.6", "backbone.4+backbone.16"]),
        pytest.param("deeplabv3_resnet50", ["backbone.layer1", "backbone"], marks=pytest.mark.slow),
        pytest.param("fcn_resnet50", ["backbone.layer2", "backbone"], marks=pytest.mark.slow),
    ],
)
def test_segmentation(name, splits):
    model = load_model(name, "random:1")
    x = images(2, 64, 96)
    whole = model(x)
    assert whole["out"].shape == (2, 21, 64, 96)
    for split in splits:
        halves = split_model(model, split, (64, 96))
        assert_same(halves.cloud(halves.edge(x)), whole)


def test_listed_splits_of_a_detector():
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    splits = dict(describe_splits(name))
    assert {"pyramid", "laterals", "stages", "backbone.body.6"} <= set(splits)
    assert [(spec.shape, spec.stride_y) for spec in splits["pyramid"]] == [
        ((256, 10, 10), 32),
        ((256, 10, 10), 32),
    ]
    costs = {split: cost for split, _, cost in describe_costs(name)}
    assert costs["stages"].edge_macs < costs["laterals"].edge_macs < costs["pyramid"].edge_macs


def test_published_inputs():
    ssd = preprocessing_of("ssd300_vgg16")
    assert ssd is not None
    assert (ssd.size, ssd.short_side, ssd.scale) == ((300, 300), 0, (1.0, 1.0, 1.0))
    assert ssd.mean == pytest.approx((123, 117, 104), abs=0.01)
    faster = preprocessing_of("fasterrcnn_resnet50_fpn")
    assert faster is not None
    assert (faster.short_side, faster.max_side) == (800, 1333)
    assert input_size_of("fcn_resnet50") == (520, 520)
    assert input_size_of("resnet18") == input_size_of("efficientnet_lite0") == (224, 224)


def test_a_file_has_the_weights_of_a_segmentation_network_with_its_training_head(tmp_path):
    model = load_model("lraspp_mobilenet_v3_large", "random:3")
    extra = {"aux_classifier.0.weight": torch.zeros(1)}
    torch.save({**model.state_dict(), **extra}, tmp_path / "net.pth")
    again = load_model("lraspp_mobilenet_v3_large", str(tmp_path / "net.pth"))
    assert_same(again(images(1, 32, 32)), model(images(1, 32, 32)))
