"""The experiments of Ulhaq & Bajić 2021, measured: numbers in rows, nothing drawn or judged.

    flow         Fig. 2    block matching in the frame and in channels of the tensor
    transforms   Fig. 4    one picture under four motions: channels, predicted and actual
    sweep        Fig. 5    NRMSE over the range of each motion, layer by layer
    histogram    Fig. 6    NRMSE over random affine motion
    hevc         eq. 14    prediction of luma frames and of their tensors, by the same vectors
    operations   Section 2 each operation of a network alone

Each experiment is a function from `Settings` to rows, deterministic on one machine with one thread.
Networks have trained weights: torchvision's, files of a folder, or the package of
EfficientNet-Lite0.  Random ones serve as a control elsewhere (`tools/motion_further.py`).

Source: H. Ulhaq and I. V. Bajić, "Latent space motion analysis for collaborative intelligence",
arXiv:2102.04018; also a chapter of M. Ulhaq's thesis (Simon Fraser University), whose source gives
the parameters of Fig. 4.
"""

from __future__ import annotations

import hashlib
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor, fx, nn
from torch.nn import functional
from tqdm import tqdm

from codec.encoding.motion_search import MotionSearch, luma
from codec.errors import ModelError
from codec.files.video import VideoReader
from codec.format.header import Preprocessing, SequenceHeader, TensorSpec
from codec.models.preprocessing import default_preprocessing, normalise
from codec.models.sources import DEFAULT_MODEL, load_model
from codec.models.submodels import split_model
from codec.models.weights import weights_hash
from codec.normative.motion import latent_displacement
from codec.pipeline.metrics import FeatureNrmse, nrmse_from_psnr
from codec.profiling.simple import simple_header
from tools.warps import (
    Affine,
    Picture,
    Prediction,
    displacement_of,
    moved,
    positions,
    predictable,
    prediction,
)

__all__ = [
    "LAYERS",
    "NETWORKS",
    "SWEEPS",
    "TRANSFORMS",
    "Flow",
    "Network",
    "Row",
    "Settings",
    "Transformed",
    "Transforms",
    "exhaustive_motion",
    "flow",
    "frame_header",
    "frames_of",
    "hevc",
    "histogram",
    "load_network",
    "operations",
    "paper_nrmse",
    "pictures_of",
    "random_affine",
    "sweep",
    "transforms",
]

Row = dict[str, Any]

SIZE = (224, 224)
GRID = 16
"""Pixels between the vectors that tensors are predicted with."""
SHORT_SIDE = 256
"""Pictures are brought to this, and frames cut from their middle, as is usual."""
SHIPPED_CLIP = Path(__file__).parents[1] / "bitstreams" / "clip" / "big_buck_bunny_64.mp4"
PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
BATCH = 8

NETWORKS = {
    "resnet34": "ResNet-34",
    "densenet121": "DenseNet-121",
    "efficientnet_lite0": "EfficientNet-Lite0",
}
LAYERS = {
    "resnet34": ("conv1", "add", "add_3", "add_7", "add_12"),
    "densenet121": ("features.transition1", "features.transition2", "features.transition3"),
    "efficientnet_lite0": ("blocks.2", "blocks.4", "blocks.7", "blocks.10", "blocks.14"),
}
MAIN_LAYER = {
    "resnet34": "add_3",
    "densenet121": "features.transition1",
    "efficientnet_lite0": "blocks.4",
}
"""Those of 28x28 samples, n^k = 8."""

STAND_INS = {"da7b64b854f5f5ad", "a9a8860f65be7a70"}
"""Weights known to be distilled from another network, by `weights_hash`, whatever their file."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What an experiment is made with.

    `images`: a folder of photographs; None takes frames of the clips.  `weights_dir`: a folder with
    state dicts; None asks torchvision.  `frames`: of each clip.  `pair`: the frames of the first
    clip for `flow`; None looks for motion in all of them.
    """

    images: Path | None = None
    clips: tuple[Path, ...] = (SHIPPED_CLIP,)
    weights_dir: Path | None = None
    networks: tuple[str, ...] = tuple(NETWORKS)
    pictures: int = 8
    draws: int = 1000
    frames: int = 24
    pair: tuple[int, int] | None = None
    picture: int = 0
    seed: int = 0
    step: float = 1.0
    progress: bool = True

    def bar(self, items: Iterable[Any], what: str, total: int | None = None) -> Any:  # noqa: ANN401
        """Show progress on standard error."""
        return tqdm(
            items,
            desc=what,
            total=total,
            disable=not self.progress,
            dynamic_ncols=True,
            file=sys.stderr,
            leave=False,
        )


# --- networks -----------------------------------------------------------------------------------


class Network:
    """Several layers of one network, computed together.

    Args:
        name: as `load_model` has it.
        model: with its weights.
        layers: splits with one tensor each.
        weights: what they are, in words.
        size: of the frames.
        preprocessing: of the frames; default: what `name` asks for.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        layers: Sequence[str],
        weights: str,
        size: tuple[int, int] = SIZE,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        self.name, self.weights, self.size = name, weights, size
        self.title = NETWORKS.get(name, name)
        self.hash = weights_hash(model).hex()
        self.preprocessing = preprocessing or default_preprocessing(name, native=False)
        self.layers: dict[str, TensorSpec] = {}
        self.model = model
        halves = {layer: split_model(model, layer, size, name) for layer in layers}
        crossing = {}
        for layer, split in halves.items():
            if len(split.tensors) != 1:
                raise ModelError(f"{name} at {layer}: {len(split.tensors)} tensors cross, not one")
            self.layers[layer] = split.tensors[0]
            crossing[layer] = _outputs(split.edge.module)[0].name
        # the halves are parts of one graph, so the longest edge holds the others
        longest = max((s.edge.module for s in halves.values()), key=lambda m: len(m.graph.nodes))
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        graph.graph_copy(longest.graph, copies)
        named = {old.name: new for old, new in copies.items()}
        graph.output(tuple(named[node] for node in crossing.values()))
        self._module = fx.GraphModule(longest, graph)

    def __call__(self, rgb: NDArray[np.uint8]) -> list[Tensor]:
        """Compute the layers' tensors, (N, C, H, W) each, of (N, H, W, 3) uint8 frames."""
        parts = [
            self._module(normalise(rgb[first : first + BATCH], self.preprocessing))
            for first in range(0, len(rgb), BATCH)
        ]
        return [torch.cat(tensors) for tensors in zip(*parts, strict=True)]

    @property
    def stamp(self) -> Row:
        """What every row of this network begins with."""
        return {"network": self.name, "weights": self.weights, "weights_hash": self.hash}

    @property
    def caption(self) -> str:
        """Name and weights, for people."""
        return f"{self.title}, {self.weights}"


def _outputs(module: fx.GraphModule) -> tuple[fx.Node, ...]:
    (last,) = (node for node in module.graph.nodes if node.op == "output")
    found: tuple[fx.Node, ...] = last.args[0]
    return found


def weights_of(name: str, folder: Path | None) -> tuple[str, str]:
    """Find weights: what `load_model` takes, and what they are called.

    Raises:
        click.ClickException: the folder has none, or several.
    """
    if name == DEFAULT_MODEL:
        return "default", "published weights"
    if folder is None:
        return "default", "torchvision"
    found = sorted(
        path for path in folder.glob(f"{name}*") if path.suffix in {".pth", ".pt", ".safetensors"}
    )
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise click.ClickException(
            f"{folder.resolve().name}: expected one {name}*.pth, .pt or .safetensors, found {names}"
        )
    (path,) = found
    return str(path), _described_file(path)


def _described_file(path: Path) -> str:
    """Tell what a file of weights is: torchvision's own carry the start of their SHA-256."""
    named = re.search(r"-([0-9a-f]{8})$", path.stem)
    if named and hashlib.sha256(path.read_bytes()).hexdigest().startswith(named[1]):
        return "torchvision"
    return "distilled stand-in" if "distilled" in path.name else f"local file {path.name}"


@lru_cache(maxsize=3)
def _model(name: str, weights: str) -> nn.Module:
    """Load a model once for several experiments, which do not change it."""
    return load_model(name, weights)


def load_network(
    name: str, settings: Settings, layers: Sequence[str] | None = None, *, control: bool = False
) -> Network:
    """Load a network with trained weights, or, as a control, with random ones.

    Raises:
        click.ClickException: weights cannot be had; it says what to do.
    """
    if control:
        weights, label = f"random:{settings.seed}", "random weights (control)"
    else:
        weights, label = weights_of(name, settings.weights_dir)
    try:
        model = _model(name, weights)
    except ModelError as error:
        remedy = (
            f"give --weights-dir FOLDER with {name}*.pth"
            if weights == "default"
            else "give another --weights-dir"
        )
        reason = str(error).partition(";")[0]  # what follows are options of another command
        reason = reason.replace(weights, Path(weights).name)  # it may come to stand on the page
        raise click.ClickException(f"no weights for {name}; {remedy} ({reason})") from error
    network = Network(name, model, layers or LAYERS[name], label)
    if network.hash in STAND_INS:
        network.weights = "distilled stand-in"
    return network


# --- pictures and frames ------------------------------------------------------------------------


def frames_of(clip: Path, count: int, *, crop: bool = True) -> list[NDArray[np.uint8]]:
    """Read the first frames of a clip, (H, W, 3) uint8, as the networks see them or uncropped."""
    preprocessing = default_preprocessing("resnet34", native=False)
    if not crop:
        preprocessing = Preprocessing(SHORT_SIDE, 0, 1, preprocessing.mean_thousandths,
                                      preprocessing.scale_thousandths)  # fmt: skip
    with VideoReader(clip, preprocessing, frames=(0, count)) as reader:
        return [frame.rgb for frame in reader]


def pictures_of(settings: Settings) -> list[tuple[str, Picture]]:
    """Return named pictures: photographs of the folder, or frames of the clips, spread evenly.

    Raises:
        click.ClickException: there are none.
    """
    if settings.images is None:
        found = [
            (f"{clip.name} {number}", rgb)
            for clip in settings.clips
            for number, rgb in enumerate(frames_of(clip, 64, crop=False))
        ]
        chosen = _spread(found, settings.pictures)
    else:
        paths = sorted(
            path for path in settings.images.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES
        )
        if not paths:
            raise click.ClickException(f"{settings.images}: holds no pictures")
        chosen = [(path.name, _opened(path)) for path in _spread(paths, settings.pictures)]
    return [(name, Picture(rgb, SIZE)) for name, rgb in chosen]


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    if len(items) < count:
        raise click.ClickException(f"{len(items)} pictures; --pictures asks for {count}")
    return [items[index * len(items) // count] for index in range(count)]


def _opened(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise click.ClickException(f"{path}: not a picture that can be read ({error})") from error
    scale = SHORT_SIDE / min(picture.size)
    if scale != 1:
        width, height = (max(round(side * scale), SHORT_SIDE) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(picture)


# --- predictions --------------------------------------------------------------------------------

MEASURES = ("nrmse", "inner", "still", "relative", "positions")


def predictions(
    network: Network,
    pictures: Sequence[Picture],
    references: Sequence[Tensor],
    cases: Sequence[tuple[int, Affine]],
) -> list[list[Prediction]]:
    """Predict the tensors of moved frames.

    Args:
        network: its layers.
        pictures: those that `cases` count.
        references: of all pictures at rest, what the network returns.
        cases: (picture, motion).

    Returns:
        For each case, a prediction for each layer.
    """
    found = []
    for first in range(0, len(cases), BATCH):
        batch = cases[first : first + BATCH]
        tensors = network(np.stack([pictures[number].frame(affine) for number, affine in batch]))
        found += [
            [
                prediction(before[number], after[place], affine, spec, network.size)
                for before, after, spec in zip(
                    references, tensors, network.layers.values(), strict=True
                )
            ]
            for place, (number, affine) in enumerate(batch)
        ]
    return found


def _references(network: Network, pictures: Sequence[Picture]) -> list[Tensor]:
    return network(np.stack([picture.still for picture in pictures]))


def _summary(values: NDArray[np.float64]) -> Row:
    """Sum up NRMSE over pictures or draws."""
    low, median, high = np.percentile(values, (5, 50, 95))
    return {
        "mean": values.mean(),
        "std": values.std(),
        "min": values.min(),
        "p5": low,
        "p50": median,
        "p95": high,
        "max": values.max(),
    }


def _fields(found: Sequence[Prediction]) -> dict[str, NDArray[np.float64]]:
    return {name: np.array([getattr(one, name) for one in found], np.float64) for name in MEASURES}


# --- Fig. 5: sweep ------------------------------------------------------------------------------


def _range(low: float, high: float, step: float) -> list[float]:
    count = round((high - low) / step)
    return [round(low + step * number, 6) for number in range(count + 1)]


SWEEPS: dict[str, tuple[str, float, float, float, tuple[float, ...]]] = {
    "translation": ("x", -36.0, 36.0, 1.0, (-0.25, 0.25)),
    "rotation": ("rotation", -10.0, 10.0, 1.0, (-0.25, 0.25)),
    "scale": ("scale_x", 0.8, 1.25, 0.025, (0.995, 1.005)),
    "shear": ("shear_x", -10.0, 10.0, 1.0, (-0.25, 0.25)),
}
"""Parameter of `Affine`, from, to, step, and what lies next to no motion.  The paper's ranges;
translation is wider, to see whether a shift of 32 is a minimum."""


def sweep(settings: Settings, name: str) -> list[Row]:
    """Measure NRMSE over the range of each motion: a row per layer and value."""
    network = load_network(name, settings)
    pictures = [picture for _, picture in pictures_of(settings)]
    references = _references(network, pictures)
    plan = [
        (transformation, value, Affine(**{parameter: value}))
        for transformation, (parameter, low, high, step, near) in SWEEPS.items()
        for value in sorted({*_range(low, high, step * settings.step), *near})
    ]
    rows: list[Row] = []
    for transformation, value, affine in settings.bar(plan, f"sweep, {network.title}"):
        cases = [(number, affine) for number in range(len(pictures))]
        found = predictions(network, pictures, references, cases)
        for layer, column in zip(network.layers, zip(*found, strict=True), strict=True):
            fields = _fields(column)
            rows.append(
                {
                    **network.stamp,
                    "layer": layer,
                    "stride": network.layers[layer].stride_x,
                    "transformation": transformation,
                    "value": value,
                    "images": len(pictures),
                    **_summary(fields["nrmse"]),
                    **{f"mean_{key}": np.nanmean(fields[key]) if np.isfinite(fields[key]).any()
                       else math.nan for key in MEASURES[1:]},
                }
            )  # fmt: skip
    return rows


# --- Fig. 6: histogram --------------------------------------------------------------------------


def random_affine(generator: np.random.Generator) -> Affine:
    """Draw the seven parameters of Fig. 6, uniform and independent."""
    x, y = generator.uniform(-32, 32, 2)
    scale_x, scale_y = generator.uniform(0.95, 1.05, 2)
    shear_x, shear_y = generator.uniform(-5, 5, 2)
    rotation = generator.uniform(-10, 10)
    return Affine(*map(float, (x, y, scale_x, scale_y, shear_x, shear_y, rotation)))


def histogram(settings: Settings, name: str) -> list[Row]:
    """Measure NRMSE over random affine motion: a row per draw and layer.

    The draws, and the picture of each, are the same for all networks.
    """
    network = load_network(name, settings)
    named = pictures_of(settings)
    pictures = [picture for _, picture in named]
    references = _references(network, pictures)
    generator = np.random.default_rng(settings.seed)
    cases = [(draw % len(pictures), random_affine(generator)) for draw in range(settings.draws)]
    rows = []
    starts = range(0, len(cases), BATCH)
    for first in settings.bar(starts, f"histogram, {network.title}"):
        batch = cases[first : first + BATCH]
        for place, found in enumerate(predictions(network, pictures, references, batch)):
            number, affine = batch[place]
            motion = {key: getattr(affine, key) for key in Affine.__dataclass_fields__}
            rows += [
                {
                    **network.stamp,
                    "layer": layer,
                    "draw": first + place,
                    "image": named[number][0],
                    **motion,
                    **{key: getattr(one, key) for key in MEASURES},
                }
                for layer, one in zip(network.layers, found, strict=True)
            ]
    return rows


# --- Fig. 4: transforms -------------------------------------------------------------------------

TRANSFORMS = {
    "translation by 35 px": Affine(x=35),
    "rotation by 10°": Affine(rotation=10),
    "stretching by 1.2": Affine(scale_x=1.2),
    "shearing by 10°": Affine(shear_x=10),
}
"""The motions of Fig. 4."""


@dataclass(frozen=True, slots=True)
class Transformed:
    """One row of Fig. 4: a frame, channels of its tensor, the same predicted, and the mask."""

    title: str
    frame: NDArray[np.uint8]
    actual: NDArray[np.float32]
    predicted: NDArray[np.float32]
    inside: NDArray[np.bool_]
    found: Prediction


@dataclass(frozen=True, slots=True)
class Transforms:
    """Fig. 4: the still picture first, then the four motions."""

    stamp: Row
    caption: str
    layer: str
    picture: str
    rows: list[Transformed]


def transforms(settings: Settings, name: str) -> Transforms:
    """Move one picture in four ways."""
    network = load_network(name, settings, [MAIN_LAYER[name]])
    named = pictures_of(settings)
    title, picture = named[settings.picture % len(named)]
    ((layer, spec),) = network.layers.items()
    reference = network(picture.still[None])[0][0]
    rows = []
    for label, affine in {"reference": Affine(), **TRANSFORMS}.items():
        frame = picture.frame(affine)
        actual = network(frame[None])[0][0]
        displacement = displacement_of(affine, spec, network.size)
        rows.append(
            Transformed(
                label,
                frame,
                actual.numpy(),
                moved(reference, displacement),
                predictable(displacement),
                prediction(reference, actual, affine, spec, network.size),
            )
        )
    return Transforms(network.stamp, network.caption, layer, title, rows)


# --- Fig. 2: flow -------------------------------------------------------------------------------

INPUT_BLOCK, INPUT_REACH = 31, 11
LATENT_BLOCK, LATENT_REACH = 3, 5
SHOWN_CHANNELS = 4


def exhaustive_motion(
    current: Tensor, reference: Tensor, block: int, reach: int
) -> NDArray[np.int64]:
    """Find, at every position, the displacement of least squared difference over a block.

    Blocks end at the edges of the picture, and displacements lead to positions inside it.  Of equal
    ones the shortest is taken.

    Args:
        current: (C, H, W), squared differences are summed over C.
        reference: likewise; the content at x came from x + v in it.
        block: odd side of the block.
        reach: largest displacement in each direction.

    Returns:
        (H, W, 2) int64, v as (y, x).
    """
    height, width = current.shape[-2:]
    vectors = sorted(
        ((y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)),
        key=lambda v: (v[0] ** 2 + v[1] ** 2, v),
    )
    padded = functional.pad(reference[None], (reach,) * 4, mode="replicate")[0]
    best = torch.full((height, width), math.inf, dtype=torch.float64)
    chosen = torch.zeros(height, width, 2, dtype=torch.int64)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    for y, x in vectors:
        source = padded[:, reach + y : reach + y + height, reach + x : reach + x + width]
        squares = (source - current).double().square().sum(0)
        cost = _box(squares, block)
        inside = (rows + y >= 0) & (rows + y < height) & (columns + x >= 0) & (columns + x < width)
        better = inside & (cost < best * (1 - 1e-12))
        best = torch.where(better, cost, best)
        chosen[better] = torch.tensor([y, x])
    return chosen.numpy()


def _box(values: Tensor, block: int) -> Tensor:
    """Average over the block around every position, as much of it as lies inside."""
    half = block // 2
    return functional.avg_pool2d(
        functional.avg_pool2d(
            values[None, None], (block, 1), 1, (half, 0), count_include_pad=False
        ),
        (1, block),
        1,
        (0, half),
        count_include_pad=False,
    )[0, 0]


def texture(plane: Tensor, block: int) -> NDArray[np.float64]:
    """Return how well motion can be told at every position of (H, W): the smaller eigenvalue of
    the structure tensor over the block.
    """
    y, x = torch.gradient(plane.double())
    yy, xx, xy = (_box(product, block) for product in (y * y, x * x, x * y))
    found: NDArray[np.float64] = ((yy + xx - ((yy - xx) ** 2 + 4 * xy**2).sqrt()) / 2).numpy()
    return found


@dataclass(frozen=True)
class Flow:
    """Fig. 2: two frames, the motion between them, and that in channels of their tensors.

    `field` is in pixels, `fields` in samples, one a channel; `joint` matches all channels at once.
    All as the codec counts: the content at x came from x + v.  `allowed`: where blocks of both the
    frame and the channel belong to the more textured half.
    """

    stamp: Row
    caption: str
    spec: TensorSpec
    layer: str
    clip: str
    pair: tuple[int, int]
    frames: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    tensor: NDArray[np.float32]
    field: NDArray[np.int64]
    fields: NDArray[np.int64]
    joint: NDArray[np.int64]
    frame_texture: NDArray[np.float64]
    textures: NDArray[np.float64]
    given: bool = False

    @cached_property
    def at_samples(self) -> NDArray[np.float64]:
        """The motion of the frame at the positions of the samples, (H, W, 2) pixels."""
        return np.asarray(self.field[self._places], np.float64)

    @cached_property
    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns of the pixels that the samples lie at."""
        place = np.rint(positions(self.spec)).astype(np.int64)
        y, x = (np.clip(place[..., axis], 0, self.field.shape[axis] - 1) for axis in (0, 1))
        return y, x

    def allowed(self, channel: int | None = None) -> NDArray[np.bool_]:
        """Tell where texture allows to find motion, in the frame and, if given, in a channel."""
        there = self.frame_texture[self._places]
        good = there >= np.median(there)
        if channel is not None:
            own = self.textures[channel]
            good &= (own >= np.median(own)) & (own > 0)
        return np.asarray(good)

    @cached_property
    def shown(self) -> list[int]:
        """The channels with most texture where the frame moves, relative to their variance."""
        variance = self.tensor.var((1, 2)) + 1e-12
        moving = np.hypot(*np.moveaxis(self.at_samples, -1, 0)) >= self.spec.stride_x / 2
        where = moving if moving.any() else np.ones_like(moving)
        score = np.median(self.textures[:, where], 1) / variance
        return [int(number) for number in np.argsort(-score, kind="stable")[:SHOWN_CHANNELS]]

    def agreement(self) -> list[Row]:
        """Compare the fields: a row for each shown channel, for all, and for all at once."""
        stride = np.array([self.spec.stride_y, self.spec.stride_x])
        scaled = self.at_samples / stride
        cases: list[tuple[str, list[tuple[NDArray[Any], NDArray[np.bool_]]]]] = [
            (f"channel {number}", [(self.fields[number], self.allowed(number))])
            for number in self.shown
        ]
        everywhere = self.allowed()
        channels = [
            (self.fields[number], self.allowed(number)) for number in range(len(self.fields))
        ]
        cases += [
            ("each channel", channels),
            ("all channels at once", [(self.joint, everywhere)]),
            ("whole samples, if perfect", [(np.rint(scaled), everywhere)]),
            ("no motion", [(np.zeros_like(scaled), everywhere)]),
        ]
        return [
            {
                **self.stamp,
                "layer": self.layer,
                "clip": self.clip,
                "frames": f"{self.pair[0]}-{self.pair[1]}",
                "field": label,
                **_agreement(
                    np.concatenate([(own * stride)[mask] for own, mask in pairs]),
                    np.concatenate([self.at_samples[mask] for _, mask in pairs]),
                    float(stride.mean()),
                ),
            }
            for label, pairs in cases
        ]


def _agreement(own: NDArray[np.float64], truth: NDArray[np.float64], stride: float) -> Row:
    """Compare (M, 2) vectors in pixels; angles where there is motion to have one."""
    error = np.hypot(*(own - truth).T)
    length, size = np.hypot(*own.T), np.hypot(*truth.T)
    moving = size >= stride / 2
    found = moving & (length > 0)
    product = (own * truth).sum(1)[found] / (length * size)[found]
    angle = np.degrees(np.arccos(np.clip(product, -1, 1)))
    return {
        "positions": len(error),
        "median_endpoint_px": np.median(error),
        "median_endpoint_samples": np.median(error) / stride,
        "median_endpoint_moving_px": np.median(error[moving]) if moving.any() else math.nan,
        "median_angle_deg": np.median(angle) if len(angle) else math.nan,
        "within_30_deg": (angle <= 30).mean() if len(angle) else math.nan,
        "moving": moving.mean(),
        "found_moving": found.sum() / max(moving.sum(), 1),
    }


def frame_header(size: tuple[int, int], grid: int) -> SequenceHeader:
    """Return a header for `MotionSearch` on frames of a size, with a grid of that many pixels."""
    spec = TensorSpec("frame", 1, 7, 7, 32, 32)
    return replace(simple_header([spec], [[torch.ones(1, 7, 7)]], *size), grid=grid)


def moving_pair(frames: Sequence[NDArray[np.uint8]]) -> tuple[float, tuple[int, int]]:
    """Choose two frames between which much of the picture moves by 4 to 10 pixels, and motion
    explains most of the difference.

    Returns:
        How much that is, to be compared between clips, and the frames.
    """
    height, width = frames[0].shape[:2]
    header = frame_header((height, width), 2 * GRID)
    spec = TensorSpec("luma", 1, height, width, 1, 1)
    best, chosen = -1.0, (0, len(frames) - 1)
    for distance in (1, 2, 3, 4, 6):
        for first in range(0, len(frames) - distance, 4):
            search = MotionSearch(header, qp=24)
            before, after = (luma(frames[number]) for number in (first, first + distance))
            search.estimate(before)
            field = search.estimate(after)
            assert field is not None
            length = np.hypot(field[..., 0], field[..., 1]) / 4
            moving = float(((length >= 4) & (length <= 10)).mean())
            predicted = moved(before[None], latent_displacement(field, 2 * GRID, spec))
            saved = float((before - after).square().sum())
            saved -= float(np.square(predicted[0] - after.numpy()).sum())
            score = moving * saved / after.numel()
            if score > best:
                best, chosen = score, (first, first + distance)
    return best, chosen


FLOW_FRAMES = 64


def flow(settings: Settings, name: str) -> Flow:
    """Match blocks in two frames, and in every channel of their tensors."""
    layer = MAIN_LAYER[name]
    network = load_network(name, settings, [layer])
    if settings.pair is None:
        scores = [moving_pair(frames_of(clip, FLOW_FRAMES)) for clip in settings.clips]
        best = max(range(len(scores)), key=lambda number: scores[number][0])
        clip, pair = settings.clips[best], scores[best][1]
    else:
        clip, pair = settings.clips[0], settings.pair
    frames = frames_of(clip, max(pair) + 1)
    if not 0 <= min(pair) <= max(pair) < len(frames):
        raise click.ClickException(f"{clip.name}: has {len(frames)} frames, so no pair {pair}")
    before, after = frames[pair[0]], frames[pair[1]]
    reference, current = network(np.stack([before, after]))[0]
    grey = [luma(rgb)[None] for rgb in (before, after)]
    fields = [
        exhaustive_motion(current[k : k + 1], reference[k : k + 1], LATENT_BLOCK, LATENT_REACH)
        for k in settings.bar(range(len(current)), "flow")
    ]
    return Flow(
        network.stamp,
        network.caption,
        network.layers[layer],
        layer,
        clip.name,
        pair,
        (before, after),
        current.numpy(),
        exhaustive_motion(grey[1], grey[0], INPUT_BLOCK, INPUT_REACH),
        np.stack(fields),
        exhaustive_motion(current, reference, LATENT_BLOCK, LATENT_REACH),
        texture(grey[1][0], INPUT_BLOCK),
        np.stack([texture(plane, LATENT_BLOCK) for plane in current]),
        settings.pair is not None,
    )


# --- equation (14): hevc ------------------------------------------------------------------------

LUMA_PEAK = 255.0
LUMA_RANGE = 256.0
"""What (14) divides by."""


def hevc(settings: Settings, name: str) -> list[Row]:
    """Predict every frame of the clips, and its tensors, from the frame before, by one field.

    A row per clip, frame and what is predicted: the luma by (14), in `nrmse`, and by (13), with the
    range that it has, in `nrmse_own_range`; the tensors by (13).
    """
    network = load_network(name, settings)
    spec = TensorSpec("luma", 1, *SIZE, 1, 1)
    rows = []
    for clip in settings.clips:
        frames = frames_of(clip, settings.frames)
        search = MotionSearch(frame_header(SIZE, GRID), qp=0)
        before: list[Tensor] = []
        for number, rgb in enumerate(settings.bar(frames, f"hevc, {network.title}, {clip.name}")):
            vectors = search.estimate(luma(rgb))
            tensors = [luma(rgb)[None], *(tensor[0] for tensor in network(rgb[None]))]
            if vectors is not None:
                start = {**network.stamp, "clip": clip.name, "frame": number}
                specs = {"luma": spec, **network.layers}
                for (layer, own), reference, actual in zip(
                    specs.items(), before, tensors, strict=True
                ):
                    rows.append(
                        {
                            **start,
                            "what": layer,
                            **_frame_errors(reference, actual, vectors, own),
                        }
                    )
            before = tensors
    return rows


def paper_nrmse(psnr: float) -> float:
    """Convert decibels as (14) does: PSNR is of a peak of 255, the range is taken as 256."""
    return nrmse_from_psnr(psnr) * LUMA_PEAK / LUMA_RANGE


def _frame_errors(
    reference: Tensor, actual: Tensor, vectors: NDArray[np.int32], spec: TensorSpec
) -> Row:
    displacement = latent_displacement(vectors, GRID, spec)
    predicted, truth = moved(reference, displacement), actual.numpy()
    found: Row = {}
    for key, values in (("nrmse", predicted), ("nrmse_still", reference.numpy())):
        error = FeatureNrmse(1)
        error.update(0, truth, values)
        found[key] = error.combined()
    if spec.name == "luma":
        mse = float(np.square(np.clip(np.rint(predicted), 0, LUMA_PEAK) - truth).mean())
        still = float(np.square(reference.numpy() - truth).mean())
        found["nrmse_own_range"] = found["nrmse"]
        found["psnr"] = 10 * math.log10(LUMA_PEAK**2 / mse) if mse else math.inf
        found["nrmse"] = paper_nrmse(found["psnr"])
        found["nrmse_still"] = math.sqrt(still) / LUMA_RANGE
    else:
        found["nrmse_own_range"], found["psnr"] = found["nrmse"], math.nan
    return found


# --- Section 2: operations ----------------------------------------------------------------------

Operation = Callable[[Tensor], Tensor]
OPERATION_STEP, OPERATION_REACH = 0.25, 4.0
FILTER_COUNT = 6


def first_filters(network: Network) -> Tensor:
    """Return (F, 1, k, k) trained filters of the first convolution, summed over colours."""
    for module in network.model.modules():
        if isinstance(module, nn.Conv2d):
            return module.weight.detach().sum(1, keepdim=True)[:FILTER_COUNT]
    raise ModelError(f"{network.name} has no convolution")


def operations_of(filters: Tensor) -> dict[str, tuple[int, str, Operation]]:
    """Name the operations of Section 2: downsampling, equations, function of (1, 1, H, W).

    Pictures are periodic, and so is the padding, so that nothing enters and there is no edge.
    """
    size = filters.shape[-1]

    def window(values: Tensor, before: int, after: int) -> Tensor:
        return functional.pad(values, (before, after, before, after), mode="circular")

    def convolved(values: Tensor, stride: int) -> Tensor:
        padded = window(values, size // 2, (size - 1) // 2)
        return functional.conv2d(padded, filters, stride=stride)

    def maximum(values: Tensor, stride: int) -> Tensor:
        return functional.max_pool2d(window(values, 1, 1), 3, stride)

    return {
        "nothing (interpolation alone)": (1, "(1)", lambda v: v),
        "convolution": (1, "(2)–(3)", lambda v: convolved(v, 1)),
        "ReLU": (1, "(4)–(5)", torch.relu),
        "sigmoid": (1, "(4)–(5)", torch.sigmoid),
        "local maximum, 3×3": (1, "(6)–(9)", lambda v: maximum(v, 1)),
        "local mean, 2×2": (
            1,
            "(2)–(3)",
            lambda v: functional.avg_pool2d(window(v, 0, 1), 2, 1),
        ),
        "scale change, band-limited": (2, "(10)–(11)", lambda v: low_passed(v)[..., ::2, ::2]),
        "scale change, as it is": (2, "(10)–(11)", lambda v: v[..., ::2, ::2]),
        "strided convolution": (2, "(2), (10)", lambda v: convolved(v, 2)),
        "max-pooling, 3×3 / 2": (2, "(6), (10)", lambda v: maximum(v, 2)),
        "mean-pooling, 2×2 / 2": (2, "(2), (10)", lambda v: functional.avg_pool2d(v, 2)),
    }


def low_passed(values: Tensor) -> Tensor:
    """Remove from (..., H, W) what half as many samples in each direction cannot carry."""
    spectrum = torch.fft.fft2(values.double())
    for axis in (-2, -1):
        frequency = torch.fft.fftfreq(values.shape[axis]).abs() < 0.25
        spectrum = spectrum * (frequency[:, None] if axis == -2 else frequency)
    found: Tensor = torch.fft.ifft2(spectrum).real.to(values.dtype)
    return found


def shifted(values: Tensor, pixels: float) -> Tensor:
    """Shift a periodic (..., H, W) signal to the right, exactly: by the phase of its spectrum."""
    width = values.shape[-1]
    frequency = torch.fft.rfftfreq(width, dtype=torch.float64)
    phase = torch.exp(-2j * math.pi * frequency * pixels)
    if width % 2 == 0:
        phase[-1] = math.cos(math.pi * pixels)  # the highest frequency has no direction
    found: Tensor = torch.fft.irfft(torch.fft.rfft(values.double()) * phase, n=width)
    return found


def operations(settings: Settings, name: str) -> list[Row]:
    """Apply each operation to shifted pictures, and shift its result instead: a row per operation,
    interpolation and displacement.
    """
    network = load_network(name, settings, LAYERS[name][:1])
    filters = first_filters(network).double()
    pictures = [luma(picture.still).double() for _, picture in pictures_of(settings)]
    table = operations_of(filters)
    shifts = _range(0, OPERATION_REACH, OPERATION_STEP)
    errors: dict[tuple[str, str, float], list[float]] = {}
    for plane in settings.bar(pictures, "operations"):
        centred = (plane - plane.mean()) / plane.std()
        # its mirror images make it periodic without a seam
        periodic = torch.cat([centred, centred.flip(-1)], -1)
        periodic = torch.cat([periodic, periodic.flip(-2)], -2)[None, None]
        for operation, (stride, _, function) in table.items():
            before = function(periodic)[0]
            for shift in shifts:
                actual = function(shifted(periodic, shift))[0]
                for kind, predicted in (
                    ("ideal", shifted(before, shift / stride)),
                    ("cubic", _cubically(before, shift / stride)),
                ):
                    errors.setdefault((operation, kind, shift), []).append(
                        _central_nrmse(actual, predicted)
                    )
    return [
        {
            **network.stamp,
            "operation": operation,
            "equations": table[operation][1],
            "downsampling": table[operation][0],
            "interpolation": kind,
            "displacement_px": shift,
            "images": len(values),
            "mean": float(np.mean(values)),
            "max": float(np.max(values)),
        }
        for (operation, kind, shift), values in errors.items()
    ]


def _cubically(values: Tensor, samples: float) -> Tensor:
    """Shift (C, H, W) to the right by the codec's own compensation."""
    height, width = values.shape[-2:]
    displacement = np.zeros((height, width, 2), np.int64)
    displacement[..., 1] = math.floor(-samples * 64 + 0.5)
    return torch.from_numpy(moved(values, displacement)).double()


def _central_nrmse(actual: Tensor, predicted: Tensor) -> float:
    """Compute (13) away from the edges, which the codec's compensation does not wrap around."""
    height, width = (side // 8 for side in actual.shape[-2:])
    inside = (slice(None), slice(height, -height), slice(width, -width))
    error = FeatureNrmse(1)
    error.update(0, actual[inside].float().numpy(), predicted[inside].float().numpy())
    return error.combined()
