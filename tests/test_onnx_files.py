"""Networks in ONNX files, if their converter is installed."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from networks import assert_same, images

from codec.errors import ModelError
from codec.models.boundary import quiet
from codec.models.sources import load_model
from codec.models.split_points import describe_splits
from codec.models.submodels import split_model


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx2torch", None)
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x08\x08")
    with pytest.raises(ModelError, match=r"pip install 'latent-motion-codec\[onnx\]'"):
        load_model(str(path))


def test_arithmetic_of_sizes(tmp_path):
    """As exporters write a segmentation: to the size of the image, and one bias for two layers."""
    pytest.importorskip("onnx2torch")
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    values = {
        "w1": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "b1": rng.standard_normal(4).astype(np.float32),
        "w2": rng.standard_normal((4, 4, 3, 3)).astype(np.float32),
        **{f"k{k}": np.array([k], np.int64) for k in (0, 2, 4)},
    }
    window = {"pads": [1, 1, 1, 1], "strides": [2, 2], "kernel_shape": [3, 3]}
    nodes = [
        helper.make_node("Identity", ["b1"], ["b2"]),
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="first", **window),
        helper.make_node("Relu", ["c1"], ["r1"], name="act"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="second", **window),
        helper.make_node("Shape", ["x"], ["size"]),
        helper.make_node("Slice", ["size", "k2", "k4", "k0"], ["sides"]),
        helper.make_node("Shape", ["c2"], ["shape"]),
        helper.make_node("Slice", ["shape", "k0", "k2", "k0"], ["front"]),
        helper.make_node("Concat", ["front", "sides"], ["sizes"], axis=0),
        helper.make_node("Resize", ["c2", "", "", "sizes"], ["y"], mode="linear"),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in [("x", ["n", 3, "h", "w"]), ("y", ["n", 4, "h", "w"])]
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = tmp_path / "net.onnx"
    onnx.save(made, path)
    model = load_model(str(path))
    listed = [(split, spec.shape) for split, (spec,) in describe_splits(str(path), (32, 48))]
    assert listed == [("relu", (4, 16, 24)), ("conv2d_1", (4, 8, 12))]
    halves = split_model(model, "relu", (32, 48))
    x = images(3, 32, 48)
    with quiet():  # the converter's own module indexes by a list
        expected = torch.cat([model(one[None]) for one in x])
    assert_same(halves.cloud(halves.edge(x)), expected)
    with pytest.raises(ModelError, match="no input size of its own"):
        describe_splits(str(path))
    for side, size in zip(
        made.graph.input[0].type.tensor_type.shape.dim, (1, 3, 32, 48), strict=True
    ):
        side.dim_value = size
    onnx.save(made, path)
    assert [split for split, _ in describe_splits(str(path))] == ["relu", "conv2d_1"]


def test_halves(tmp_path):
    pytest.importorskip("onnx2torch")
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in [("w1", (4, 3, 3, 3)), ("b1", (4,)), ("w2", (5, 4, 3, 3)), ("b2", (5,))]
    ]
    window = {"pads": [1, 1, 1, 1], "strides": [2, 2], "kernel_shape": [3, 3]}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="first", **window),
        helper.make_node("Relu", ["c1"], ["r1"], name="act"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["y"], name="second", **window),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in [("x", ["n", 3, 32, 32]), ("y", ["n", 5, 8, 8])]
    ]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    made.ir_version = 8
    path = tmp_path / "net.onnx"
    onnx.save(made, path)
    model = load_model(str(path))
    x = images(2, 32, 32)
    halves = split_model(model, "act", (32, 32))
    assert_same(halves.cloud(halves.edge(x)), model(x))
    (spec,) = halves.tensors
    assert (spec.shape, spec.stride_y, spec.offset_y2) == ((4, 16, 16), 2, 0)
    path.write_bytes(b"no network")
    with pytest.raises(ModelError, match=r"net\.onnx: cannot be converted"):
        load_model(str(path))
