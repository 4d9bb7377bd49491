"""A model cut in two: the edge sub-model before the split, the cloud sub-model behind it.

    images ─► edge ─► tensors, one per `TensorSpec` ─► cloud ─► the model's output

Any network that `models.tracing` takes can be cut, any exported program, a detector in its
backbone, and any pair of callables is one by `SplitModel.of`.  Where samples lie is derived in
`models.geometry`, or else measured, what is on which side in `models.cut`.  Nothing here codes
tensors or reads videos.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from codec.errors import ModelError
from codec.format.header import TensorSpec
from codec.models.boundary import as_model_error, dtype_name, first_line
from codec.models.cut import Cut, Locate, cloud_graph, cut_behind, edge_graph
from codec.models.detectors import Detector, natural_names
from codec.models.geometry import Axis, Geometry, geometries_of
from codec.models.measuring import measured_geometry
from codec.models.onnx_files import OnnxNetwork
from codec.models.programs import Program, by_sample, export
from codec.models.tracing import TracedModel, UntraceableError, trace, unwrapped

__all__ = ["CloudSubmodel", "EdgeSubmodel", "SplitModel", "graph_of", "split_model"]


class EdgeSubmodel:
    """The half beside the camera: images (N, 3, H, W) -> a tensor (N, C, H, W) per `TensorSpec`.

    Args:
        module: computes the tensors.
        batch: the only size of batches that it takes; others go through it in parts.
    """

    def __init__(self, module: Callable[..., Any], batch: int | None = None) -> None:
        self.module: Any = module
        self.batch = batch

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the tensors that cross the split, in the order of their specs.

        Raises:
            ModelError: the images are none that the model takes, or lie elsewhere than it does.
        """
        with as_model_error(f"the edge does not run on {_described([images])}"):
            if images.ndim != 4:
                raise ValueError("expected a batch of images (N, 3, H, W)")
            found = by_sample(self.module, (images,), self.batch)
            return (found,) if isinstance(found, torch.Tensor) else tuple(found)


class CloudSubmodel:
    """The half behind the network: the coded tensors, left as they are -> the model's output.

    Args:
        module: computes the output, whatever it is: tensors, or containers of them.
        tensors: how many it takes.
        batch: as of `EdgeSubmodel`.
    """

    def __init__(self, module: Callable[..., Any], tensors: int, batch: int | None = None) -> None:
        self.module: Any = module
        self.tensors = tensors
        self.batch = batch

    def __call__(self, features: Sequence[torch.Tensor]) -> Any:  # noqa: ANN401 - the model's
        """Finish the task from as many tensors as cross the split.

        Raises:
            ValueError: another number of tensors.
            ModelError: they are none that the model takes, or lie elsewhere than it does.
        """
        if len(features) != self.tensors:
            raise ValueError(f"expected {self.tensors} tensors, found {len(features)}")
        with as_model_error(f"the cloud does not run on {_described(features)}"):
            return by_sample(self.module, tuple(features), self.batch)


@dataclass(frozen=True, slots=True)
class SplitModel:
    """A model cut behind `split`: `cloud(edge(images))` equals the whole model."""

    name: str
    split: str
    input_size: tuple[int, int]
    edge: EdgeSubmodel
    cloud: CloudSubmodel
    tensors: tuple[TensorSpec, ...]

    @classmethod
    def of(
        cls,
        edge: Callable[[torch.Tensor], Any],
        cloud: Callable[..., Any],
        tensors: Sequence[TensorSpec],
        input_size: tuple[int, int],
        name: str = "",
        split: str = "",
    ) -> SplitModel:
        """Make one of any two callables.

        Args:
            edge: images (N, 3, H, W) -> a tensor (N, C, H, W), or a sequence of them.
            cloud: takes these tensors, one argument each, and returns the model's output.
            tensors: their names, shapes, strides and offsets, in this order.
            input_size: height and width of the images.
            name: the model's name, for a stream's header.
            split: that of the cut, likewise.

        Raises:
            ModelError: by the edge, when it is called: it gives other tensors than said.
        """
        specs = tuple(tensors)
        if not specs:
            raise ValueError("expected the spec of one tensor at least, found none")

        def checked(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            found = edge(images)
            features = (found,) if isinstance(found, torch.Tensor) else tuple(found)
            expected = [(len(images), *spec.shape) for spec in specs]
            if [tuple(tensor.shape) for tensor in features] != expected or any(
                tensor.dtype != torch.float32 for tensor in features
            ):
                raise ModelError(
                    f"the edge gives {_described(features)}, expected float32 of {expected}"
                )
            return features

        return cls(
            name, split, input_size, EdgeSubmodel(checked), CloudSubmodel(cloud, len(specs)), specs
        )


def split_model(
    model: nn.Module,
    split: str,
    input_size: tuple[int, int],
    name: str = "",
    *,
    geometry: Mapping[str, tuple[int, int, int, int]] | None = None,
) -> SplitModel:
    """Cut a model in two.

    Args:
        model: A model in evaluation mode; its weights are shared, not copied.
        split: The fx node or module behind which to cut, or several joined by `+`; a module's
            leading underscore may be left out, and what DataParallel and torch.compile put in
            front of it.
        input_size: Height and width of the images, which fix the shapes of the tensors.
        name: The model's name, for the result only.
        geometry: By the names of tensors, their strides in y and x in pixels and their offsets in
            half pixels, where these cannot be derived from the graph or are better known.

    Raises:
        ModelError: The model is none that gives the same output at every call, or cannot be traced;
            the split names nothing, or what crosses it cannot be coded.
    """
    model = unwrapped(model) if isinstance(model, nn.Module) else model
    _refuse_moods(model)
    sides = input_size if isinstance(input_size, Sequence) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ModelError(f"input_size {input_size!r}, expected height and width of the images")
    if not isinstance(split, str):
        raise ModelError(f"split {split!r}, expected the name of a node or module")
    given = {
        tensor: Geometry(Axis(stride_y, offset_y2), Axis(stride_x, offset_x2))
        for tensor, (stride_y, stride_x, offset_y2, offset_x2) in (geometry or {}).items()
    }
    with as_model_error(f"{type(model).__name__} cannot be cut at {split!r}"):
        try:
            return _halves(model, graph_of(model, input_size), split, input_size, name, given)
        except UntraceableError as error:
            if isinstance(model, (Program, Detector)):
                raise
            program = export(model, input_size, first_line(error))
        return _halves(program, program.traced(input_size), split, input_size, name, given)


def _halves(
    model: nn.Module,
    traced: TracedModel,
    split: str,
    input_size: tuple[int, int],
    name: str,
    given: Mapping[str, Geometry],
) -> SplitModel:
    """Cut a graph and put it together again as two halves."""
    meant = natural_names(traced, model).get(split, split)
    cut = cut_behind(traced, geometries_of(traced), meant, given=given, locate=_located_by(model))
    batch = model.batch if isinstance(model, Program) else None
    cloud: nn.Module = cloud_graph(traced, cut)
    if isinstance(model, Detector):
        cloud = model.finished(cloud, input_size)
    return SplitModel(
        name,
        split,
        input_size,
        EdgeSubmodel(edge_graph(traced, cut), batch),
        CloudSubmodel(cloud, len(cut.tensors), batch),
        cut.tensors,
    )


def _located_by(model: nn.Module) -> Locate | None:
    """Measure geometries on the model itself, on the CPU."""
    if any(tensor.device.type != "cpu" for tensor in model.parameters()):
        return None

    def locate(traced: TracedModel, cut: Cut) -> Geometry:
        (node,) = cut.crossing
        edge = edge_graph(traced, cut)
        shape = traced.values[traced.inputs[0].name].shape
        size = traced.values[node.name].shape[-2:]
        with as_model_error("measured by gradients"):
            return measured_geometry(
                lambda images: edge(images)[0], tuple(shape), (size[0], size[1])
            )

    return locate


def graph_of(model: nn.Module, input_size: tuple[int, int]) -> TracedModel:
    """Return the graph that a network is cut in: an exported program's own, of a detector that of
    its backbone, else what torch.fx traces.

    Raises:
        ModelError: it has none.
    """
    if isinstance(model, Program):
        return model.traced(input_size)
    if isinstance(model, OnnxNetwork):
        try:
            return trace(model, input_size)
        except ModelError as error:  # it may be made for one image, and with arithmetic of sizes
            raise UntraceableError(str(error)) from error
    return trace(model.body if isinstance(model, Detector) else model, input_size)


def _refuse_moods(model: nn.Module) -> None:
    """Refuse a model that its halves could not equal."""
    kind = type(model).__name__
    if not isinstance(model, nn.Module):
        raise ModelError(f"expected a torch.nn.Module to cut, found a {kind}")
    for path, module in model.named_modules():
        if module.training:
            raise ModelError(
                f"{path or 'the model'} ({type(module).__name__}) is in training mode, where "
                "dropout and batch norm change from call to call; call .eval() first"
            )
    if model._forward_hooks or model._forward_pre_hooks:
        raise ModelError(
            f"{kind} has forward hooks of its own, which tracing leaves out; remove them, or hook "
            "modules inside it"
        )
    for path, tensor in model.named_parameters():
        if (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype != torch.float32:
            raise ModelError(
                f"{path} is {dtype_name(tensor)}; the codec's images and tensors are float32: call "
                ".float() first"
            )


def _described(tensors: Sequence[object]) -> str:
    return ", ".join(
        f"{dtype_name(each)} {tuple(each.shape)} on {each.device}"
        if isinstance(each, torch.Tensor)
        else f"a {type(each).__name__}"
        for each in tensors
    )
