"""The jobs of the link study: a clip over a link by one strategy, or by the anchor.

Each is a value that says all that its result depends on, but for the code itself: whose commit
stands in the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from codec.models.sources import model_name
from codec.pipeline.network_tasks import described
from codec.running.keys import file_hash, key_of, weights_identity
from tools.contenders.scene import Coded, Scene
from tools.link_study.ends import CONCEALMENTS, Course, Source, Terms, send
from tools.link_study.latency import Times, multiples, network_times
from tools.link_study.link import Condition
from tools.link_study.pixels import REFRESH, arrived, decoded, nearest
from tools.report import provenance

__all__ = ["ANCHOR", "FIGURES", "LinkJob", "PixelsJob", "Setting"]

ANCHOR = "pixels-x265"
FIGURES = ("top1_agreement", "kl", "score_error", "distortion")
"""Means over frames, of whatever task has them."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A clip and its network: as `Scene.load` takes them, and the profile of its split."""

    path: Path
    content: str
    model: str
    weights: str
    split: str
    frames: int
    preprocessing: Path | None = None
    task: str | None = None
    profile: Path | None = None

    def identity(self) -> dict[str, Any]:
        """Return what a result depends on; files count by what is in them."""
        files = (self.preprocessing, self.profile)
        return {
            "content": self.content,
            "clip": self.path.name,
            "model": model_name(self.model),
            "weights": weights_identity(self.model, self.weights, self.preprocessing),
            "split": self.split,
            "frames": self.frames,
            "files": [None if file is None else file_hash(file) for file in files],
            "task": described(self.task),
        }


@lru_cache(maxsize=1)
def _scene(setting: Setting) -> Scene:
    if file_hash(setting.path) != setting.content:  # another machine's, or changed meanwhile
        raise ValueError(f"{setting.path.name}: another file than the study was asked for")
    scene = Scene.load(
        setting.path,
        model=setting.model,
        weights=setting.weights,
        split=setting.split,
        frames=setting.frames,
        preprocessing_file=setting.preprocessing,
        task_named=setting.task,
    )
    return replace(scene, profile=setting.profile)


@lru_cache(maxsize=1)
def _source(setting: Setting, references: int) -> Source:
    return Source.of(_scene(setting), references)


@lru_cache(maxsize=1)
def _network_times(setting: Setting) -> tuple[float, float]:
    return network_times(_scene(setting))


@dataclass(frozen=True, slots=True)
class _Judging:
    """Judges frames of a scene, a few of them at a time: figures are means over frames."""

    scene: Scene
    _sums: dict[str, float] = field(default_factory=dict)

    def part(self, numbers: Sequence[int]) -> Scene:
        """Return the scene with these frames only."""
        scene = self.scene
        reference, dense = scene.reference, scene.dense_reference
        if scene.classifies:
            reference = reference[list(numbers)]
        else:
            reference = [reference[number] for number in numbers]
        return replace(
            scene,
            frames=len(numbers),
            rgb=scene.rgb[list(numbers)],
            features=tuple(tensor[list(numbers)] for tensor in scene.features),
            reference=reference,
            dense_reference=None if dense is None else dense[list(numbers)],
        )

    def sums(self, found: Mapping[int, Sequence[torch.Tensor]]) -> dict[str, float]:
        """Return the sums of figures over frames of which features are given."""
        if not found:
            return {}
        numbers = sorted(found)
        features = tuple(
            np.stack([found[number][index].numpy() for number in numbers])
            for index in range(len(self.scene.features))
        )
        figures = self.part(numbers).judge(Coded(1, features=features)).figures()
        return _summed(figures, len(numbers))


def _summed(figures: Mapping[str, float | None], count: int) -> dict[str, float]:
    return {name: figure * count for name in FIGURES if (figure := figures.get(name)) is not None}


def _mean(parts: Sequence[Mapping[str, float]], count: int) -> dict[str, float]:
    names = {name for part in parts for name in part}
    return {name: sum(part.get(name, 0.0) for part in parts) / count for name in sorted(names)}


def _link_fields(condition: Condition, seed: int) -> dict[str, Any]:
    return {
        "loss": condition.loss,
        "burst": condition.burst,
        "rtt_ms": 2000 * condition.delay,
        "jitter_ms": 1000 * condition.jitter,
        "bandwidth_kbit_per_s": None if condition.bandwidth is None else condition.bandwidth / 1000,
        "seed": seed,
    }


def _latency(found: Sequence[float]) -> dict[str, float]:
    p50, p95 = np.percentile(found, (50, 95)) * 1000
    return {"latency_p50_ms": float(p50), "latency_p95_ms": float(p95)}


@dataclass(frozen=True, slots=True)
class LinkJob:
    """A clip over a link by one strategy; a row for each way to conceal."""

    setting: Setting
    terms: Terms

    @property
    def key(self) -> str:
        """Return a name that only this measurement has."""
        identity = {**self.setting.identity(), "terms": asdict(self.terms)}
        return key_of("link", self.label, identity)

    @property
    def label(self) -> str:
        """Say which clip, strategy and loss."""
        terms = self.terms
        return (
            f"{self.setting.path.name} {terms.strategy} qp {terms.qp} "
            f"loss {terms.condition.loss:g} burst {terms.condition.burst:g} seed {terms.seed}"
        )

    @property
    def group(self) -> str:
        """Return the clip."""
        return self.setting.path.name

    def run(self) -> dict[str, Any]:
        """Send, decode and judge."""
        scene, terms = _scene(self.setting), self.terms
        source = _source(self.setting, terms.references)
        course = send(source, terms)
        common = {
            "clip": scene.clip,
            "strategy": terms.strategy,
            "qp": terms.qp,
            **_link_fields(terms.condition, terms.seed),
            "frames": course.frames,
            "frame_rate": source.frame_rate,
            "decoded": len(course.decoded),
            "concealed": len(course.missing),
            "skipped": len(course.skipped),
            "late": course.late,
            "key_frames_after_first": course.key_frames - 1,
            "kbit_per_s": _kbit(course.carried_bytes, course.frames, source.frame_rate),
            "payload_kbit_per_s": _kbit(course.packet_bytes, course.frames, source.frame_rate),
            "back_kbit_per_s": _kbit(course.back_bytes, course.frames, source.frame_rate),
            "bytes_lost": course.lost_bytes,
            "datagrams": course.datagrams,
            "datagrams_lost": course.lost,
            "datagrams_again": course.again,
            "mean_qp": float(np.mean(course.qps)),
            **_latency(list(course.latency.values())),
            **self._multiples(course, source.frame_rate),
        }
        judging = _Judging(scene)
        decoded_sums = judging.sums(course.decoded)
        ways = CONCEALMENTS if course.missing else CONCEALMENTS[:1]
        found = {
            way: _mean([decoded_sums, judging.sums(_made_up(course, way))], course.frames)
            for way in ways
        }
        rows = [
            {**common, "concealment": way, **found.get(way, found[ways[0]])} for way in CONCEALMENTS
        ]
        return {"rows": rows, **provenance.stamp()}

    def _multiples(self, course: Course, frame_rate: float) -> dict[str, float | None]:
        edge, cloud = _network_times(self.setting)
        times = Times(edge, median(course.coding), median(course.decoding), cloud)
        delay = self.terms.condition.delay
        found = multiples(course.latency, times, delay=delay, frame_rate=frame_rate)
        p50, p95 = (None, None) if found is None else np.percentile(found, (50, 95)).tolist()
        return {
            "frame_time_ms": times.total * 1000,
            "latency_multiple_p50": p50,
            "latency_multiple_p95": p95,
        }


def _made_up(course: Course, way: str) -> dict[int, Sequence[torch.Tensor]]:
    """Return what the cloud has in place of frames that did not come; of one that was skipped, what
    it had before.
    """
    found: dict[int, Sequence[torch.Tensor]] = dict(course.concealed[way])
    have = {**course.decoded, **found}
    before: Sequence[torch.Tensor] | None = None
    for number in range(course.frames):
        if number in course.skipped:
            if before is None:  # no result at all: as good as zeros
                before = [torch.zeros_like(tensor) for tensor in next(iter(have.values()))]
            found[number] = before
        else:
            before = have[number]
    return found


def _kbit(size: int, frames: int, frame_rate: float) -> float:
    return size * 8 * frame_rate / frames / 1000


@dataclass(frozen=True, slots=True)
class PixelsJob:
    """The anchor at about a rate, over links of several losses and seeds."""

    setting: Setting
    kbit_per_s: float
    conditions: tuple[Condition, ...]
    seeds: tuple[int, ...]
    max_latency: float

    @property
    def key(self) -> str:
        """Return a name that only this measurement has."""
        fields = asdict(self)
        del fields["setting"]
        fields["kbit_per_s"] = round(self.kbit_per_s, 3)
        return key_of("pixels", self.label, {**self.setting.identity(), **fields})

    @property
    def label(self) -> str:
        """Say which clip and rate."""
        return f"{self.setting.path.name} {ANCHOR} {self.kbit_per_s:.0f} kbit/s"

    @property
    def group(self) -> str:
        """Return the clip."""
        return f"{self.setting.path.name} {ANCHOR}"

    def run(self) -> dict[str, Any]:
        """Encode once; send, decode and judge for each link."""
        scene = _scene(replace(self.setting, split="", profile=None))
        frame_rate = float(scene.frame_rate)
        crf, packets = nearest(scene.rgb, frame_rate, self.kbit_per_s * 1000)
        rows = []
        for condition in self.conditions:
            for seed in self.seeds if condition.loss else self.seeds[:1]:
                course = arrived(
                    packets, frame_rate, condition, max_latency=self.max_latency, seed=2 * seed
                )
                images = decoded(packets, course.there)
                judged = scene.judge(Coded(1, images=images)).figures()
                there = sum(course.there)
                rows.append(
                    {
                        "clip": scene.clip,
                        "strategy": ANCHOR,
                        "concealment": "repeat",
                        "crf": crf,
                        "refresh": REFRESH,
                        **_link_fields(condition, seed),
                        "frames": scene.frames,
                        "frame_rate": frame_rate,
                        "decoded": there,
                        "concealed": scene.frames - there,
                        "skipped": 0,
                        "late": 0,
                        "key_frames_after_first": 0,
                        "kbit_per_s": _kbit(course.carried_bytes, scene.frames, frame_rate),
                        "payload_kbit_per_s": _kbit(
                            sum(map(len, packets)), scene.frames, frame_rate
                        ),
                        "bytes_lost": course.lost_bytes,
                        **_latency(course.latency),
                        **_summed(judged, 1),
                    }
                )
        return {"rows": rows, **provenance.stamp()}
