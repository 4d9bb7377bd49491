"""The experiments by name, and each on one network as a job.

An experiment is a module with `measure`, from settings and a network to rows, deterministic on one
machine with one thread; `draw`, from rows to a figure; and `report`, which sets the results of all
networks beside the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from codec.running.jobs import Result
from codec.running.keys import file_hash, key_of
from tools.motion_study import (
    coded,
    depth,
    filters,
    flow,
    hevc,
    histogram,
    magnitude,
    offsets,
    operations,
    real,
    sweep,
    transforms,
)
from tools.motion_study.keeping import packed, unpacked
from tools.motion_study.networks import weights_of
from tools.motion_study.settings import Settings
from tools.motion_study.verdicts import Report
from tools.report.provenance import stamp

__all__ = ["ExperimentJob", "report"]

EXPERIMENTS: dict[str, ModuleType] = {
    "flow": flow,
    "transforms": transforms,
    "sweep": sweep,
    "histogram": histogram,
    "hevc": hevc,
    "operations": operations,
    "depth": depth,
    "magnitude": magnitude,
    "filters": filters,
    "real": real,
    "coded": coded,
    "offsets": offsets,
}
UNSAID = ("progress", "networks")
"""Settings that no result depends on."""


@dataclass(frozen=True, slots=True)
class ExperimentJob:
    """An experiment on one network: a value that says all that its result depends on, but for the
    code itself, whose commit stands in the result.
    """

    experiment: str
    network: str
    settings: Settings

    @property
    def key(self) -> str:
        """Return a name that only this measurement has; clips, pictures, weights by content."""
        settings = self.settings
        weights = weights_of(self.network, settings.weights_dir)[0]
        identity = {name: value for name, value in asdict(settings).items() if name not in UNSAID}
        identity |= {
            "experiment": self.experiment,
            "network": self.network,
            "clips": [_content(clip) for clip in settings.clips],
            "images": None if settings.images is None else _contents(settings.images),
            "weights_dir": file_hash(Path(weights)) if Path(weights).is_file() else weights,
        }
        return key_of("experiment", self.label, identity)

    @property
    def label(self) -> str:
        """Say which experiment and network."""
        return f"{self.experiment} {self.network}"

    @property
    def group(self) -> str:
        """Return the experiment, which takes about equally long on all networks."""
        return self.experiment

    def run(self) -> Result:
        """Measure."""
        with torch.no_grad():
            found = EXPERIMENTS[self.experiment].measure(self.settings, self.network)
        return {"found": packed(found), **stamp()}


def _content(path: Path) -> tuple[str, str]:
    return path.name, file_hash(path)


def _contents(folder: Path) -> list[tuple[str, str]]:
    return [_content(path) for path in sorted(folder.iterdir()) if path.is_file()]


def report(experiment: str, results: Sequence[Result], output: Path) -> Report:
    """Draw and judge an experiment: what its jobs returned, one for each network."""
    found: list[Any] = [unpacked(result["found"]) for result in results]
    judged: Report = EXPERIMENTS[experiment].report(found, output)
    return judged
