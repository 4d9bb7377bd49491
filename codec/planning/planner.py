"""A plan made: cuts chosen, jobs done or taken from the folder where they are kept, options put
together.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from codec import __version__
from codec.errors import JobError, ModelError, VideoError
from codec.files.video_coders import parameters_of, x265
from codec.models.boundary import printable
from codec.models.networks import open_network
from codec.models.sources import is_file
from codec.pipeline.network_tasks import described, task_files, task_of
from codec.planning.candidates import Candidate, candidates
from codec.planning.measurement import (
    PIXEL_FORMATS,
    TIMED_PIXELS,
    TIMED_WHOLE,
    X265,
    CutJob,
    RemoteJob,
    Setting,
    TimesJob,
    look,
)
from codec.planning.plan import EDGE_ONLY, REMOTE, Option, Plan
from codec.planning.search import Curve, Point
from codec.planning.stages import Terms
from codec.running.jobs import Job, Store, complete
from codec.running.keys import file_hash

__all__ = ["Request", "make_plan"]

CUT_FACTS = ("elements", "tensors", "profile", "profile_bytes")
"""What is known of a cut besides its points."""
PROFILES = {
    "shipped": "shipped",
    "clips": "measured on the clips themselves, so that their rates are flattered",
    "photographs": "measured on the photographs",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What `lmc plan` is asked for.

    `fidelity`: mean loss of a frame, in the unit of the task's loss; None: the task's own target.
    `splits`: in place of a choice.  `photographs`: what profiles are measured on where none is
    shipped; none: the clips.
    """

    clips: tuple[Path, ...]
    setting: Setting
    terms: Terms
    fidelity: float | None = None
    splits: tuple[str, ...] = ()
    photographs: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Return all that is read."""
        setting = self.setting
        given = [Path(setting.model)] if is_file(setting.model) else []
        given += [Path(setting.weights)] if Path(setting.weights).is_file() else []
        given += [] if setting.preprocessing is None else [setting.preprocessing]
        return (*self.clips, *self.photographs, *given, *task_files(setting.task))


def make_plan(request: Request, folder: Path, *, command: str, quiet: bool = False) -> Plan:
    """Measure what is not yet in a folder, and make the plan.

    Args:
        request: what is asked for.
        folder: where results and profiles are kept; what is in it is not measured again.
        command: for the provenance.
        quiet: no progress.

    Raises:
        FeatureCodecError: a clip, the network or the task is none, the network sees clips in
            different sizes, or no cut of it can be coded.
    """
    setting, clips = request.setting, request.clips
    task = task_of(described(setting.task), open_network(setting.model, setting.weights).name)
    target = task.target if request.fidelity is None else request.fidelity
    size = _seen(setting, clips)
    found, chosen = candidates(setting.model, size, request.splits)
    if not found:
        raise ModelError(f"{setting.model}: has no cut to plan with; `lmc models` lists them")
    splits = tuple(each.split for each in found)
    hashes = [file_hash(path) for path in clips]
    remote = {
        taken: [
            RemoteJob(setting, path, content, taken, target)
            for path, content in zip(clips, hashes, strict=True)
        ]
        for taken in PIXEL_FORMATS
    }
    cuts = {
        split: [
            CutJob(
                setting,
                path,
                content,
                split,
                target,
                request.photographs,
                clips,
                folder / "profiles",
            )
            for path, content in zip(clips, hashes, strict=True)
        ]
        for split in splits
    }
    store = Store(folder / "jobs")
    coded: list[Job] = [job for group in remote.values() for job in group]
    coded += [job for group in cuts.values() for job in group]
    _complete(coded, store, quiet)
    options: list[Option] = []
    refused: list[dict[str, str]] = []
    for candidate in found:
        results = [
            store.read(job.key, complete=_has("points", *CUT_FACTS))
            for job in cuts[candidate.split]
        ]
        if not _refused(candidate.split, results, refused):
            options.append(_cut(candidate, results, target))
    if not options:
        raise ModelError(f"no cut can be coded, the first: {refused[0]['reason']}")
    pixels = _remote(remote, store, target, refused)
    times = TimesJob(
        tuple((cuts[option.name][0], option.curves[0].nearest.parameter) for option in options),
        None
        if pixels is None
        else (
            remote[pixels.facts["pixel_format"]][0],
            pixels.curves[0].nearest.parameter,
        ),
        setting,
        clips[0],
        hashes[0],
    )
    _complete([times], store, quiet)
    timed = store.read(times.key, complete=_has("seconds", "excess"))
    seconds: dict[str, dict[str, tuple[float, ...]]] = {
        name: {stage: tuple(values) for stage, values in stages.items()}
        for name, stages in timed["seconds"].items()
    }
    whole = seconds[TIMED_WHOLE]["cloud"]
    options = [replace(option, seconds=seconds[option.name]) for option in options]
    if pixels is not None:
        options.append(replace(pixels, seconds={**seconds[TIMED_PIXELS], "cloud": whole}))
    options.append(Option(EDGE_ONLY, "edge", (), {"edge": whole}))
    frames = [len(curve.points[0].losses) for curve in options[0].curves]
    return Plan(
        options,
        request.terms,
        settings={
            "model": printable(Path(setting.model).name)
            if is_file(setting.model)
            else setting.model,
            "weights": printable(Path(setting.weights).name),
            "task": task.name,
            "loss": task.loss,
            "target": target,
            "effort": setting.effort,
            "clips": [printable(path.name) for path in clips],
            "frames": frames,
            "input_width": size[1],
            "input_height": size[0],
            "cuts": chosen,
            "profiles": _profiles(options),
            "x265": parameters_of(x265(X265), 0, "yuv420p")["library"],
        },
        provenance={
            "command": command,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {
                "latent-motion-codec": __version__,
                "python": platform.python_version(),
                "torch": version("torch"),
                "numpy": version("numpy"),
                "av": version("av"),
            },
            "machine": f"{platform.system()} {platform.machine()}",
        },
        refused=[
            {
                "split": each["split"],
                "reason": _by_name(each["reason"], [*request.files, folder / "profiles"]),
            }
            for each in refused
        ],
        times_excess=timed["excess"],
    )


def _seen(setting: Setting, clips: Sequence[Path]) -> tuple[int, int]:
    """Look at all clips before any work is done on one; return height and width of what the network
    sees of each.
    """
    sizes = [look(setting, path).size for path in clips]
    for path, size in zip(clips, sizes, strict=True):
        if size != sizes[0]:
            (height, width), (first_height, first_width) = size, sizes[0]
            raise VideoError(
                f"{path}: frames of {width}x{height}, those of {clips[0]} are "
                f"{first_width}x{first_height} for the network; plan with clips of one size"
            )
    return sizes[0]


def _has(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    """Tell of a result whether it has all that is read from it, or says why there is none."""
    return lambda result: "refused" in result or result.keys() >= set(names)


def _by_name(text: str, paths: Sequence[Path]) -> str:
    """Name files in a text without their folders, the longest path first."""
    for path in sorted(paths, key=lambda each: -len(str(each))):
        text = text.replace(str(path), path.name)
    return printable(text)


def _complete(jobs: Sequence[Job], store: Store, quiet: bool) -> None:
    # what was refused may be taken now: another FFmpeg, a task's extra installed meanwhile
    failed = complete(jobs, store, again=lambda result: "refused" in result, quiet=quiet)
    if failed:
        raise JobError(f"{len(failed)} of {len(jobs)} measurements failed, the first: {failed[0]}")


def _refused(
    name: str, results: Sequence[Mapping[str, Any]], refused: list[dict[str, str]]
) -> bool:
    """Note what could not be measured."""
    reason = next((each["refused"] for each in results if "refused" in each), None)
    if reason is not None:
        refused.append({"split": name, "reason": str(reason)})
    return reason is not None


def _cut(candidate: Candidate, results: Sequence[Mapping[str, Any]], target: float) -> Option:
    first = results[0]
    facts: dict[str, Any] = {name: first[name] for name in CUT_FACTS}
    if candidate.tensors:
        facts |= {
            "edge_macs": candidate.cost.edge_macs,
            "cloud_macs": candidate.cost.cloud_macs,
        }
    curves = tuple(_curve(result, target) for result in results)
    return Option(candidate.split, "cut", curves, {}, facts)


def _remote(
    jobs: Mapping[str, Sequence[RemoteJob]],
    store: Store,
    target: float,
    refused: list[dict[str, str]],
) -> Option | None:
    """Return remote inference in the better of the formats, if x265 takes the pictures."""
    found = []
    for taken, of_format in jobs.items():
        results = [store.read(job.key, complete=_has("points")) for job in of_format]
        if not _refused(f"{REMOTE}, {taken}", results, refused):
            curves = tuple(_curve(result, target) for result in results)
            found.append(Option(REMOTE, "remote", curves, {}, {"pixel_format": taken}))
    return min(found, key=lambda option: (not option.reached, _mean_bytes(option)), default=None)


def _mean_bytes(option: Option) -> float:
    return sum(curve.plain_bytes_per_frame() for curve in option.curves)


def _curve(result: Mapping[str, Any], target: float) -> Curve:
    return Curve([Point.from_json(each) for each in result["points"]], target)


def _profiles(options: Sequence[Option]) -> str:
    """Say where the profiles of the cuts are from."""
    by_source: dict[str, list[str]] = {}
    for option in options:
        if option.kind == "cut":
            by_source.setdefault(option.facts["profile"], []).append(option.name)
    if len(by_source) == 1:
        return PROFILES[next(iter(by_source))]
    return "; ".join(
        f"{PROFILES[source]}: {', '.join(names)}" for source, names in by_source.items()
    )
