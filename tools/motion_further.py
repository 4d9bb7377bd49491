"""What Ulhaq & Bajić 2021 leave open: prediction of tensors by (12), taken apart.

    depth      every layer: NRMSE under random motion, and bits that motion saves in the codec
    magnitude  NRMSE against the length of a translation
    filters    NRMSE against sub-sample phase, with several interpolation filters
    real       clips: what better filters, places and vectors would take off the error
    coded      clips: bits that motion saves in the codec
    offsets    where the samples of a layer seem to lie, against where the graph puts them

Each is a function from `Settings` and a network to rows, as in `tools/motion_experiments.py`.
Random weights appear here alone, as a control, and say so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from codec.encoding.encoder import Encoder, EncoderConfig
from codec.encoding.motion_search import MotionSearch, luma
from codec.format.header import SequenceHeader, TensorSpec
from codec.format.packets import FramePacket
from codec.models.split_points import describe_splits
from codec.normative.motion import PHASES, latent_displacement
from codec.pipeline.metrics import FeatureNrmse
from codec.profiling.simple import simple_header
from tools.motion_experiments import (
    GRID,
    SIZE,
    Network,
    Row,
    Settings,
    frame_header,
    frames_of,
    load_network,
    pictures_of,
    predictions,
    random_affine,
)
from tools.warps import (
    CODEC_FILTER,
    FILTERS,
    Affine,
    Picture,
    displacement_of,
    interpolation,
    moved,
    positions,
    predictable,
)

__all__ = [
    "coded",
    "depth",
    "every_layer",
    "filters",
    "fitted_offset",
    "magnitude",
    "offsets",
    "real",
]

MAIN_LAYERS = {
    "resnet34": ("add", "add_3", "add_7"),
    "densenet121": ("features.transition1", "features.transition2"),
    "efficientnet_lite0": ("blocks.2", "blocks.4", "blocks.7"),
}
"""Those looked into closely."""


def every_layer(name: str) -> list[str]:
    """Return all layers of a network that are one tensor, in order."""
    if name == "efficientnet_lite0":
        return [f"blocks.{number}" for number in range(16)]
    found = [split for split, tensors in describe_splits(name) if len(tensors) == 1]
    return ["conv1", *found] if name == "resnet34" else found


# --- depth --------------------------------------------------------------------------------------

DEPTH_DRAWS = 32
CODED_PAIRS = 4
CODED_QP = 24
CODED_ELEMENTS = 1 << 18
"""The codec looks at larger tensors through fewer of their channels."""


def depth(settings: Settings, name: str) -> list[Row]:
    """Measure every layer under the random motion of Fig. 6.

    `gain_theory`: log2 of the error without motion over the error with it, bits per element.
    `bits_*`: of the second of two frames in the codec, per element, coded intra, from the first
    without motion, and with the field of the affine motion, vectors included.
    """
    network = load_network(name, settings, every_layer(name))
    pictures = [picture for _, picture in pictures_of(settings)]
    references = network(np.stack([picture.still for picture in pictures]))
    generator = np.random.default_rng(settings.seed)
    draws = min(DEPTH_DRAWS, settings.draws)
    cases = [(draw % len(pictures), random_affine(generator)) for draw in range(draws)]
    found = predictions(network, pictures, references, cases)
    coded = cases[: min(CODED_PAIRS, len(pictures))]
    moved_tensors = network(np.stack([pictures[number].frame(affine) for number, affine in coded]))
    rows = []
    layers = list(network.layers.items())
    for place, (layer, spec) in enumerate(settings.bar(layers, f"depth, {network.title}")):
        column = [case[place] for case in found]
        bits = _mean_bits(
            [(references[place][number], affine) for number, affine in coded],
            list(moved_tensors[place]),
            spec,
        )
        nrmse = math.sqrt(np.mean([one.nrmse**2 for one in column]))
        still = math.sqrt(np.mean([one.still**2 for one in column]))
        rows.append(
            {
                **network.stamp,
                "depth": place,
                "layer": layer,
                "stride": spec.stride_x,
                "draws": draws,
                "nrmse": nrmse,
                "inner": math.sqrt(np.nanmean([one.inner**2 for one in column])),
                "still": still,
                "relative": float(np.mean([one.relative for one in column])),
                "gain_theory": math.log2(still / nrmse),
                **bits,
            }
        )
    return rows


def field_of(affine: Affine, header: SequenceHeader) -> NDArray[np.int32]:
    """Return an affine motion as the codec's field: (rows, columns, 2), quarter pixels."""
    rows, columns = header.field_shape
    centre = (header.grid - 1) / 2
    y, x = np.arange(rows) * header.grid + centre, np.arange(columns) * header.grid + centre
    nodes = np.stack(np.meshgrid(y, x, indexing="ij"), -1)
    size = (header.input_height, header.input_width)
    quarters = np.rint((affine.source(nodes, size) - nodes) * 4)
    return np.asarray(quarters, np.int32)


def _coded_bits(reference: Tensor, actual: Tensor, affine: Affine, spec: TensorSpec) -> list[float]:
    """Code two frames; bits per element of the second: intra, without motion, with it."""
    step = -(-spec.elements // CODED_ELEMENTS)
    reference, actual = reference[::step], actual[::step]
    own = replace(spec, channels=len(reference))
    header = replace(simple_header([own], [[reference], [actual]], *SIZE), grid=GRID)
    found = []
    for vectors, intra in ((None, True), (None, False), (field_of(affine, header), False)):
        # from effort 2 on, a field that does not pay for itself is not sent
        encoder = Encoder(header, EncoderConfig(qp=CODED_QP, keyint=2, scene_cut=False, effort=2))
        first: FramePacket = encoder.encode([reference]).packet
        second = encoder.encode([actual], vectors, intra=intra).packet
        found.append(8 * len(second.to_bytes(first)) / own.elements)
    return found


def _mean_bits(
    before: Sequence[tuple[Tensor, Affine]], after: Sequence[Tensor], spec: TensorSpec
) -> Row:
    """Code pairs of frames: mean bits per element of the second, and what share motion saves."""
    bits = np.mean(
        [
            _coded_bits(reference, actual, affine, spec)
            for (reference, affine), actual in zip(before, after, strict=True)
        ],
        axis=0,
    )
    return {
        **dict(zip(("bits_intra", "bits_zero", "bits_motion"), map(float, bits), strict=True)),
        "saved_against_zero": float(1 - bits[2] / bits[1]),
        "saved_against_intra": float(1 - bits[2] / bits[0]),
    }


# --- magnitude ----------------------------------------------------------------------------------

MAGNITUDES = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 11.0, 16.0, 23.0, 32.0)
DIRECTIONS = 4


def magnitude(settings: Settings, name: str) -> list[Row]:
    """Measure NRMSE, and bits in the codec as `depth` does, against the length of translations in
    random directions.
    """
    network = load_network(name, settings)
    pictures = [picture for _, picture in pictures_of(settings)]
    references = network(np.stack([picture.still for picture in pictures]))
    generator = np.random.default_rng(settings.seed)
    rows: dict[str, list[Row]] = {layer: [] for layer in network.layers}
    for length in settings.bar(MAGNITUDES, f"magnitude, {network.title}"):
        angles = generator.uniform(0, 2 * math.pi, (DIRECTIONS, len(pictures)))
        cases = [
            (number, Affine(x=length * math.cos(angle), y=length * math.sin(angle)))
            for line in angles
            for number, angle in enumerate(line)
        ]
        found = predictions(network, pictures, references, cases)
        chosen = cases[: min(CODED_PAIRS, len(pictures))]
        after = network(np.stack([pictures[number].frame(affine) for number, affine in chosen]))
        for place, (layer, spec) in enumerate(network.layers.items()):
            column = [case[place] for case in found]
            bits = _mean_bits(
                [(references[place][number], affine) for number, affine in chosen],
                list(after[place]),
                spec,
            )
            rows[layer].append(
                {
                    **network.stamp,
                    "layer": layer,
                    "stride": spec.stride_x,
                    "magnitude_px": length,
                    "cases": len(cases),
                    "nrmse": float(np.mean([one.nrmse for one in column])),
                    "still": float(np.mean([one.still for one in column])),
                    "relative": float(np.mean([one.relative for one in column])),
                    **bits,
                }
            )
    return [row for layer in rows.values() for row in layer]


# --- filters ------------------------------------------------------------------------------------

WHOLE = 1
"""Samples moved besides the phase."""
PHASE_STEPS = 8


def filters(settings: Settings, name: str) -> list[Row]:
    """Measure NRMSE against sub-sample phase in x, with every filter; bits with the codec's own."""
    network = load_network(name, settings, MAIN_LAYERS[name])
    pictures = [picture for _, picture in pictures_of(settings)]
    references = network(np.stack([picture.still for picture in pictures]))
    rows = []
    strides = sorted({spec.stride_x for spec in network.layers.values()})
    plan = [(stride, step / PHASE_STEPS) for stride in strides for step in range(PHASE_STEPS + 1)]
    for stride, phase in settings.bar(plan, f"filters, {network.title}"):
        affine = Affine(x=stride * (WHOLE + phase))
        tensors = network(np.stack([picture.frame(affine) for picture in pictures]))
        for place, (layer, spec) in enumerate(network.layers.items()):
            if spec.stride_x != stride:
                continue
            displacement = displacement_of(affine, spec, SIZE)
            mask = predictable(displacement)
            mask[:, :4] = mask[:, -4:] = False  # longer filters reach farther over the edge
            chosen = range(min(CODED_PAIRS, len(pictures)))
            bits = _mean_bits(
                [(references[place][number], affine) for number in chosen],
                [tensors[place][number] for number in chosen],
                spec,
            )
            for kind in FILTERS:
                with interpolation(kind):
                    errors = [
                        _masked(actual, moved(reference, displacement), mask)
                        for reference, actual in zip(references[place], tensors[place], strict=True)
                    ]
                rows.append(
                    {
                        **network.stamp,
                        "layer": layer,
                        "stride": stride,
                        "filter": kind,
                        "phase": phase,
                        "images": len(pictures),
                        "nrmse": float(np.mean(errors)),
                        **(bits if kind == CODEC_FILTER else {}),
                    }
                )
    return sorted(
        rows, key=lambda row: (row["stride"], row["layer"], list(FILTERS).index(row["filter"]))
    )


def _masked(actual: Tensor, predicted: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    error = FeatureNrmse(1)
    error.update(0, actual.numpy()[:, mask], predicted[:, mask])
    return error.combined()


# --- real motion --------------------------------------------------------------------------------

BLOCK = 4
"""Side of the latent blocks whose vectors the oracle improves, samples."""
ORACLE_REACH, ORACLE_STEP = 48, 16
"""In 1/64 sample: three quarters of a sample around the vector, in quarters."""
LONGEST = "Lanczos-3, 6 taps"


def real(settings: Settings, name: str) -> list[Row]:
    """Predict the tensors of clips in several ways: `ratio` is the error over the codec's.

    The fitted offset is that of `offsets`, by scaling.  The oracle looks for the best vector of
    every latent block around the codec's, knowing the tensor; oracle gains weight each spatial
    frequency of the codec's prediction as suits the tensor best.
    """
    network = load_network(name, settings, MAIN_LAYERS[name])
    fitted = {
        row["layer"]: (row["offset_y"], row["offset_x"])
        for row in _fits(network, settings)
        if row["by"] == "scaling"
    }
    rows = []
    for clip in settings.clips:
        frames = frames_of(clip, settings.frames)
        tensors = network(np.stack(frames))
        coarse, fine = (_fields(frames, grid) for grid in (2 * GRID, GRID))
        for place, (layer, spec) in enumerate(network.layers.items()):
            sums: dict[str, float] = {}
            for number, (reference, actual) in enumerate(
                settings.bar(list(pairwise(tensors[place])), f"real, {clip.name}, {layer}")
            ):
                for kind, predicted in _alternatives(
                    reference, actual, coarse[number], fine[number], spec, fitted[layer]
                ).items():
                    error = float(np.square(predicted - actual.numpy(), dtype=np.float64).sum())
                    sums[kind] = sums.get(kind, 0.0) + error
            extent = float(tensors[place].max() - tensors[place].min())
            elements = spec.elements * (len(frames) - 1)
            # a still clip is predicted without error
            base = sums[BASE] or 1.0
            rows += [
                {
                    **network.stamp,
                    "clip": clip.name,
                    "layer": layer,
                    "prediction": kind,
                    "nrmse": math.sqrt(total / elements) / extent,
                    "ratio": max(math.sqrt(total / base), 1e-3),
                }
                for kind, total in sums.items()
            ]
    return rows


BASE = "the codec (32 px grid, cubic)"


def _fields(frames: Sequence[NDArray[np.uint8]], grid: int) -> list[NDArray[np.int32]]:
    search = MotionSearch(frame_header(SIZE, grid), qp=0)
    found = [search.estimate(luma(rgb)) for rgb in frames]
    return [field for field in found if field is not None]


def _alternatives(
    reference: Tensor,
    actual: Tensor,
    coarse: NDArray[np.int32],
    fine: NDArray[np.int32],
    spec: TensorSpec,
    offset: tuple[float, float],
) -> dict[str, NDArray[np.float32]]:
    displacement = latent_displacement(coarse, 2 * GRID, spec)
    dense = latent_displacement(fine, GRID, spec)
    shifted = replace(
        spec,
        offset_y2=spec.offset_y2 + round(2 * offset[0] * spec.stride_y),
        offset_x2=spec.offset_x2 + round(2 * offset[1] * spec.stride_x),
    )
    found = {
        "no motion": reference.numpy(),
        BASE: moved(reference, displacement),
        "16 px grid": moved(reference, dense),
    }
    for kind in ("bilinear", LONGEST):
        with interpolation(kind):
            found[kind] = moved(reference, displacement)
    found["fitted offset"] = moved(reference, latent_displacement(coarse, 2 * GRID, shifted))
    found["oracle vectors"] = _oracle(reference, actual, displacement)
    found["oracle gains"] = _weighted(found[BASE], actual.numpy())
    return found


def _weighted(predicted: NDArray[np.float32], actual: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale every spatial frequency of a prediction as fits best, all channels alike."""
    mean = predicted.mean((1, 2), keepdims=True)
    ours = np.fft.rfft2(predicted - mean)
    theirs = np.fft.rfft2(actual - mean)
    power = np.square(np.abs(ours)).sum(0)
    gain = (theirs * ours.conj()).real.sum(0) / np.where(power > 0, power, 1)
    found = np.fft.irfft2(ours * gain, predicted.shape[1:]) + mean
    return np.asarray(found, np.float32)


def _oracle(
    reference: Tensor, actual: Tensor, displacement: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Choose, for every block, the change to its vectors that predicts the tensor best."""
    height, width = displacement.shape[:2]
    block = (np.arange(height)[:, None] // BLOCK) * -(-width // BLOCK) + np.arange(width) // BLOCK
    truth = actual.numpy()
    best = moved(reference, displacement)
    cost = np.bincount(block.ravel(), np.square(best - truth).sum(0).ravel())
    steps = range(-ORACLE_REACH, ORACLE_REACH + 1, ORACLE_STEP)
    for y in steps:
        for x in steps:
            trial = moved(reference, displacement + np.array([y, x]))
            own = np.bincount(block.ravel(), np.square(trial - truth).sum(0).ravel())
            better = (own < cost)[block]
            best = np.where(better, trial, best)
            cost = np.minimum(cost, own)
    return best


def coded(settings: Settings, name: str) -> list[Row]:
    """Code the tensors of clips intra, without motion and with it: bits per element, from the
    second frame on, vectors included.
    """
    network = load_network(name, settings, MAIN_LAYERS[name])
    rows = []
    for clip in settings.clips:
        frames = frames_of(clip, settings.frames)
        tensors = network(np.stack(frames))
        for place, (layer, spec) in enumerate(network.layers.items()):
            step = -(-spec.elements // CODED_ELEMENTS)
            features = list(tensors[place][:, ::step])
            own = replace(spec, channels=len(features[0]))
            header = simple_header([own], [[one] for one in features[:8]], *SIZE)
            search = MotionSearch(header, qp=CODED_QP)
            fields = [search.estimate(luma(rgb)) for rgb in frames]
            bits = {
                kind: _clip_bits(header, features, used, intra=kind == "intra")
                for kind, used in settings.bar(
                    (("intra", None), ("zero", None), ("motion", fields)),
                    f"coded, {clip.name}, {layer}",
                )
            }
            rows.append(
                {
                    **network.stamp,
                    "clip": clip.name,
                    "layer": layer,
                    "frames": len(frames),
                    **{f"bits_{kind}": value for kind, value in bits.items()},
                    "saved_against_zero": 1 - bits["motion"] / bits["zero"],
                    "saved_against_intra": 1 - bits["motion"] / bits["intra"],
                }
            )
    return rows


def _clip_bits(
    header: SequenceHeader,
    features: Sequence[Tensor],
    fields: Sequence[NDArray[np.int32] | None] | None,
    *,
    intra: bool,
) -> float:
    encoder = Encoder(header, EncoderConfig(qp=CODED_QP, scene_cut=False))
    previous, size = None, 0
    for number, tensor in enumerate(features):
        field = None if fields is None else fields[number]
        packet = encoder.encode([tensor], field, intra=intra).packet
        if previous is not None:
            size += len(packet.to_bytes(previous))
        previous = packet
    return 8 * size / (header.tensors[0].elements * (len(features) - 1))


# --- offsets ------------------------------------------------------------------------------------

SCALES = (0.8, 0.9, 1.1, 1.25)
OFFSETS = np.arange(-1.0, 1.01, 0.25)
"""Samples."""
EDGE = 7
"""Fits leave out this part of the tensor at each edge."""
CONTROLLED = "efficientnet_lite0"
CONTROL_LAYERS = ("blocks.0", "blocks.2", "blocks.4", "blocks.7", "blocks.10", "blocks.14")
CONTROL_SEEDS = 4


def offsets(settings: Settings, name: str) -> list[Row]:
    """Fit the place of every layer's samples, in samples, as an offset from the graph's.

    By scaling about the centre of the frame, and by mirroring it: features of the mirrored frame
    are the mirrored features only as far as filters come in mirrored pairs, so only what all
    channels of a layer have in common is compared there, the mean over channels of magnitudes.
    The package's network is fitted with several draws of random weights, too, as a control.
    `symmetric_*`: the offset that would centre the grid of samples in the frame.
    """
    rows = _fits(load_network(name, settings, every_layer(name)), settings)
    if name != CONTROLLED:
        return rows
    controls = [
        _fits(
            load_network(
                name, replace(settings, seed=settings.seed + k), CONTROL_LAYERS, control=True
            ),
            settings,
        )
        for k in range(CONTROL_SEEDS)
    ]
    return rows + [_pooled(same) for same in zip(*controls, strict=True)]


def _pooled(rows: Sequence[Row]) -> Row:
    """Join the rows of several draws of weights; spread: the standard deviation among them."""
    found = dict(rows[0])
    found["weights_hash"] = "+".join(row["weights_hash"][:4] for row in rows)
    for axis in "yx":
        values = [row[f"offset_{axis}"] for row in rows]
        found[f"offset_{axis}"] = float(np.mean(values))
        found[f"spread_{axis}"] = float(np.std(values))
    return found


def _fits(network: Network, settings: Settings) -> list[Row]:
    pictures = [picture for _, picture in pictures_of(settings)]
    references = network(np.stack([picture.still for picture in pictures]))
    scaled = {
        scale: network(
            np.stack([picture.frame(Affine(scale_x=scale, scale_y=scale)) for picture in pictures])
        )
        for scale in settings.bar(SCALES, f"offsets, {network.title}")
    }
    mirrored = [network(_mirrored(pictures, axis)) for axis in (0, 1)]
    rows = []
    for place, (layer, spec) in enumerate(network.layers.items()):
        fits = {"scaling": [], "mirroring": []}  # type: dict[str, list[tuple[float, float]]]
        for number in range(len(pictures)):
            reference = references[place][number]
            fits["scaling"].append(
                fitted_offset(
                    reference, {scale: scaled[scale][place][number] for scale in SCALES}, spec
                )
            )
            fits["mirroring"].append(
                (
                    _mirror_offset(reference, mirrored[0][place][number], spec, 0),
                    _mirror_offset(reference, mirrored[1][place][number], spec, 1),
                )
            )
        symmetric = [
            ((side - 1) / 2 - (count - 1) / 2 * stride - offset2 / 2) / stride
            for side, count, stride, offset2 in (
                (SIZE[0], spec.height, spec.stride_y, spec.offset_y2),
                (SIZE[1], spec.width, spec.stride_x, spec.offset_x2),
            )
        ]
        for kind, values in fits.items():
            found = np.array(values)
            # the standard error of the mean over pictures
            error = found.std(0, ddof=1 if len(found) > 1 else 0) / math.sqrt(len(found))
            rows.append(
                {
                    **network.stamp,
                    "layer": layer,
                    "by": kind,
                    "stride": spec.stride_x,
                    "graph_y_px": spec.offset_y2 / 2,
                    "graph_x_px": spec.offset_x2 / 2,
                    "offset_y": found[:, 0].mean(),
                    "offset_x": found[:, 1].mean(),
                    "spread_y": error[0],
                    "spread_x": error[1],
                    "symmetric_y": symmetric[0],
                    "symmetric_x": symmetric[1],
                    "images": len(pictures),
                }
            )
    return rows


def fitted_offset(
    reference: Tensor, scaled: dict[float, Tensor], spec: TensorSpec
) -> tuple[float, float]:
    """Find the offset, (y, x) in samples, with which (12) predicts scaled frames best.

    One axis after the other: the error in one hardly depends on the offset in the other.
    """
    found = []
    for axis in (0, 1):
        errors = np.zeros(len(OFFSETS))
        for place, shift in enumerate(OFFSETS):
            offset = (shift, 0.0) if axis == 0 else (0.0, shift)
            for scale, actual in scaled.items():
                affine = Affine(scale_x=scale, scale_y=scale)
                displacement = displacement_of(affine, spec, SIZE, offset)
                # the same positions for all offsets
                mask = predictable(displacement_of(affine, spec, SIZE))
                # padding does not move with the picture
                rim = max(spec.height // EDGE, 1)
                mask[:rim] = mask[-rim:] = mask[:, :rim] = mask[:, -rim:] = False
                error = (moved(reference, displacement) - actual.numpy())[:, mask]
                errors[place] += float(np.square(error).mean())
        found.append(_vertex(errors))
    return found[0], found[1]


def _vertex(errors: NDArray[np.float64]) -> float:
    """Return the minimum of the parabola through the least error and its neighbours."""
    least = int(errors.argmin())
    if least in {0, len(errors) - 1}:
        return float(OFFSETS[least])
    left, middle, right = errors[least - 1 : least + 2]
    bend = left - 2 * middle + right
    step = float(OFFSETS[1] - OFFSETS[0])
    return float(OFFSETS[least]) + (step * (left - right) / (2 * bend) if bend > 0 else 0.0)


def _mirrored(pictures: Sequence[Picture], axis: int) -> NDArray[np.uint8]:
    return np.stack([np.flip(picture.still, axis) for picture in pictures])


def _mirror_offset(reference: Tensor, actual: Tensor, spec: TensorSpec, axis: int) -> float:
    """Find the offset along one axis with which the mirrored activity is predicted best.

    What is at p goes to size - 1 - p, so the sample at j shows what is at (size - 1 - 2 (o + δ)) /
    stride - j, where o is the graph's offset in pixels and δ the one looked for, in samples.
    """
    plane, truth = (tensor.abs().mean(0, keepdim=True) for tensor in (reference, actual))
    place = positions(spec)[..., axis]
    count, stride = plane.shape[1 + axis], (spec.stride_y, spec.stride_x)[axis]
    index = np.arange(count)
    grid = index[:, None] if axis == 0 else index[None]
    errors = np.zeros(len(OFFSETS))
    for number, shift in enumerate(OFFSETS):
        source = (SIZE[axis] - 1 - place) / stride - place.take(0) / stride - 2 * shift
        displacement = np.zeros((*place.shape, 2), np.int64)
        displacement[..., axis] = np.floor((source - grid) * PHASES + 0.5)
        inside = (source >= 1) & (source <= count - 2)
        error = (moved(plane, displacement) - truth.numpy())[:, inside]
        errors[number] = float(np.square(error).mean()) if inside.any() else math.inf
    return _vertex(errors)
