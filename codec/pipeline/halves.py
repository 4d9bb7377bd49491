"""A network in two halves, to be called in a notebook: `codec.split`.

    edge, cloud = codec.split("resnet34", at="add_3")
    codec.encode(edge(frames), "clip.lmc", split=edge, motion=frames)
    logits = cloud(codec.open("clip.lmc")[:].features)

Both take and give features as a `Batch` holds them: one tensor, or where several cross the split a
dict of tensors by name.  The cut itself is made in `codec.models`.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from codec.errors import ModelError
from codec.format.constants import HASH_BYTES
from codec.format.header import Preprocessing, TensorSpec
from codec.models import DEFAULT_MODEL
from codec.models.networks import open_network
from codec.models.preprocessing import default_preprocessing, normalise, read_preprocessing
from codec.models.submodels import SplitModel, split_model

__all__ = ["Cloud", "Edge", "as_tensor", "checked_size", "split"]

EDGE_BATCH = 16
"""Images that the edge computes at a time, which bounds its memory."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Edge:
    """The half beside the camera: images -> features; and what a stream's header says of it.

    `split` names model and split point, empty for a network of your own; `preprocessing` is how
    frames become its input, for `VideoReader` too, None for a network of your own of which it was
    not said.
    """

    split: SplitModel
    weights: str
    weights_hash: bytes
    preprocessing: Preprocessing | None
    device: torch.device

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """Name, shape, stride n^k and offset of every tensor that crosses the split."""
        return self.split.tensors

    def __call__(self, images: Tensor | NDArray[Any]) -> Tensor | dict[str, Tensor]:
        """Compute the features of images.

        Args:
            images: uint8 frames (N, H, W, 3) or (H, W, 3), RGB of the network's input size, which
                are normalised; or float input of the network, (N, 3, H, W), as it is.

        Returns:
            (N, C, H, W); a dict of such by name where several tensors cross the split.  No images
            have no features: (0, C, H, W), whether the network takes none or not.

        Raises:
            ModelError: the images are none that the network takes.
        """
        given = as_tensor(images)
        if given.dtype == torch.uint8:
            given = self._channels_first(given)
        found = tuple(given.shape[-2:])
        if given.ndim != 4 or found != self.split.input_size:
            raise ModelError(
                f"images of shape {tuple(given.shape)}, expected (N, 3, H, W) with height and "
                f"width {self.split.input_size}: resize them, or split with their size"
            )
        parts = [
            self.split.edge(self._input(given[first : first + EDGE_BATCH]).to(self.device))
            for first in range(0, len(given), EDGE_BATCH)
        ]
        if not parts:
            parts = [
                tuple(torch.zeros(0, *spec.shape, device=self.device) for spec in self.tensors)
            ]
        tensors = [torch.cat(pieces) for pieces in zip(*parts, strict=True)]
        if len(tensors) == 1:
            return tensors[0]
        return {spec.name: tensor for spec, tensor in zip(self.tensors, tensors, strict=True)}

    def _channels_first(self, frames: Tensor) -> Tensor:
        if self.preprocessing is None:
            raise ModelError(
                "uint8 frames, and how a network of your own wants them normalised is unknown; "
                "hand in its input, float (N, 3, H, W)"
            )
        if frames.ndim not in {3, 4} or frames.shape[-1] != 3:
            raise ModelError(
                f"uint8 frames of shape {tuple(frames.shape)}, expected (N, H, W, 3) or (H, W, 3)"
            )
        return (frames[None] if frames.ndim == 3 else frames).movedim(-1, 1)

    def _input(self, images: Tensor) -> Tensor:
        """Return a batch as the network takes it: of frames, only these are normalised."""
        if self.preprocessing is None or images.dtype != torch.uint8:
            return images
        return normalise(images.movedim(1, -1).cpu().numpy(), self.preprocessing)

    def __repr__(self) -> str:
        return f"<Edge of {_described(self.split)}>"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Cloud:
    """The half behind the network: features -> the network's output."""

    split: SplitModel
    device: torch.device

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """Name, shape, stride n^k and offset of every tensor that crosses the split."""
        return self.split.tensors

    def __call__(
        self,
        features: Tensor | NDArray[Any] | Mapping[str, Tensor | NDArray[Any]] | Sequence[Tensor],
    ) -> Any:  # noqa: ANN401 - whatever the network returns
        """Finish the task.

        Args:
            features: (N, C, H, W), torch or NumPy; of several tensors a dict by name, or a list in
                the order of `tensors`.

        Raises:
            ModelError: they are none that the network takes.
        """
        names = [spec.name for spec in self.tensors]
        given: Sequence[Tensor | NDArray[Any]]
        if isinstance(features, Mapping):
            if set(features) != set(names):
                raise ModelError(
                    f"features named {', '.join(features)}, expected {', '.join(names)}"
                )
            given = [features[name] for name in names]
        else:
            given = [features] if isinstance(features, Tensor | np.ndarray) else features
        shapes = [tuple(each.shape) for each in given]
        expected = [spec.shape for spec in self.tensors]
        if [shape[-3:] for shape in shapes] != expected or {len(shape) for shape in shapes} != {4}:
            raise ModelError(
                f"features of shapes {shapes}, expected batches (N, C, H, W) of {expected}"
            )
        return self.split.cloud([as_tensor(each).to(self.device) for each in given])

    def __repr__(self) -> str:
        return f"<Cloud of {_described(self.split)}>"


def _described(split: SplitModel) -> str:
    tensors = ", ".join(
        f"{spec.name} {spec.shape}, n^k = {spec.stride_y},{spec.stride_x}" for spec in split.tensors
    )
    return f"{split.name or 'a network of your own'} at {split.split}: {tensors}"


def split(
    model: str | nn.Module = DEFAULT_MODEL,
    *,
    at: str,
    weights: str = "default",
    size: tuple[int, int] | None = None,
    preprocessing: str | Path | Preprocessing | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Edge, Cloud]:
    """Cut a network in two.

    Args:
        model: a name (`lmc models` lists them), the path of a FILE.pt2 or FILE.onnx, or a network
            of your own in evaluation mode that torch.fx traces and that lies on `device`.
        at: the fx node or module behind which to cut (`lmc models NAME` lists them).
        weights: of a named model, as of `load_model`: "default", "random:SEED" or a file.
        size: height and width of the images; default: what a named model's weights were made for,
            or what `preprocessing` says.
        preprocessing: how frames become the input of a network of your own, as a TOML file that
            `lmc encode --preprocessing` takes, or as a value; known of named models.
        device: where both halves run.

    Raises:
        ModelError: the model, its weights or the split are unknown or cannot be used.
        ValueError: a network of your own without a size, or with weights by name; a size that is
            no pair, or another one than the preprocessing has.

    Example:
        >>> edge, cloud = codec.split("resnet18", at="layer2", weights="random:0")
        >>> edge
        <Edge of resnet18 at layer2: layer2 (128, 28, 28), n^k = 8,8>
        >>> frames = numpy.zeros((2, 224, 224, 3), numpy.uint8)
        >>> cloud(edge(frames)).shape
        torch.Size([2, 1000])
    """
    place = torch.device(device)
    sides = None if size is None else checked_size(size)
    if isinstance(preprocessing, str | Path):
        preprocessing = read_preprocessing(Path(preprocessing))
    if preprocessing is not None and (fixed := preprocessing.input_size) is not None:
        if sides is not None and sides != fixed:
            raise ValueError(f"size {sides}, and the preprocessing gives images of {fixed}")
        sides = fixed
    if isinstance(model, nn.Module):
        if sides is None:
            raise ValueError("a network of your own needs size=(height, width) of its images")
        if weights != "default":
            raise ValueError(
                f"weights {weights!r}: a network of your own brings its weights; load them into it"
            )
        made = split_model(model, at, sides)
        return Edge(made, "", bytes(HASH_BYTES), preprocessing, place), Cloud(made, place)
    if preprocessing is None:
        preprocessing = default_preprocessing(model, size is not None, weights)
        if sides is None:
            sides = preprocessing.input_size
        else:  # frames of that size, as they are
            preprocessing = replace(preprocessing, pad_multiple=1)
    if sides is None:
        raise ValueError("the preprocessing keeps the size of frames; pass size=(height, width)")
    network = open_network(model, weights, device=place)
    made = split_model(network.module, at, sides, network.name)
    edge = Edge(made, network.weights, network.hash, preprocessing, place)
    return edge, Cloud(made, place)


def as_tensor(value: Tensor | NDArray[Any]) -> Tensor:
    """Return a tensor of whatever is one, or an array; the copy spares read-only arrays a warning.

    Raises:
        TypeError: torch has no such type.
    """
    if isinstance(value, Tensor):
        return value
    array = np.asarray(value)
    # torch takes neither negative strides nor foreign byte orders
    return torch.tensor(np.asarray(array, array.dtype.newbyteorder("="), order="C"))


def checked_size(size: Sequence[int]) -> tuple[int, int]:
    """Return height and width.

    Raises:
        ValueError: they are none.
    """
    try:
        height, width = map(operator.index, size)
    except (TypeError, ValueError) as error:
        raise ValueError(f"size {size!r}, expected (height, width), two integers") from error
    return height, width
