"""Networks in ONNX files, if their converter is installed."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from networks import assert_same, images

from codec.errors import ModelError
from codec.models.sources import load_model
from codec.models.submodels import split_model


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx2torch", None)
    with pytest.raises(ModelError, match=r"pip install 'latent-motion-codec\[onnx\]'"):
        load_model(str(tmp_path / "net.onnx"))


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
