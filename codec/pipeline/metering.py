"""What a coded clip came to, beyond the sizes of its packets: for `--report` and `--evaluate`.

A meter looks on; nothing that is coded depends on it, and an encoder without one pays nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from codec.encoding.encoder import EncodedFrame
from codec.encoding.payloads import FrameWriter
from codec.format.header import SequenceHeader
from codec.metrics import FeatureNrmse
from codec.normative.reconstruction import md5_of
from codec.pipeline.evaluation import Evaluation

__all__ = ["Meter"]


class Meter:
    """Measures coded frames: NRMSE, MD5s, code lengths by syntax element, and the task if asked.

    `frame_md5` and `frame_bits` hold the MD5 and the code lengths of every frame so far.

    Args:
        header: of the stream.
        cloud: the cloud sub-model.
        evaluation: what takes its outputs for both sides; None: features only.
    """

    def __init__(
        self,
        header: SequenceHeader,
        cloud: Callable[[Sequence[Tensor]], Any],
        evaluation: Evaluation | None = None,
    ) -> None:
        self.nrmse = FeatureNrmse(len(header.tensors))
        self._header, self._cloud, self._evaluation = header, cloud, evaluation
        self._lengths: FrameWriter | None = None
        self._payload = 0
        self.frame_md5: list[str] = []
        self.frame_bits: list[dict[str, float]] = []

    def update(self, features: Sequence[Tensor], encoded: EncodedFrame) -> None:
        """Add a frame: its features as the edge sub-model gave them, and what became of it.

        Raises:
            ValueError: values that are not finite.
            ModelError: outputs that are not what the task expects.
        """
        self._payload += len(encoded.packet.payload)
        self.frame_md5.append(md5_of(encoded.latents))
        if self._lengths is None:
            self._lengths = FrameWriter(self._header, encoded.profile)
        lengths: dict[str, float] = defaultdict(float)
        for element, bits in self._lengths.code_lengths(encoded.symbols).items():
            lengths["levels" if element.startswith("levels") else element] += bits
        self.frame_bits.append(lengths)
        recovered = encoded.features
        self.nrmse.update_frame(features, recovered)
        if self._evaluation is not None:
            uncoded = self._cloud([tensor[None] for tensor in features])
            outputs = self._cloud([tensor[None] for tensor in recovered])
            self._evaluation.update(outputs, uncoded)

    def report(self) -> dict[str, Any]:
        """Return what the frames came to, flat.

        The payload is divided among motion, modes and levels in proportion to their code lengths.
        `nrmse` is equation (13) of arXiv:2102.04018 (see `FeatureNrmse`).

        Raises:
            TaskError: the annotations to compare with are of other frames, or cannot be used.
        """
        bits = {
            element: sum(lengths.get(element, 0.0) for lengths in self.frame_bits)
            for element in ("motion", "modes", "offsets", "levels")
        }
        code_length = max(sum(bits.values()), 1e-9)
        report: dict[str, Any] = {
            f"bytes_{element}": self._payload * length / code_length
            for element, length in bits.items()
        }
        report["nrmse"] = self.nrmse.combined()
        if len(self._header.tensors) > 1:
            for spec, value in zip(self._header.tensors, self.nrmse.per_tensor(), strict=True):
                report[f"nrmse_{spec.name}"] = value
        if self._evaluation is not None:
            report |= self._evaluation.figures()
        report["frame_md5"] = self.frame_md5
        return report
