"""What a study gives to every codec, what it takes from it, and how it judges that.

    clip ─► frames ─► edge ─► features ─┬────────────► cloud ─► reference output
                │                       ▼ StudyCodec                    │
                └─────► size, features', images' or output' ─► output ──┴─► KL, agreements, NRMSE

A codec that takes part implements `StudyCodec`; what it returns is judged here, the same for all.

Not here: which codecs there are (`tools/contenders/codecs.py`, `tools/contenders/anchors.py`).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from codec.errors import ModelError, VideoError
from codec.files.video import VideoReader
from codec.format.header import Preprocessing
from codec.metrics import FeatureNrmse, kl_divergence
from codec.models.preprocessing import default_preprocessing, normalise
from codec.models.sources import load_model
from codec.models.submodels import CloudSubmodel, SplitModel, split_model

__all__ = ["Coded", "Fidelity", "Scene", "StudyCodec", "in_batches", "normalise_float"]

BATCH = 4  # frames that the model sees at once: more do not fit the caches


@dataclass(frozen=True, slots=True)
class Coded:
    """What a codec made of a scene at one point; one of `features`, `images`, `outputs` is given.

    Args:
        size: bytes of everything that a decoder needs.
        features: decoded, one (N, C, H, W) float32 for each tensor of the split.
        images: decoded frames that the model sees, (N, H, W, 3) float32, 0 to 255.
        outputs: decoded log-probabilities of the classes, (N, classes) float32: of a codec that
            sends the answer itself.
        frame_bytes: of each frame, in presentation order; together they are `size`, what belongs
            to the stream as a whole counted with the first or last frame.
        parts: the same, divided into `header` (of the stream too, framing, block modes), `motion`
            and `residual`.
        seconds: by stage: `video`, `edge`, `motion`, `encode`, `decode`.
        parameters: whatever another person needs to do it again.
    """

    size: int
    features: tuple[NDArray[np.float32], ...] | None = None
    images: NDArray[np.float32] | None = None
    outputs: NDArray[np.float32] | None = None
    frame_bytes: tuple[int, ...] | None = None
    parts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, str | int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be judged."""
        given = [one for one in (self.features, self.images, self.outputs) if one is not None]
        if len(given) != 1:
            raise ValueError(
                f"a codec gives one of features, images and outputs; this one gave {len(given)}"
            )
        if self.size < 1:
            raise ValueError(f"a size of {self.size} bytes")
        if self.frame_bytes is not None and sum(self.frame_bytes) != self.size:
            raise ValueError(
                f"frames of {sum(self.frame_bytes)} bytes in sum, of {self.size} bytes altogether"
            )


class StudyCodec(Protocol):
    """A codec that takes part in a study."""

    @property
    def name(self) -> str:
        """Of its curve."""

    @property
    def variant(self) -> str:
        """Variants of one name make one curve, the best at each rate; "" if there is only one."""

    @property
    def needs_split(self) -> bool:
        """Whether it codes the tensors of a split; else it is measured once for all splits."""

    @property
    def points(self) -> tuple[float, ...]:
        """Where to measure, coarse to fine, in whatever unit."""

    def code(self, scene: "Scene", point: float) -> Coded:
        """Encode and decode a scene."""


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How well the task survived, frame by frame.

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


@dataclass(frozen=True, slots=True)
class Scene:
    """A clip at a split, and what the uncompressed model makes of it.

    Without a split (`""`), the whole model lies behind the network: `halves` is None and `features`
    empty.

    `rgb` is (N, H, W, 3) uint8, as the model sees it; `features` holds one (N, C, H, W) float32 for
    each tensor of the split; `reference` is (N, classes), `dense_reference` (N, positions).
    """

    path: Path
    clip: str
    frames: int
    frame_rate: Fraction
    rgb: NDArray[np.uint8]
    preprocessing: Preprocessing
    model: str
    weights: str
    network: nn.Module
    halves: SplitModel | None
    features: tuple[NDArray[np.float32], ...]
    reference: Tensor
    dense_reference: NDArray[np.int64] | None
    _task: "_Task"

    @classmethod
    def load(cls, path: Path, *, model: str, weights: str, split: str, frames: int) -> Self:
        """Decode the first frames of a clip and run the model once, without any coding.

        Raises:
            VideoError: no video, or no frame in it.
            ModelError: no such model or split.
        """
        preprocessing = default_preprocessing(model, native=False, weights=weights)
        with VideoReader(path, preprocessing, frames=(0, frames)) as reader:
            size, rate = (reader.height, reader.width), Fraction(reader.frame_rate)
            pictures = [frame.rgb for frame in reader]
        if not pictures:
            raise VideoError(f"{path.name}: no frame in it")
        rgb = np.stack(pictures)
        network = load_model(model, weights)
        halves = split_model(network, split, size, model) if split else None
        with torch.no_grad():  # a setting of the thread, so not to be left to whoever started it
            received = [normalise(rgb, preprocessing)]
            if halves is not None:
                received = in_batches(halves.edge, received[0])
            task = _Task.of(network, halves, size, model)
            reference, dense_reference, _ = task(received)
        if reference.ndim != 2:
            raise ModelError(
                f"{model}: output of shape {tuple(reference.shape)}; the study takes classifiers"
            )
        return cls(
            path=path,
            clip=path.name,
            frames=len(rgb),
            frame_rate=rate,
            rgb=rgb,
            preprocessing=preprocessing,
            model=model,
            weights=weights,
            network=network,
            halves=halves,
            features=() if halves is None else tuple(tensor.numpy() for tensor in received),
            reference=reference,
            dense_reference=dense_reference,
            _task=task,
        )

    def judge(self, coded: Coded, labels: NDArray[np.int64] | None = None) -> Fidelity:
        """Finish the task from what was decoded, and compare.

        Args:
            coded: what a codec made of this scene.
            labels: (N,) true classes, if known.

        Raises:
            ValueError: shapes are not those of the scene.
        """
        if coded.frame_bytes is not None and len(coded.frame_bytes) != self.frames:
            raise ValueError(f"bytes of {len(coded.frame_bytes)} frames, expected {self.frames}")
        with torch.no_grad():
            if coded.outputs is not None:
                logits, classes, seconds = self._answer(coded.outputs), None, 0.0
            else:
                logits, classes, seconds = self._task(self._received(coded))
        best = logits.argmax(-1)
        return Fidelity(
            kl=kl_divergence(self.reference, logits).numpy(),
            top1=(best == self.reference.argmax(-1)).numpy(),
            dense=None
            if classes is None or self.dense_reference is None
            else np.asarray((classes == self.dense_reference).mean(1), np.float64),
            nrmse=None if coded.features is None else self.nrmse(coded.features),
            accuracy=None if labels is None else float((best.numpy() == labels).mean()),
            seconds_cloud=seconds,
        )

    def nrmse(self, decoded: Sequence[NDArray[np.float32]]) -> float:
        """Measure the error of decoded tensors, (N, C, H, W) each, by equation (13)."""
        error = FeatureNrmse(len(self.features))
        for number, (actual, other) in enumerate(zip(self.features, decoded, strict=True)):
            for pair in zip(actual, other, strict=True):
                error.update(number, *pair)
        return error.combined()

    def _answer(self, outputs: NDArray[np.float32]) -> Tensor:
        if outputs.shape != self.reference.shape:
            raise ValueError(
                f"outputs of shape {outputs.shape}, expected {tuple(self.reference.shape)}"
            )
        return torch.from_numpy(np.ascontiguousarray(outputs, np.float32))

    def _received(self, coded: Coded) -> list[Tensor]:
        """Return what the cloud receives; with a split, of images what the edge makes of them."""
        if coded.images is not None:
            if coded.images.shape != self.rgb.shape:
                raise ValueError(f"images of shape {coded.images.shape}, expected {self.rgb.shape}")
            images = normalise_float(coded.images, self.preprocessing)
            return [images] if self.halves is None else in_batches(self.halves.edge, images)
        assert coded.features is not None  # `Coded` has looked
        found = [tensor.shape for tensor in coded.features]
        expected = [tensor.shape for tensor in self.features]
        if found != expected:
            raise ValueError(f"features of shapes {found}, expected {expected}")
        return [
            torch.from_numpy(np.ascontiguousarray(tensor, np.float32)) for tensor in coded.features
        ]


# --- outputs ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Task:
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
        cls, network: nn.Module, halves: SplitModel | None, size: tuple[int, int], name: str
    ) -> Self:
        """Look for the last map of several positions that all of the output goes through."""
        whole: Callable[..., Tensor] = network
        if halves is not None:
            cloud = halves.cloud

            def whole(*features: Tensor) -> Tensor:
                output: Tensor = cloud(features)
                return output

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
        body = _up_to(halves.cloud.module, maps.names[-1])
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


def normalise_float(rgb: NDArray[np.float32], preprocessing: Preprocessing) -> Tensor:
    """Turn float frames (N, H, W, 3) into model input, as `normalise` does with integers."""
    mean = np.array(preprocessing.mean_thousandths, np.float32) / np.float32(1000)
    scale = np.array(preprocessing.scale_thousandths, np.float32) / np.float32(1000)
    samples = (rgb - mean) / scale
    return torch.from_numpy(np.ascontiguousarray(samples.transpose(0, 3, 1, 2)))
