"""What programs of the gallery are told of a network and a clip, with the options of `lmc encode`,
and the steps that they have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import codec
from codec.pipeline.decoding import TaskOutput
from codec.tasks.found import Instances

__all__ = ["Chosen", "Finder", "network_options"]


@dataclass(frozen=True)
class Chosen:
    """A network, where it is cut, which frames, and how they are coded."""

    model: str
    split_at: str
    weights: str
    preprocessing: Path | None
    task: str | None
    qp: int
    start: int
    frames: int

    def split(self) -> tuple[codec.Edge, codec.Cloud]:
        """Cut the network."""
        return codec.split(
            self.model, at=self.split_at, weights=self.weights, preprocessing=self.preprocessing
        )

    def read(self, clip: Path, edge: codec.Edge) -> tuple[NDArray[np.uint8], float]:
        """Read frames (N, H, W, 3) of the network's input size, and how high to draw a pixel of
        them for one that is 1 wide.
        """
        if edge.preprocessing is None:
            raise click.UsageError("how frames become its input is unknown; give --preprocessing")
        span = self.start, self.start + self.frames
        with codec.VideoReader(clip, edge.preprocessing, frames=span) as video:
            rgb = np.stack([frame.rgb for frame in video])
            source = video.geometry.height / video.geometry.width
        return rgb, source * rgb.shape[2] / rgb.shape[1]

    def encode(
        self,
        stream: Path,
        edge: codec.Edge,
        rgb: NDArray[np.uint8],
        **more: Any,  # noqa: ANN401 - of `codec.encode`
    ) -> codec.EncodedClip:
        """Encode the features of frames, with the motion that is searched in these."""
        given = {"split": edge, "motion": rgb, "task": self.task, "qp": self.qp, **more}
        return codec.encode(edge(rgb), stream, force=True, **given)


class Finder:
    """Finishes the task of a detector: features of a frame -> boxes, in pixels of its input."""

    def __init__(self, coded: codec.Clip, cloud: codec.Cloud) -> None:
        self._output = TaskOutput(coded.header, cloud.split)

    def __call__(self, features: Sequence[Tensor]) -> NDArray[np.float64]:
        """Return (N, 4): left, top, right, bottom."""
        found = self._output.result(self._output.outputs(features))
        if not isinstance(found, Instances):
            raise click.UsageError(
                "the network finds no boxes; say with --task what its outputs are"
            )
        return found.boxes


OPTIONS = (
    click.option("--model", required=True, help="A name of `lmc models`, a .pt2 or .onnx file."),
    click.option("--split", "split_at", required=True, help="Where to cut: a, or a+b+c."),
    click.option("--weights", default="default", help="Of a name: a file, or random:SEED."),
    click.option("--preprocessing", type=click.Path(path_type=Path), help="TOML, of a file."),
    click.option("--task", help="TOML: what the outputs of a file's network are."),
    click.option("--qp", default=16, show_default=True),
    click.option("--start", default=0, show_default=True, help="The first frame."),
    click.option("--frames", default=16, show_default=True),
)


def network_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the arguments `clip` and `output`, and these options as one, `chosen`."""

    @wraps(command)
    def with_options(**given: Any) -> None:  # noqa: ANN401 - of click
        chosen = Chosen(**{field.name: given.pop(field.name) for field in fields(Chosen)})
        command(chosen=chosen, **given)

    for option in reversed(OPTIONS):
        with_options = option(with_options)
    output = click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
    clip = click.argument("clip", type=click.Path(exists=True, path_type=Path))
    return clip(output(with_options))
