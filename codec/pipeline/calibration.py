"""Photographs or videos + split model -> profile: no labels, no training.

    photograph ─► random views, each with a second one a little further on ─┐
    video ─► pairs of consecutive frames, spread over it ────────────────────┤
                                                                             ▼
           edge ─► features, motion-compensated residual ─► covariances      │ sums over inputs,
           cloud ─► gradients of random probes ───────────► sensitivity      │ checkpointed
                                                                             ▼
           `WeightedTransform` ─► the step at which the task loses what it may ─► profile

Invariants:
  * what is drawn for an input depends on the seed and its number only, and the sums are float64
    and kept in full, so a run that was interrupted and resumed gives the identical file;
  * nothing in a profile depends on the time, the folder or the machine's name.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from codec.encoding.encoder import Encoder
from codec.encoding.motion_search import MotionSearch, luma
from codec.errors import ModelError, VideoError
from codec.files.outputs import open_output
from codec.files.video import VideoReader
from codec.format.constants import HASH_BYTES, MAX_QP
from codec.format.header import Preprocessing, SequenceHeader
from codec.format.profile import Profile
from codec.models.preprocessing import normalise
from codec.models.submodels import SplitModel
from codec.normative.motion import VECTOR_UNITS, compensate, latent_displacement
from codec.pipeline.metrics import kl_divergence
from codec.profiling.weighted import (
    BUDGET,
    FEW,
    TensorStatistics,
    WeightedTransform,
    is_classification,
    output_tensors,
    probe_gradients,
)

__all__ = ["CalibrationOptions", "calibrate", "task_loss"]

METHOD = 1
"""Number of the method, in every profile's provenance: the same inputs give another file after it
has changed."""
REFERENCE_QP = 28
TARGET_KL = 0.07
"""Nats that inputs coded as key frames at the reference qp lose: what ties qp to the task."""
TARGET_ERROR = 0.02
"""For other outputs than classes: squared error of an output tensor as a share of its variance."""
TUNED = 48
"""Inputs that the step is tuned on, at most."""
UNIT_OCTAVES, UNIT_STEPS = 13, 9
"""Range and number of bisections of the step."""
OVERSCAN = 256 / 224
"""Short side of a photograph, in sides of the model's input, from which views are cut."""
ZOOM = (0.8, 1.14)
"""Pixels of the photograph per pixel of a view."""
MOTION = (0.3, 12.0)
"""Spread of the displacement between two views, pixels; log-uniform."""
LARGEST_MOTION = 20
ZOOM_MOTION = 0.01
NOISE = (0.5, 3.0)
"""Standard deviation of camera noise, grey levels, before it is smoothed."""
GRID = 32
FRAME_STEP = 8
"""Frames between pairs in a video that does not say how long it is."""
PRECISION_BITS = 20
"""Features are compensated as integers of about this many bits."""
CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class CalibrationOptions:
    """How much to measure: views of each photograph or pairs of frames of each video, probes of the
    cloud for each of them; and the seed of everything random.
    """

    views: int = 8
    probes: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values outside their ranges."""
        if self.views < 1 or self.probes < 1 or self.seed < 0:
            raise ValueError(f"views and probes are positive, the seed not negative: {self}")


def calibrate(
    split: SplitModel,
    sources: Sequence[Path],
    preprocessing: Preprocessing,
    options: CalibrationOptions | None = None,
    *,
    weights_hash: bytes = bytes(HASH_BYTES),
    device: str = "cpu",
    budget: int = BUDGET,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    force: bool = False,
    advance: Callable[[int], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Profile:
    """Measure the profile of a split model.

    Args:
        split: the sub-models, on `device`.  Outputs: (N, classes) logits, for which the Fisher
            information of the softmax counts; or any other tensor, dict, list or tuple of tensors,
            for which the Gauss-Newton matrix of the standardised values does.
        sources: photographs and videos; a file of one frame is a photograph.
        preprocessing: what makes frames of the size that the model was split for.
        options: how much to measure.
        weights_hash: of the whole model, for the provenance.
        device: where the model runs.
        budget: size of the profile that is aimed at, bytes.
        checkpoint: file to go on from if it is of the same job, and to write the sums to in between
            and at the end; to be removed by the caller once the profile is where it belongs.
        checkpoint_seconds: least time between two checkpoints.
        force: overwrite a file that is there in place of the checkpoint and is none of this job.
        advance: called with the number of inputs done since the last call.
        warn: called with a line of text if the inputs are too few.

    Raises:
        FileExistsError: there is something else in place of the checkpoint, and no `force`.
        VideoError: a source cannot be read, or has another size.
        ModelError: the features or the outputs cannot be calibrated on.
        ValueError: no sources.
    """
    options = options or CalibrationOptions()
    if not sources:
        raise ValueError("a profile is measured on at least one photograph or video; none came")
    run = _Run(split, preprocessing, options, device, budget)
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
    key = json.dumps([job, device, budget, split.input_size, asdict(preprocessing)])
    done = _Checkpoint(checkpoint, key, checkpoint_seconds, force=force).run(run, sources, advance)
    few = [each for each in run.statistics if each.few]
    if few and warn is not None:
        worst = min(few, key=lambda each: each.blocks / each.spec.channels)
        warn(
            f"few inputs: {worst.blocks} blocks for {worst.spec.channels} channels; "
            f"{FEW * worst.spec.channels} or more make a better profile: add inputs or views"
        )
    transform = WeightedTransform(run.statistics)
    unit, loss, criterion = _tuned_unit(run, transform, sources)
    provenance: dict[str, object] = {
        **job,
        "photographs": done["photographs"],
        "videos": done["videos"],
        "unit": unit,
        f"{criterion}_at_qp_{REFERENCE_QP}": round(loss, 4),
    }
    return transform.profile(unit, provenance)


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- statistics of one input ------------------------------------------------------------------


class _Run:
    """Turns inputs into sums."""

    def __init__(
        self,
        split: SplitModel,
        preprocessing: Preprocessing,
        options: CalibrationOptions,
        device: str,
        budget: int,
    ) -> None:
        self.split, self.preprocessing, self.options = split, preprocessing, options
        self.device = device
        squares = [spec.channels**2 for spec in split.tensors]
        self.statistics = [
            TensorStatistics(spec, budget * square // sum(squares), device)
            for spec, square in zip(split.tensors, squares, strict=True)
        ]
        height, width = split.input_size
        self.header = SequenceHeader(
            tensors=split.tensors,
            input_height=height,
            input_width=width,
            profile_hash=bytes(HASH_BYTES),
            grid=GRID,
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

    def add(self, source: Path, number: int) -> bool:
        """Count an input; tell whether it is a photograph."""
        random = np.random.default_rng([self.options.seed, number])
        generator = torch.Generator("cpu").manual_seed(int(random.integers(1 << 62)))
        side = round(min(self.split.input_size) * OVERSCAN)
        large = replace(self.preprocessing, short_side=side, crop=0, pad_multiple=1)
        with VideoReader(source, large) as reader:
            first = list(islice(reader, 2))
        photograph = len(first) == 1
        pairs = self._views(first[0].rgb, random, generator) if photograph else self._frames(source)
        for before, after, vectors in pairs:
            self._add_pair(
                self.features(before, source), self.features(after, source), vectors, generator
            )
        return photograph

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
            shift = latent_displacement(vectors, GRID, each.spec)
            predicted = compensate(torch.round(old.double() * scale), shift) / scale
            each.add_residual((new.double() - predicted).float())
        gradients = probe_gradients(self.split.cloud, after, self.options.probes, generator)
        TensorStatistics.add_gradients(self.statistics, gradients)

    def _views(
        self, picture: NDArray[np.uint8], random: np.random.Generator, generator: torch.Generator
    ) -> Iterator[_Pair]:
        """Cut views out of a photograph, each with one that lies a little further on."""
        whole = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None]
        rows, columns = picture.shape[:2]
        height, width = self.split.input_size
        for _ in range(self.options.views):
            source = whole.flip(-1) if random.random() < 0.5 else whole
            zoom = math.exp(random.uniform(*np.log(ZOOM)))
            zoom = min(zoom, (rows - 2) / (height + 2), (columns - 2) / (width + 2))
            edge_y, edge_x = zoom * height / 2 + 1, zoom * width / 2 + 1
            y, x = random.uniform(edge_y, rows - edge_y), random.uniform(edge_x, columns - edge_x)
            spread = math.exp(random.uniform(*np.log(MOTION)))
            dy, dx = np.clip(random.normal(0, spread, 2), -LARGEST_MOTION, LARGEST_MOTION)
            zoomed = zoom * math.exp(random.normal(0, ZOOM_MOTION))
            noise = random.uniform(*NOISE)
            before = self._view(source, y, x, zoom)
            after = self._view(source, y + dy * zoom, x + dx * zoom, zoomed)
            vectors = np.empty((*self.header.field_shape, 2), np.int32)
            vectors[:] = round(VECTOR_UNITS * dy), round(VECTOR_UNITS * dx)
            yield (_noisy(before, noise, generator), _noisy(after, noise, generator), vectors)

    def _view(self, picture: Tensor, y: float, x: float, zoom: float) -> Tensor:
        height, width = self.split.input_size
        rows, columns = picture.shape[2:]
        ys = ((_places(height) - (height - 1) / 2) * zoom + y) * (2 / (rows - 1)) - 1
        xs = ((_places(width) - (width - 1) / 2) * zoom + x) * (2 / (columns - 1)) - 1
        grid = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], -1)[None]
        return grid_sample(
            picture, grid.float(), mode="bicubic", padding_mode="reflection", align_corners=True
        )

    def _frames(self, source: Path) -> Iterator[_Pair]:
        """Read pairs of consecutive frames with the motion between them."""
        with VideoReader(source, self.preprocessing) as reader:
            hint = reader.frame_count_hint
            wanted = self.options.views
            step = FRAME_STEP if hint is None else max(hint // wanted, 2)
            before: NDArray[np.uint8] | None = None
            found = 0
            for number, frame in enumerate(reader):
                if before is not None and number % step == 1:
                    search = MotionSearch(self.header, qp=REFERENCE_QP)
                    if before.shape[:2] == self.split.input_size == frame.rgb.shape[:2]:
                        search.estimate(luma(before))
                        vectors = search.estimate(luma(frame.rgb))
                    else:
                        vectors = None  # refused by whoever takes the pair
                    if vectors is None:
                        vectors = np.zeros((*self.header.field_shape, 2), np.int32)
                    yield before, frame.rgb, vectors
                    found += 1
                    if found == wanted:
                        return
                before = frame.rgb


def _places(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.float32, device="cpu")


_Pair = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int32]]


def _noisy(view: Tensor, deviation: float, generator: torch.Generator) -> NDArray[np.uint8]:
    """Add what a camera adds, smoothed as demosaicing does; return (H, W, 3)."""
    white = torch.randn(view.shape, generator=generator, dtype=torch.float32, device="cpu")
    noise = avg_pool2d(white, 3, 1, 1) * (2 * deviation)
    pixels: NDArray[np.uint8] = (
        (view + noise).round().clamp(0, 255)[0].permute(1, 2, 0).to(torch.uint8).numpy()
    )
    return pixels


# --- checkpoints ------------------------------------------------------------------------------


class _Checkpoint:
    """The sums so far, in a file beside the output that only its own job goes on from."""

    def __init__(self, path: Path | None, key: str, seconds: float, *, force: bool) -> None:
        self._path, self._seconds, self._force = path, seconds, force
        self._key = hashlib.sha256(key.encode()).hexdigest()

    def run(
        self, run: _Run, sources: Sequence[Path], advance: Callable[[int], None] | None
    ) -> dict[str, int]:
        """Count all inputs that are not yet in the checkpoint; return how many of which kind."""
        done = self._load(run)
        if done is None:
            if self._path is not None and self._path.is_dir():
                raise IsADirectoryError(f"{self._path}: is a directory; move it away")
            if self._path is not None and self._path.exists() and not self._force:
                raise FileExistsError(
                    f"{self._path}: exists and is no checkpoint of this job; move it away, or pass "
                    "--force to overwrite it"
                )
            done = {"photographs": 0, "videos": 0}
        first = sum(done.values())
        if advance is not None and first:
            advance(first)
        last = time.monotonic()
        for number in range(first, len(sources)):
            photograph = run.add(sources[number], number)
            done["photographs" if photograph else "videos"] += 1
            if time.monotonic() - last >= self._seconds:
                self._save(run, done)
                last = time.monotonic()
            if advance is not None:
                advance(1)
        self._save(run, done)  # what follows may be interrupted too
        return done

    def _load(self, run: _Run) -> dict[str, int] | None:
        if self._path is None or not self._path.is_file():
            return None
        try:
            with safe_open(self._path, framework="pt", device=run.device) as file:
                state = json.loads((file.metadata() or {}).get("state", "{}"))
                if not isinstance(state, dict) or state.get("job") != self._key:
                    return None
                found = [
                    {name: file.get_tensor(f"{number}.{name}") for name in each.sums}
                    for number, each in enumerate(run.statistics)
                ]
            done = {kind: int(state["done"][kind]) for kind in ("photographs", "videos")}
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            return None  # whatever it is, it is no checkpoint of this job
        for each, sums in zip(run.statistics, found, strict=True):
            for name, tensor in each.sums.items():
                if (sums[name].shape, sums[name].dtype) != (tensor.shape, tensor.dtype):
                    return None
        for each, sums in zip(run.statistics, found, strict=True):
            each.sums.update(sums)
        return done

    def _save(self, run: _Run, done: dict[str, int]) -> None:
        if self._path is None:
            return
        tensors = {
            f"{number}.{name}": tensor
            for number, each in enumerate(run.statistics)
            for name, tensor in each.sums.items()
        }
        state = json.dumps({"job": self._key, "done": done})
        with open_output(str(self._path), force=True) as file:
            file.write(save(tensors, {"state": state}))


# --- the step ---------------------------------------------------------------------------------


def task_loss(reference: object, output: object) -> tuple[float, str]:
    """Return what the task lost and in which unit: "kl" in nats for classes, else "error", the mean
    over output tensors of squared error by variance.
    """
    expected, found = output_tensors(reference), output_tensors(output)
    if is_classification(expected):
        return float(kl_divergence(expected[0].cpu(), found[0].cpu()).mean()), "kl"
    errors = [
        float((a - b).double().square().mean() / a.double().var(correction=0).clamp(min=1e-24))
        for a, b in zip(expected, found, strict=True)
    ]
    return sum(errors) / len(errors), "error"


def _tuned_unit(
    run: _Run, transform: WeightedTransform, sources: Sequence[Path]
) -> tuple[float, float, str]:
    """Bisect the step at qp 0 for what inputs, coded as key frames at the reference qp, may lose.

    At most so large that the step at the reference qp is the deviation of the largest component, by
    where nothing is left; models with random weights lose next to nothing even there.
    """
    chosen = sources[:: -(-len(sources) // TUNED)]
    features = []
    for source in chosen:
        with VideoReader(source, run.preprocessing) as reader:
            features.append(run.features(next(iter(reader)).rgb, source))
    high = max(transform.deviation, 2.0**-40) * 2.0 ** (-REFERENCE_QP / 6)
    low = high * 2.0**-UNIT_OCTAVES
    with torch.no_grad():
        references = [run.split.cloud([tensor[None] for tensor in each]) for each in features]
        for _ in range(UNIT_STEPS):
            unit = math.sqrt(low * high)
            loss, criterion = _loss_at(run, transform, unit, features, references)
            target = TARGET_KL if criterion == "kl" else TARGET_ERROR
            low, high = (unit, high) if loss < target else (low, unit)
    return unit, loss, criterion


def _loss_at(
    run: _Run,
    transform: WeightedTransform,
    unit: float,
    features: Sequence[list[Tensor]],
    references: Sequence[object],
) -> tuple[float, str]:
    profile = transform.profile(unit)
    header = replace(run.header, profile_hash=profile.hash, profile=profile.to_bytes())
    try:
        encoder = Encoder(header, device=run.device)
    except ValueError as error:
        raise ModelError(f"{run.split.name} at {run.split.split}: {error}") from error
    qp = min(REFERENCE_QP + encoder.key_offset, MAX_QP)  # which it takes off for key frames
    total = 0.0
    for tensors, reference in zip(features, references, strict=True):
        decoded = encoder.encode(tensors, key=True, qp=qp).features
        output = run.split.cloud([tensor[None] for tensor in decoded])
        loss, criterion = task_loss(reference, output)
        total += loss
    return total / len(features), criterion
