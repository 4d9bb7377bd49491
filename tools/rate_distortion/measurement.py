"""The jobs of the rate-distortion study: a codec on a clip at one point, or a clip's showcase.

Each is a value that says all that its result depends on, but for the code itself: whose commit
stands in the result.  A clip is known by its name and content: in another folder it is the same
clip, and one that has changed is another.
"""

import importlib
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from codec.errors import ModelError, VideoError
from codec.models.sources import model_name
from codec.pipeline.network_tasks import described
from codec.running.keys import file_hash, key_of, weights_identity
from tools.contenders.codecs import study_codecs
from tools.contenders.judging import Judged
from tools.contenders.scene import Coded, Scene, StudyCodec
from tools.contenders.unavailable import AnchorUnavailableError
from tools.rate_distortion.showcase import showcase
from tools.report import provenance

__all__ = ["PointJob", "ShowcaseJob"]

SCENES = 2  # kept by a process: neighbours in the list of jobs share them
REFUSALS = (AnchorUnavailableError, VideoError, ModelError)
"""What a codec may answer to a scene that is not for it: an input without motion vectors, say."""


@lru_cache(maxsize=SCENES)
def _scene(
    path: Path,
    model: str,
    weights: str,
    split: str,
    frames: int,
    preprocessing: Path | None,
    task: str | None,
) -> Scene:
    return Scene.load(
        path,
        model=model,
        weights=weights,
        split=split,
        frames=frames,
        preprocessing_file=preprocessing,
        task_named=task,
    )


def _key(kind: str, readable: str, fields: dict[str, Any]) -> str:
    """Name a job; files, such as clips and weights, count by what is in them."""
    # what a network known by name does not need, its jobs have never been named by
    optional = {"path", *(name for name in FILES if fields[name] is None)}
    identity = {name: value for name, value in fields.items() if name not in optional}
    identity["weights"] = weights_identity(
        fields["model"], fields["weights"], fields["preprocessing"]
    )
    identity["model"] = model_name(identity["model"])
    for name in ("preprocessing", "profile"):
        if name in identity:
            identity[name] = file_hash(identity[name])
    if "task" in identity:
        identity["task"] = described(identity["task"])
    return key_of(kind, readable, identity)


FILES = ("preprocessing", "task", "profile")


@dataclass(frozen=True, slots=True)
class PointJob:
    """A codec on a clip at one point.

    `codec` is what `study_codecs` takes, `name` and `variant` are those of one that it gives.
    `split` is empty where the result does not depend on it.  `labels`: the true class of every
    frame, if known.  `preprocessing`, `task` and `profile` are those of `lmc encode`, for a network
    of one's own.
    """

    path: Path
    content: str
    model: str
    weights: str
    split: str
    frames: int
    codec: str
    name: str
    variant: str
    point: float
    labels: tuple[int, ...] | None = None
    preprocessing: Path | None = None
    task: str | None = None
    profile: Path | None = None

    @property
    def key(self) -> str:
        """Return a name that only this measurement has."""
        fields = asdict(self)
        module, colon, _ = self.codec.partition(":")
        if colon:  # a codec of one's own, which changes without a commit of ours
            source = importlib.import_module(module).__file__
            fields["source"] = source and file_hash(Path(source))
        return _key("point", f"{self.path.name} {self.split} {self._title}", fields)

    @property
    def _title(self) -> str:
        return " ".join(filter(None, (self.name, self.variant, f"{self.point:g}")))

    @property
    def label(self) -> str:
        """Say which clip, split, codec and point."""
        return " ".join(filter(None, (self.path.name, self.split, self._title)))

    @property
    def group(self) -> str:
        """Return clip, split and codec: points of one curve take about equally long."""
        return f"{self.path.name} {self.split} {self.name}"

    def study_codec(self) -> StudyCodec:
        """Make the codec anew, in whatever process this is."""
        found = [
            codec
            for codec in study_codecs(self.codec, qps=(int(self.point),))
            if (codec.name, codec.variant) == (self.name, self.variant)
        ]
        if len(found) != 1:
            raise ValueError(f"{self.codec}: {len(found)} codecs called {self._title}, expected 1")
        return found[0]

    def run(self) -> dict[str, Any]:
        """Code, decode and judge the clip; return a row, or why the codec refuses it.

        Raises:
            ValueError: the clip is not the one that the study was asked for.
        """
        row: dict[str, Any] = {
            "clip": self.path.name,
            "model": model_name(self.model),
            "weights": Path(self.weights).name,  # a file, perhaps
            "split": self.split,
            "codec": self.name,
            "variant": self.variant,
            "point": self.point,
        }
        if file_hash(self.path) != self.content:  # another machine's, or changed meanwhile
            raise ValueError(f"{self.path.name}: another file than the study was asked for")
        scene = replace(
            _scene(
                self.path,
                self.model,
                self.weights,
                self.split,
                self.frames,
                self.preprocessing,
                self.task,
            ),
            profile=self.profile,
        )
        provenance.reset_peak_memory()
        try:
            coded = self.study_codec().code(scene, self.point)
            memory = provenance.peak_memory()
        except REFUSALS as error:
            reason = str(error).replace(str(self.path), self.path.name)
            return row | {"refused": reason} | provenance.stamp()
        labels = None if self.labels is None else np.array(self.labels[: scene.frames], np.int64)
        judged = scene.judge(coded, labels)
        return (
            row
            | _rates(scene, coded)
            | judged.figures()
            | {
                "seconds": {**coded.seconds, "cloud": judged.seconds_cloud},
                "peak_memory_mb": memory,
                "parameters": dict(coded.parameters),
                "per_frame": _per_frame(coded, judged),
            }
            | provenance.stamp()
        )


def _rates(scene: Scene, coded: Coded) -> dict[str, Any]:
    elements = sum(tensor[0].size for tensor in scene.features)
    bits = 8 * coded.size
    return {
        "frames": scene.frames,
        "bytes": coded.size,
        "bytes_per_frame": coded.size / scene.frames,
        "kbit_per_s": bits / 1000 * float(scene.frame_rate) / scene.frames,
        "bits_per_element": bits / (scene.frames * elements) if elements else None,
    }


def _per_frame(coded: Coded, judged: Judged) -> dict[str, Any]:
    return {
        **judged.per_frame(),
        "bytes": None if coded.frame_bytes is None else list(coded.frame_bytes),
        "parts": {
            part: [round(float(value), 2) for value in values]
            for part, values in coded.parts.items()
        },
    }


@dataclass(frozen=True, slots=True)
class ShowcaseJob:
    """What one clip looks like at one split: frames, motion, channels, where rate and error go."""

    path: Path
    content: str
    model: str
    weights: str
    split: str
    frames: int
    qp: int
    preprocessing: Path | None = None
    task: str | None = None
    profile: Path | None = None

    @property
    def key(self) -> str:
        """Return a name that only this showcase has."""
        return _key("showcase", f"{self.path.name} {self.split} showcase {self.qp}", asdict(self))

    @property
    def label(self) -> str:
        """Say which clip and split."""
        return f"{self.path.name} {self.split} showcase"

    @property
    def group(self) -> str:
        """Return the split."""
        return f"showcase {self.split}"

    def run(self) -> dict[str, Any]:
        """Encode the clip once more and take its pictures."""
        return showcase(
            self.path,
            model=self.model,
            weights=self.weights,
            split=self.split,
            qp=self.qp,
            frames=self.frames,
            preprocessing=self.preprocessing,
            task=self.task,
            profile=self.profile,
        )
