"""Photographs or videos + split model -> profile: no labels, no training.

    photograph ─► random views, each with a second one a little further on ─┐
    video ─► pairs of consecutive frames, spread over it ───────────────────┤
                                                                             ▼
           edge ─► features, motion-compensated residual ─► covariances      │ sums over inputs,
           cloud ─► gradients of random probes ───────────► sensitivity      │ checkpointed
                                                                             ▼
           `WeightedTransform` ─► the step at which the task loses what it may ─► profile

Invariants:
  * what is drawn for an input depends on the seed and its number only, and the sums are float64
    and kept in full, so a run that was interrupted and resumed gives the identical file;
  * nothing in a profile depends on the time, the folder or the machine's name.

Inputs are drawn in `pipeline.views`, sums kept in `pipeline.checkpoint`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.encoding.encoder import Encoder
from codec.errors import ModelError, VideoError
from codec.files.video import VideoReader
from codec.format.constants import DEFAULT_GRID, HASH_BYTES, MAX_QP
from codec.format.header import Preprocessing, SequenceHeader
from codec.format.profile import ImportanceModel, Profile
from codec.models.preprocessing import normalise
from codec.models.submodels import SplitModel
from codec.normative.motion import compensate, latent_displacement
from codec.pipeline.checkpoint import CHECKPOINT_SECONDS, Checkpoint
from codec.pipeline.network_tasks import task_like
from codec.pipeline.views import Pair, pairs_of_frames, read_photograph, views_of
from codec.profiling.fixed_point import block_size_for
from codec.profiling.importance import ImportanceFit, obstacle
from codec.profiling.probes import Criterion, probe_gradients
from codec.profiling.statistics import BUDGET, FEW, TensorStatistics, bytes_of, shares_of
from codec.profiling.weighted import WeightedTransform
from codec.tasks.anything import Anything

__all__ = ["CalibrationOptions", "calibrate", "steps_of"]

METHOD: Final = 4
"""Number of the method, in every profile's provenance: the same inputs give another file after it
has changed."""
REFERENCE_QP: Final = 28
TUNED: Final = 16
"""Inputs that the step is tuned on, at most."""
FITTED: Final = 160
"""Inputs that importance is fitted on, at most."""
FITTED_PROBES: Final = 8
UNIT_OCTAVES: Final = 13
"""Range of the step."""
UNIT_STEPS: Final = 9
"""Number of its bisections."""
PRECISION_BITS: Final = 20
"""Features are compensated as integers of about this many bits."""


@dataclass(frozen=True, slots=True)
class CalibrationOptions:
    """How much to measure: views of each photograph or pairs of frames of each video, probes of the
    cloud for each of them; and the seed of everything random.

    `budget`: size of the profile that is aimed at, bytes; None: `BUDGET` for each tensor.  One of C
    channels takes 2 C² for every matrix, at most one for each frequency of its blocks.
    """

    views: int = 2
    probes: int = 4
    seed: int = 0
    budget: int | None = None

    def __post_init__(self) -> None:
        """Refuse values outside their ranges."""
        budget = 1 if self.budget is None else self.budget
        if self.views < 1 or self.probes < 1 or budget < 1 or self.seed < 0:
            raise ValueError(
                f"views, probes and budget are positive, the seed not negative: {self}"
            )


def steps_of(inputs: int) -> int:
    """Return in how many steps so many inputs are calibrated on: each counts once, and twice more
    where importance is fitted to it.
    """
    return inputs + 2 * -(-inputs // -(-inputs // FITTED))


def calibrate(
    split: SplitModel,
    sources: Sequence[Path],
    preprocessing: Preprocessing,
    options: CalibrationOptions | None = None,
    *,
    task: Criterion | None = None,
    weights_hash: bytes = bytes(HASH_BYTES),
    device: str = "cpu",
    checkpoint: Path | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    force: bool = False,
    advance: Callable[[int], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Profile:
    """Measure the profile of a split model.

    Args:
        split: the sub-models, on `device`.
        sources: photographs and videos; a file of one frame is a photograph.
        preprocessing: what makes frames of the size that the model was split for.
        options: how much to measure.
        task: what errors of the output cost; None: as `network_tasks.task_like` takes them.
        weights_hash: of the whole model, for the provenance.
        device: where the model runs.
        checkpoint: file to go on from if it is of the same job, and to write the sums to in between
            and at the end; to be removed by the caller once the profile is where it belongs.
        checkpoint_seconds: least time between two checkpoints.
        force: overwrite a file that is there in place of the checkpoint and is none of this job.
        advance: called with the number of steps done since the last call, of `steps_of`.
        warn: called with a line of text if the budget is too small, or the inputs are too few.

    Raises:
        FileExistsError: there is something else in place of the checkpoint, and no `force`.
        VideoError: a source cannot be read, or has another size.
        ModelError: the features or the outputs cannot be calibrated on.
        ValueError: no sources.
    """
    options = options or CalibrationOptions()
    if not sources:
        raise ValueError("a profile is measured on at least one photograph or video; none came")
    measurement = _Measurement(split, preprocessing, options, device, task or Anything())
    diagonal = [each.spec for each in measurement.statistics if not each.dense]
    if diagonal and warn is not None:
        one = max(bytes_of(spec, 1) for spec in diagonal)
        enough = sum(min(one, bytes_of(spec, block_size_for(spec) ** 2)) for spec in split.tensors)
        each = " for each tensor" if options.budget is None else ""
        warn(
            f"budget of {options.budget or BUDGET} bytes{each}: none of it is left for a matrix of "
            f"{', '.join(spec.name for spec in diagonal)}, which raises the rate; "
            f"a budget of {enough} or more has one"
        )
    hashes = [_file_hash(source) for source in sources]
    job = {
        "method": METHOD,
        "model": split.name,
        "split": split.split,
        "weights_hash": weights_hash.hex(),
        "inputs": len(sources),
        "inputs_sha256": hashlib.sha256("".join(hashes).encode()).hexdigest(),
        **asdict(options),
    }
    key = json.dumps([job, device, split.input_size, asdict(preprocessing), _as_text(task)])
    if task is None:
        with torch.no_grad():
            features = measurement.whole(sources[0], 0)
            measurement.task = task_like(split.cloud([tensor[None] for tensor in features]))
    kept = Checkpoint(checkpoint, key, checkpoint_seconds, force=force)
    done = measurement.add_all(sources, kept, advance)
    few = [each for each in measurement.statistics if each.few]
    if few and warn is not None:
        worst = min(few, key=lambda each: each.blocks / each.spec.channels)
        warn(
            f"few inputs: {worst.blocks} blocks for {worst.spec.channels} channels; "
            f"{FEW * worst.spec.channels} or more make a better profile: add inputs or views"
        )
    transform = WeightedTransform(measurement.statistics)
    importance, said = _importance(measurement, transform, sources, advance or (lambda _: None))
    unit, loss = _tuned_unit(measurement, transform, importance, sources)
    provenance: dict[str, object] = {
        **job,
        **done,
        "unit": unit,
        f"{measurement.task.loss}_at_qp_{REFERENCE_QP}": round(loss, 4),
        "importance": f"{'not ' if importance is None else ''}predicted: {said}",
    }
    return replace(transform.profile(unit, provenance), importance=importance)


class _Measurement:
    """Turns inputs into sums."""

    def __init__(
        self,
        split: SplitModel,
        preprocessing: Preprocessing,
        options: CalibrationOptions,
        device: str,
        task: Criterion,
    ) -> None:
        self.split, self.preprocessing, self.options = split, preprocessing, options
        self.device, self.task = device, task
        self.statistics = [
            TensorStatistics(spec, share, device)
            for spec, share in zip(
                split.tensors, shares_of(split.tensors, options.budget), strict=True
            )
        ]
        height, width = split.input_size
        self.header = SequenceHeader(
            tensors=split.tensors,
            input_height=height,
            input_width=width,
            profile_hash=bytes(HASH_BYTES),
            grid=DEFAULT_GRID,
        )

    def features(self, rgb: NDArray[np.uint8], source: Path) -> list[Tensor]:
        """Run the edge sub-model on one (H, W, 3) picture."""
        if rgb.shape[:2] != self.split.input_size:
            height, width = self.split.input_size
            raise VideoError(
                f"{source}: gives frames of {rgb.shape[1]}x{rgb.shape[0]}, the model was split "
                f"for {width}x{height}"
            )
        with torch.no_grad():
            image = normalise(rgb, self.preprocessing).to(self.device)
            features = [tensor[0] for tensor in self.split.edge(image)]
        if not all(bool(torch.isfinite(tensor).all()) for tensor in features):
            raise ModelError(
                f"{source}: the features of {self.split.name} at {self.split.split} are not finite"
            )
        return features

    def pairs(self, source: Path, number: int) -> tuple[Iterator[Pair], torch.Generator, bool]:
        """Return pairs of pictures of an input, the generator behind them, and whether it is a
        photograph.
        """
        random = np.random.default_rng([self.options.seed, number])
        generator = torch.Generator("cpu").manual_seed(int(random.integers(1 << 62)))
        photograph = read_photograph(source, self.preprocessing, self.split.input_size)
        count = self.options.views
        if photograph is not None:
            views = views_of(photograph, self.header, count, random, generator)
            return views, generator, True
        frames = pairs_of_frames(source, self.preprocessing, self.header, count, REFERENCE_QP)
        return frames, generator, False

    def add(self, source: Path, number: int) -> bool:
        """Count an input; tell whether it is a photograph."""
        pairs, generator, photograph = self.pairs(source, number)
        marks = [each.mark() for each in self.statistics]
        for before, after, vectors in pairs:
            self._add_pair(
                self.features(before, source), self.features(after, source), vectors, generator
            )
        for each, mark in zip(self.statistics, marks, strict=True):
            each.end_input(mark)
        return photograph

    def whole(self, source: Path, number: int) -> list[Tensor]:
        """Return the features of an input's first frame; of a photograph that has another size than
        the model was split for, those of a view.
        """
        with VideoReader(source, self.preprocessing) as reader:
            rgb = next(iter(reader)).rgb
        if rgb.shape[:2] != self.split.input_size:
            pairs, _, photograph = self.pairs(source, number)
            rgb = next(pairs)[0] if photograph else rgb
        return self.features(rgb, source)

    def _add_pair(
        self,
        before: list[Tensor],
        after: list[Tensor],
        vectors: NDArray[np.int32],
        generator: torch.Generator,
    ) -> None:
        for each, old, new in zip(self.statistics, before, after, strict=True):
            each.add_features(old)
            each.add_features(new)
            peak = max(float(old.abs().max()), 2.0**-PRECISION_BITS)
            scale = 2.0 ** (PRECISION_BITS - math.ceil(math.log2(peak)))
            shift = latent_displacement(vectors, self.header.grid, each.spec)
            predicted = compensate(torch.round(old.double() * scale), shift) / scale
            each.add_residual((new.double() - predicted).float())
        gradients = probe_gradients(
            self.split.cloud, after, self.options.probes, generator, self.task
        )
        TensorStatistics.add_gradients(self.statistics, gradients)

    def add_all(
        self,
        sources: Sequence[Path],
        checkpoint: Checkpoint,
        advance: Callable[[int], None] | None,
    ) -> dict[str, int]:
        """Count all inputs that are not yet in the checkpoint; return how many of which kind."""
        done = checkpoint.load(self.statistics, self.device)
        first = sum(done.values())
        if advance is not None and first:
            advance(first)
        for number in range(first, len(sources)):
            photograph = self.add(sources[number], number)
            done["photographs" if photograph else "videos"] += 1
            checkpoint.save_if_due(self.statistics, done)
            if advance is not None:
                advance(1)
        checkpoint.save(self.statistics, done)  # what follows may be interrupted too
        return done


def _importance(
    measurement: _Measurement,
    transform: WeightedTransform,
    sources: Sequence[Path],
    advance: Callable[[int], None],
) -> tuple[tuple[ImportanceModel, ...] | None, str]:
    """Fit how importance is told from features, on inputs as the network will see them; say in
    words what became of it.
    """
    unit = max(transform.deviation, 2.0**-40) * 2.0**-UNIT_OCTAVES  # cancels
    profile = transform.profile(unit)
    chosen = sources[:: -(-len(sources) // FITTED)]
    against = obstacle(profile, len(chosen))
    if against:
        advance(steps_of(len(sources)) - len(sources))
        return None, against
    fit = ImportanceFit(profile)
    for number, source in enumerate(chosen):
        features = measurement.whole(source, number)
        generator = torch.Generator("cpu").manual_seed(measurement.options.seed + number)
        gradients = probe_gradients(
            measurement.split.cloud, features, FITTED_PROBES, generator, measurement.task
        )
        fit.measure(features, gradients)
        advance(1)
    for number, source in enumerate(chosen):
        fit.add(measurement.whole(source, number))
        advance(1)
    return fit.models()


def _tuned_unit(
    measurement: _Measurement,
    transform: WeightedTransform,
    importance: tuple[ImportanceModel, ...] | None,
    sources: Sequence[Path],
) -> tuple[float, float]:
    """Bisect the step at qp 0 for what inputs, coded as key frames at the reference qp, may lose.

    At most so large that the step at the reference qp is the deviation of the largest component, by
    where nothing is left; models with random weights lose next to nothing even there.
    """
    chosen = sources[:: -(-len(sources) // TUNED)]
    features = [measurement.whole(source, number) for number, source in enumerate(chosen)]
    high = max(transform.deviation, 2.0**-40) * 2.0 ** (-REFERENCE_QP / 6)
    low = high * 2.0**-UNIT_OCTAVES
    with torch.no_grad():
        references = [
            measurement.split.cloud([tensor[None] for tensor in each]) for each in features
        ]
        for _ in range(UNIT_STEPS):
            unit = math.sqrt(low * high)
            profile = replace(transform.profile(unit), importance=importance)
            loss = _loss_at(measurement, profile, features, references)
            low, high = (unit, high) if loss < measurement.task.target else (low, unit)
    return unit, loss


def _loss_at(
    measurement: _Measurement,
    profile: Profile,
    features: Sequence[list[Tensor]],
    references: Sequence[object],
) -> float:
    header = replace(measurement.header, profile_hash=profile.hash, profile=profile.to_bytes())
    try:
        encoder = Encoder(header, device=measurement.device, profile=profile)
    except ValueError as error:
        raise ModelError(
            f"{measurement.split.name} at {measurement.split.split}: {error}"
        ) from error
    qp = min(REFERENCE_QP + encoder.key_offset, MAX_QP)  # which it takes off for key frames
    total = 0.0
    for tensors, reference in zip(features, references, strict=True):
        decoded = encoder.encode(tensors, key=True, qp=qp).features
        output = measurement.split.cloud([tensor[None] for tensor in decoded])
        total += measurement.task.lost(reference, output)
    return total / len(features)


def _as_text(task: Criterion | None) -> str:
    """Describe a task such that it tells it from any other, today and tomorrow."""
    return repr(task) if is_dataclass(task) or task is None else f"{type(task)} {vars(task)}"


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
