"""A model cut in two: the edge sub-model before the split, the cloud sub-model behind it.

    images ─► edge ─► tensors, one per `TensorSpec` ─► cloud ─► the model's output

Any network that `models.tracing` takes can be cut; where its samples lie is derived in
`models.geometry`, what is on which side in `models.cut`.  Nothing here codes tensors or reads
videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import fx, nn

from codec.errors import ModelError
from codec.format.header import TensorSpec
from codec.models.boundary import as_model_error, dtype_name
from codec.models.cut import cloud_graph, cut_behind, edge_graph
from codec.models.geometry import geometries_of
from codec.models.tracing import TracedModel, unwrapped

__all__ = ["CloudSubmodel", "EdgeSubmodel", "SplitModel", "split_model"]


class EdgeSubmodel:
    """The half beside the camera: images (N, 3, H, W) -> a tensor (N, C, H, W) per `TensorSpec`."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the tensors that cross the split, in the order of their specs.

        Raises:
            ModelError: the images are none that the model takes, or lie elsewhere than it does.
        """
        with as_model_error(f"the edge does not run on {_described([images])}"):
            if images.ndim != 4:
                raise ValueError("expected a batch of images (N, 3, H, W)")
            return cast("tuple[torch.Tensor, ...]", self.module(images))


class CloudSubmodel:
    """The half behind the network: the coded tensors, left as they are -> the model's output."""

    def __init__(self, module: fx.GraphModule, tensors: int) -> None:
        self.module = module
        self.tensors = tensors

    def __call__(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Finish the task from as many tensors as cross the split.

        Raises:
            ValueError: another number of tensors.
            ModelError: they are none that the model takes, or lie elsewhere than it does.
        """
        if len(features) != self.tensors:
            raise ValueError(f"expected {self.tensors} tensors, found {len(features)}")
        with as_model_error(f"the cloud does not run on {_described(features)}"):
            return cast("torch.Tensor", self.module(*features))


@dataclass(frozen=True, slots=True)
class SplitModel:
    """A model cut behind `split`: `cloud(edge(images))` equals the whole model."""

    name: str
    split: str
    input_size: tuple[int, int]
    edge: EdgeSubmodel
    cloud: CloudSubmodel
    tensors: tuple[TensorSpec, ...]


def split_model(
    model: nn.Module, split: str, input_size: tuple[int, int], name: str = ""
) -> SplitModel:
    """Cut a model in two.

    Args:
        model: A model in evaluation mode; its weights are shared, not copied.
        split: The fx node or module behind which to cut, or several joined by `+`; a module's
            leading underscore may be left out, and what DataParallel and torch.compile put in
            front of it.
        input_size: Height and width of the images, which fix the shapes of the tensors.
        name: The model's name, for the result only.

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
    with as_model_error(f"{type(model).__name__} cannot be cut at {split!r}"):
        traced = TracedModel(model, input_size)
        cut = cut_behind(traced, geometries_of(traced), split)
        return SplitModel(
            name,
            split,
            input_size,
            EdgeSubmodel(edge_graph(traced, cut)),
            CloudSubmodel(cloud_graph(traced, cut), len(cut.crossing)),
            cut.tensors,
        )


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
