"""What a study gives to every codec, what it takes from it, and how it judges that.

    clip ─► frames ─► edge ─► features ─┬────────────► cloud ─► reference output
                │                       ▼ StudyCodec                    │
                └─────► size, features', images' or output' ─► output ──┴─► figures of the task

A codec that takes part implements `StudyCodec`; what it returns is judged the same for all.

Not here: which codecs there are (`tools/contenders/codecs.py`, `tools/contenders/anchors.py`), and
what the figures of a task are (`tools/contenders/judging.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from codec.errors import VideoError
from codec.files.video import VideoReader
from codec.format.header import Preprocessing
from codec.metrics import FeatureNrmse, kl_divergence
from codec.models.preprocessing import (
    default_preprocessing,
    normalise,
    normalise_float,
    read_preprocessing,
)
from codec.models.sources import load_model, model_name
from codec.models.submodels import SplitModel, split_model
from codec.pipeline.network_tasks import described, task_of
from codec.tasks.classification import Classification
from tools.contenders.judging import Classes, Fidelity, Judged, Outputs, in_batches

__all__ = ["Coded", "Scene", "StudyCodec", "preprocessing_of"]


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
class Scene:
    """A clip at a split, and what the uncompressed model makes of it.

    Without a split (`""`), the whole model lies behind the network: `halves` is None and `features`
    empty.

    `rgb` is (N, H, W, 3) uint8, as the model sees it; `features` holds one (N, C, H, W) float32 for
    each tensor of the split.  Of a classification, `reference` is (N, classes) and
    `dense_reference` (N, positions); of any other task `reference` holds the outputs of each frame.

    `preprocessing_file` and `task_named` are those that `lmc encode` takes, None of a network that
    is known by name; `profile` is a file that both sides of our codec have been given.
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
    reference: Any
    dense_reference: NDArray[np.int64] | None
    _task: Classes | Outputs
    preprocessing_file: Path | None = None
    task_named: str | None = None
    profile: Path | None = None

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        model: str,
        weights: str,
        split: str,
        frames: int,
        preprocessing_file: Path | None = None,
        task_named: str | None = None,
    ) -> Self:
        """Decode the first frames of a clip and run the model once, without any coding.

        Raises:
            VideoError: no video, or no frame in it.
            ModelError: no such model or split, or outputs that are not what the task expects.
            TaskError: there is no such task.
        """
        task = task_of(described(task_named), model_name(model))
        preprocessing = preprocessing_of(model, weights, preprocessing_file)
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
            reference: Any
            judge: Classes | Outputs
            if isinstance(task, Classification):
                judge = Classes.of(task, network, halves, size, model)
                reference, dense_reference, _ = judge(received)
            else:
                judge = Outputs.of(task, network, halves, size)
                reference, _ = judge(received)
                dense_reference = None
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
            _task=judge,
            preprocessing_file=preprocessing_file,
            task_named=task_named,
        )

    @property
    def classifies(self) -> bool:
        """Whether the task is classification, so that `reference` is logits."""
        return isinstance(self._task, Classes)

    def judge(self, coded: Coded, labels: NDArray[np.int64] | None = None) -> Judged:
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
            if isinstance(self._task, Outputs):
                received = self._received(coded)
                return self._task.judge(self.reference, received, self._nrmse_of(coded))
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
            nrmse=self._nrmse_of(coded),
            accuracy=None if labels is None else float((best.numpy() == labels).mean()),
            seconds_cloud=seconds,
        )

    def _nrmse_of(self, coded: Coded) -> float | None:
        return None if coded.features is None else self.nrmse(coded.features)

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


def preprocessing_of(model: str, weights: str, file: Path | None) -> Preprocessing:
    """Return how frames become a network's input: as a file says, or as its weights want it.

    Raises:
        OSError: there is no such file.
        ModelError: it is not known, or the file does not say it.
    """
    if file is not None:
        return read_preprocessing(file)
    return default_preprocessing(model, native=False, weights=weights)
