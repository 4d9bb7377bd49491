"""What the halves of a cut cost: multiplications with additions (MACs) per image."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils.flop_counter import FlopCounterMode

from codec.models.boundary import quiet
from codec.models.cut import Cut
from codec.models.tracing import TracedModel, ancestors

__all__ = ["SplitCost", "costs_of", "split_cost"]


@dataclass(frozen=True, slots=True)
class SplitCost:
    """MACs of edge and cloud per image.  Of a detector the cloud's are those of its backbone: what
    its heads do depends on what is in the image.
    """

    edge_macs: int
    cloud_macs: int


def costs_of(traced: TracedModel) -> dict[fx.Node, int]:
    """Count the MACs of every node, for one image; computes shapes only.

    Nodes behind one whose shape depends on values are left out.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC0415 - takes a second

    found: dict[fx.Node, int] = {}

    class Counting(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - fx's signature
            with FlopCounterMode(display=False) as counter:
                value = super().run_node(n)
            found[n] = counter.get_total_flops() // 2 // batch
            return value

    batch, *shape = traced.values[traced.inputs[0].name].shape
    device = next((tensor.device for tensor in traced.module.parameters()), torch.device("cpu"))
    shapes_only = (
        nullcontext() if device.type == "meta" else FakeTensorMode(allow_non_fake_inputs=True)
    )
    with quiet(), torch.no_grad(), shapes_only, torch.device(device):
        images = torch.empty(batch, *shape)
        # an operation may want values, of which there are none
        with suppress(Exception):
            Counting(traced.module, garbage_collect_values=True).run(images)
    return found


def split_cost(traced: TracedModel, cut: Cut, costs: dict[fx.Node, int]) -> SplitCost:
    """Sum up the costs of both halves."""
    cloud = ancestors(traced.output) - cut.edge
    return SplitCost(
        sum(costs.get(node, 0) for node in cut.edge), sum(costs.get(node, 0) for node in cloud)
    )
