"""Lists of where networks can be cut."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from codec.models.sources import load_model
from codec.models.split_points import describe_splits


def test_bundled_splits():
    found = [
        (split, spec.channels, spec.height, spec.width, spec.stride_y, spec.stride_x)
        for split, (spec,) in describe_splits("efficientnet_lite0")
    ]
    assert found == [
        ("blocks.2", 24, 56, 56, 4, 4),
        ("blocks.4", 40, 28, 28, 8, 8),
        ("blocks.7", 80, 14, 14, 16, 16),
        ("blocks.10", 112, 14, 14, 16, 16),
        ("blocks.14", 192, 7, 7, 32, 32),
    ]


def names_of(model: str) -> list[str]:
    return [split for split, _ in describe_splits(model)]


@pytest.mark.slow
def test_listed_splits():
    assert names_of("resnet34") == ["add", *(f"add_{k}" for k in range(1, 16))]
    dense = names_of("densenet121")
    assert {f"features.denseblock3.denselayer{k}" for k in range(1, 24)} <= set(dense)
    assert {"features.denseblock3", "features.transition3"} <= set(dense)
    assert names_of("googlenet")[-1] == "inception5b"
    assert names_of("regnet_y_400mf")[0] == "add"
    assert names_of("vit_b_16") == ["add", *(f"add_{k}" for k in range(1, 25))]


def test_lists_leave_the_generator_alone():
    state = torch.get_rng_state()
    describe_splits("regnet_x_400mf")
    load_model("resnet18", "random:5")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
def test_splits_are_described_at_the_size_of_the_model():
    (_, (spec,)), *_ = describe_splits("efficientnet_v2_l")
    assert (spec.height, spec.stride_y) == (240, 2)


def test_import_needs_no_torchvision():
    code = "import codec.models.split_points, sys; sys.exit('torchvision' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, b"", b"")
