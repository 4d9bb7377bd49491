"""torchvision's detectors: a backbone that is cut like any network, and the rest, called as it is.

    images ─► backbone, to the cut ─► tensors ─► backbone, the rest ─► pyramid ─► proposals, heads

What finds boxes in the pyramid decides by values, so no tracer takes it; it belongs to the cloud as
a whole.  torchvision's own resizing and normalising is left out: images come as `preprocessing`
makes them, all of one size, and boxes are in pixels of these.
"""

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, cast

import torch
from torch import fx, nn

from codec.models.tracing import TracedModel

__all__ = ["Detector", "natural_names"]

_INNER: Final = re.compile(r"(backbone\.fpn\.inner_blocks\.(\d+))")


class Detector(nn.Module):
    """A detector of torchvision: normalised images (N, 3, H, W) -> a dict of boxes, labels, scores
    (masks, keypoints) per image.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        cast("Any", network.transform).forward = _as_given

    def forward(self, images: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        """Find what is in images."""
        return cast("list[dict[str, torch.Tensor]]", self.network(list(images)))

    @property
    def body(self) -> nn.Module:
        """The part that is cut: images -> the pyramid, under its name in the network."""
        return _Body(cast("nn.Module", self.network.backbone)).eval()

    def finished(self, cloud: nn.Module, input_size: tuple[int, int]) -> nn.Module:
        """Put the rest of the network behind a cloud that ends in the pyramid."""
        return _Finished(cloud, self.network, input_size).eval()


class _Body(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: torch.Tensor) -> Any:  # noqa: ANN401 - a tensor or a dict of them
        return self.backbone(images)


class _Finished(nn.Module):
    """The cloud's part of the backbone, then the network with its pyramid given."""

    def __init__(self, cloud: nn.Module, network: nn.Module, input_size: tuple[int, int]) -> None:
        super().__init__()
        self.cloud = cloud
        self.rest = copy.copy(network)  # with the modules of the network, but for the backbone
        self.rest._modules = {**network._modules, "backbone": _Given()}
        self.input_size = input_size

    def forward(self, *features: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        pyramid = self.cloud(*features)
        if isinstance(pyramid, Mapping):
            pyramid = OrderedDict(pyramid)
        given = cast("_Given", self.rest._modules["backbone"])
        given.pyramid = pyramid
        try:
            # The network takes of the images no more than their size, type and place.
            blank = features[0].new_zeros(1, 1, 1).expand(3, *self.input_size)
            return cast("list[dict[str, torch.Tensor]]", self.rest([blank] * len(features[0])))
        finally:
            given.pyramid = None


class _Given(nn.Module):
    pyramid: Any = None

    def forward(self, images: torch.Tensor) -> Any:  # noqa: ANN401 - as the backbone
        return self.pyramid


def _as_given(images: list[torch.Tensor], targets: Any = None) -> Any:  # noqa: ANN401 - as torchvision's
    """Take the place of torchvision's transform, for images that are as the backbone wants them."""
    from torchvision.models.detection.image_list import ImageList  # noqa: PLC0415 - takes a second

    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    return ImageList(torch.stack(images), sizes), targets


def natural_names(traced: TracedModel, model: nn.Module) -> dict[str, str]:
    """Return the cuts of a detector that have a name of their own, as the names that they mean.

    `pyramid`, or `backbone`, is what the rest of the network takes of it, without the levels that
    are computed from others of it alone; `laterals` are the maps that a feature pyramid network
    joins, `stages` those that it makes them of.
    """
    if not isinstance(model, Detector):
        return {}
    outputs = list(dict.fromkeys(traced.output.all_input_nodes))
    pyramid = "+".join(node.name for node in outputs if _reaches_input(node, set(outputs)))
    found = {"pyramid": pyramid, "backbone": pyramid}
    inner: dict[str, fx.Node] = {}
    for node in traced.nodes:
        for path, _ in (node.meta.get("nn_module_stack") or {}).values():
            match = _INNER.fullmatch(path)
            if match:
                inner.setdefault(match[1], node)
    if len(inner) > 1:
        paths = sorted(inner, key=lambda path: int(path.rpartition(".")[2]))
        found["laterals"] = "+".join(paths)
        found["stages"] = "+".join(inner[path].all_input_nodes[0].name for path in paths)
    return found


def _reaches_input(node: fx.Node, others: set[fx.Node]) -> bool:
    """Whether a node is computed from the image on some way past all of the others."""
    seen = {node}
    waiting = [node]
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source.op == "placeholder":
                return True
            if source not in seen and source not in others:
                seen.add(source)
                waiting.append(source)
    return False
