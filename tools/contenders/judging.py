"""How a study judges what a codec made of a scene: what the task keeps, as figures.

    received ─► rest of the network ─► outputs ─┐
                                                ├─► Fidelity (classes) or Outcome (any other task)
    reference outputs ──────────────────────────┘

Classifiers are judged as they always were: KL divergence, agreements, and the classifier at every
position of the last map.  Any other task says itself what its figures are (`codec.tasks`); beside
them stands `output_error`, the relative squared error of the outputs, which knows of no task.

Not here: what is received (`tools/contenders/scene.py`).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from codec.models.submodels import CloudSubmodel, SplitModel, split_model
from codec.tasks.anything import Anything
from codec.tasks.classification import Classification
from codec.tasks.outputs import float_tensors
from codec.tasks.task import Figures, Geometry, Task

__all__ = ["OUTPUT_ERROR", "Classes", "Fidelity", "Judged", "Outcome", "Outputs", "in_batches"]

BATCH = 4  # frames that the model sees at once: more do not fit the caches
OUTPUT_ERROR = "output_error"
"""Figure of every task but classification: the relative squared error, mean over outputs."""


class Judged(Protocol):
    """How well the task survived."""

    @property
    def seconds_cloud(self) -> float:
        """Return what finishing the task took."""

    def figures(self) -> dict[str, float | None]:
        """Return the figures of the clip; None: there is no such figure of what was coded."""

    def per_frame(self) -> dict[str, list[float] | list[int] | None]:
        """Return figures of every frame."""


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How well a classification survived, frame by frame.

    `kl` (N,) in nats; `top1` (N,): the most probable class is that of the uncompressed model;
    `dense` (N,): share of positions of the last feature map where it is; `nrmse` by equation (13)
    over the clip; `accuracy`: share of frames whose class is the true one.
    """

    kl: NDArray[np.float64]
    top1: NDArray[np.bool_]
    dense: NDArray[np.float64] | None
    nrmse: float | None
    accuracy: float | None
    seconds_cloud: float

    def figures(self) -> dict[str, float | None]:
        """Return means over the frames."""
        return {
            "kl": float(self.kl.mean()),
            "top1_agreement": float(self.top1.mean()),
            "dense_agreement": None if self.dense is None else float(self.dense.mean()),
            "nrmse": self.nrmse,
            "accuracy": self.accuracy,
        }

    def per_frame(self) -> dict[str, list[float] | list[int] | None]:
        """Return `kl`, `top1` and `dense`."""
        return {
            "kl": _rounded(self.kl),
            "top1": [int(value) for value in self.top1],
            "dense": None if self.dense is None else _rounded(self.dense),
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """How well any other task survived: its own figures of the clip, and what each frame lost, in
    the unit of the figure that is the task's loss.
    """

    of_clip: Figures
    lost: NDArray[np.float64]
    loss: str
    nrmse: float | None
    seconds_cloud: float

    def figures(self) -> dict[str, float | None]:
        """Return the task's figures, `output_error` and `nrmse`."""
        return {**self.of_clip, "nrmse": self.nrmse}

    def per_frame(self) -> dict[str, list[float] | list[int] | None]:
        """Return the task's loss."""
        return {self.loss: _rounded(self.lost)}


DIGITS = 6  # of what is told frame by frame


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), DIGITS) for value in values]


# --- any task ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outputs:
    """What lies behind the network, for a task that compares its outputs frame by frame.

    Args:
        task: compares.
        finish: received tensors of a frame, (1, C, H, W) each -> outputs.
        geometry: where pixels lie.
    """

    task: Task
    finish: Callable[[Sequence[Tensor]], Any]
    geometry: Geometry

    @classmethod
    def of(
        cls, task: Task, network: nn.Module, halves: SplitModel | None, size: tuple[int, int]
    ) -> Self:
        """Finish by the cloud sub-model, or by the whole network where there is no split."""

        def whole(received: Sequence[Tensor]) -> Any:  # noqa: ANN401 - the model's
            return network(received[0])

        height, width = size
        finish = whole if halves is None else halves.cloud
        return cls(task, finish, Geometry.of_input(width, height))

    def __call__(self, received: Sequence[Tensor]) -> tuple[list[Any], float]:
        """Return the outputs of each frame, and the seconds that they took."""
        start = time.perf_counter()
        outputs = [
            self.finish([tensor[number : number + 1] for tensor in received])
            for number in range(len(received[0]))
        ]
        return outputs, time.perf_counter() - start

    def judge(
        self, reference: Sequence[Any], received: Sequence[Tensor], nrmse: float | None
    ) -> Outcome:
        """Finish the task from what was received, and compare with the outputs of the reference."""
        outputs, seconds = self(received)
        # lists of things found, of another length each, have no error position by position
        comparable = len({_shapes(each) for each in (*reference, *outputs)}) == 1
        of_task, of_outputs = self.task.comparison(), Anything().comparison()
        for wanted, found in zip(reference, outputs, strict=True):
            of_task.update(wanted, found, self.geometry)
            if comparable:
                of_outputs.update(wanted, found, self.geometry)
        figures = of_task.figures()
        if comparable:
            figures[OUTPUT_ERROR] = of_outputs.figures()["error"]
        lost = [self.task.lost(*pair) for pair in zip(reference, outputs, strict=True)]
        loss = OUTPUT_ERROR if isinstance(self.task, Anything) else self.task.loss
        return Outcome(figures, np.array(lost), loss, nrmse, seconds)


def _shapes(outputs: object) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(tensor.shape) for tensor in float_tensors(outputs).values())


# --- classes ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Classes:
    """What lies behind the network: received tensors -> logits, and classes position by position.

        received ─► body ─► last feature map ─► head ─► logits
                                    └─ each position as a map of one ─► head ─► classes

    A classifier of pooled features is one of every single position too.  Where a model has no such
    map, `head` is None, and `body` gives the logits.
    """

    body: Callable[..., Tensor]
    head: CloudSubmodel | None

    @classmethod
    def of(
        cls,
        task: Classification,
        network: nn.Module,
        halves: SplitModel | None,
        size: tuple[int, int],
        name: str,
    ) -> Self:
        """Look for the last map of several positions that all of the output goes through."""

        def whole(*received: Tensor) -> Tensor:
            outputs = network(*received) if halves is None else halves.cloud(received)
            return task.logits(outputs)

        try:
            maps = _Maps(fx.symbolic_trace(network))
            maps.run(torch.zeros(1, 3, *size))
            behind = split_model(network, maps.names[-1], size, name)
            positions = torch.zeros(2, behind.tensors[0].channels, 1, 1)
            if len(behind.tensors) > 1 or behind.cloud([positions]).ndim != 2:
                return cls(whole, None)
        except Exception:  # no trace, no map, or a head that is not for one position: any of these
            return cls(whole, None)
        if halves is None:
            edge = behind.edge
            return cls(lambda images: edge(images)[0], behind.cloud)
        module = halves.cloud.module
        if not isinstance(module, fx.GraphModule):
            return cls(whole, None)
        body = _up_to(module, maps.names[-1])
        return cls(whole, None) if body is None else cls(body, behind.cloud)

    def __call__(
        self, received: Sequence[Tensor]
    ) -> tuple[Tensor, NDArray[np.int64] | None, float]:
        """Return logits (N, classes), the most probable class of each position (N, positions), and
        the seconds that the former took.
        """
        logits, classes, seconds = [], [], 0.0
        for batch in zip(*(torch.split(tensor, BATCH) for tensor in received), strict=True):
            start = time.perf_counter()
            last = self.body(*batch)
            logits.append(last if self.head is None else self.head([last]))
            seconds += time.perf_counter() - start
            if self.head is not None:
                positions = last.permute(0, 2, 3, 1).reshape(-1, last.shape[1], 1, 1)
                classes.append(self.head([positions]).argmax(-1).reshape(len(last), -1))
        dense = torch.cat(classes).numpy() if classes else None
        return torch.cat(logits), dense, seconds


class _Maps(fx.Interpreter):
    """Runs a graph and notes the nodes whose values are maps of several rows and columns."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.names: list[str] = []

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - fx's signature
        value = super().run_node(n)
        # both of them: (N, 1, 1, C) is no map
        if isinstance(value, Tensor) and value.ndim == 4 and min(value.shape[-2:]) > 1:
            self.names.append(n.name)
        return value


def _up_to(module: fx.GraphModule, name: str) -> fx.GraphModule | None:
    """Cut a graph behind a node; None if there is no such node in it."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        if node.op == "output":
            return None
        copies[node] = graph.node_copy(node, copies.__getitem__)
        if node.name == name:
            break
    graph.output(copies[node])
    return fx.GraphModule(module, graph)


def in_batches(function: Callable[[Tensor], Sequence[Tensor]], samples: Tensor) -> list[Tensor]:
    """Apply a function of several results to a few samples at a time."""
    results = [function(batch) for batch in torch.split(samples, BATCH)]
    return [torch.cat(parts) for parts in zip(*results, strict=True)]
