"""Second-order statistics of features -> profile: coordinates in which one step serves everything.

Per frequency (u, v) of the block DCT, over channels:

    G   sensitivity: what an error costs the task (Fisher information of the output's distribution,
        or Gauss-Newton matrix of its standardised values), from random probes of the cloud
    C   covariance of features, and of motion-compensated residuals

With H = G, flattened as `FLATTENING` says, and U the eigenvectors of H^1/2 C H^1/2, components are
T = U^T H^1/2 times the spectrum: an equal error in any of them costs the task about the same, and
they are uncorrelated.  The profile stores the synthesis H^-1/2 U.

Which images, which views of them and when to write a checkpoint is the affair of
`pipeline.calibration`; the simple profile without a cloud sub-model that of `profiling.simple`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.errors import ModelError
from codec.format.constants import LATENT_LIMIT
from codec.format.header import TensorSpec
from codec.format.profile import MAX_FRACTION_BITS, MAX_SHIFT, Band, Profile, TensorProfile
from codec.format.tables import DEFAULT_POINTS
from codec.normative.exact import as_written
from codec.normative.transform import BASIS_BITS, SPECTRUM_BITS, dct_basis, split_blocks
from codec.profiling.simple import MAX_MATRIX, STEP_LATENTS, STEP_UNITS, block_size_for, to_int8

__all__ = [
    "BUDGET",
    "FEW",
    "TensorStatistics",
    "WeightedTransform",
    "bands_for",
    "channel_weights",
    "output_tensors",
    "probe_gradients",
]

Cloud = Callable[[Sequence[Tensor]], Any]
"""The cloud sub-model: batches of coded tensors -> a tensor, or a dict, list or tuple of them."""

BUDGET = 1_500_000
"""Largest size of a profile, bytes."""
FLATTENING = 0.6
"""Exponent of the sensitivity, over channels and over frequencies.  With 1, errors are shaped for
the images of the calibration: the sensitivity of an unseen scene is known only roughly, and errors
are finite, so what looks harmless must not be given all of them.  1 lost 10 … 50 % of rate on
static clips against 0.6."""
REGULARISATION = 0.01
"""Added to the sensitivity of every direction, as a share of the mean one, for the same reason."""
LEAST_LEVEL = 2.0**-20
"""Least sensitivity of a frequency, as a share of the mean one: some outputs ignore some."""
INTRA_SHARE = 0.5
"""Weight of the features, against residuals, in what the components decorrelate."""
RANK_QP = 14
"""Components below half a step at this qp in both kinds are not coded: no loss was found against
coding all, with a third fewer symbols."""
FEW = 10
"""Blocks per channel below which a covariance is not taken for what it says: with fewer blocks than
channels there are directions that it has never seen."""
LEAST_DENSE_BANDS = 4
"""Tensors whose budget holds fewer matrices than this get a diagonal profile."""
LEAST_SCALE = 1e-4
"""Least standard deviation stated, in steps at qp 0."""
SUMS = ("sensitivity", "intra", "inter", "mean", "direct", "counts")


def bands_for(block_size: int, channels: int, budget: int) -> tuple[NDArray[np.uint8], bool]:
    """Choose which frequencies share a matrix so that a tensor's profile fits in `budget` bytes.

    One matrix each where that fits.  Else (u, v) and (v, u) share theirs, from the highest u + v
    down; and if that is not enough, neighbours in the order of u + v are merged, where few
    frequencies and high ones come together first.

    Returns:
        (B · B,) uint8, the band of each frequency u · B + v; and whether bands are dense. They are
        diagonal, one for each frequency, where fewer than `LEAST_DENSE_BANDS` matrices fit.
    """
    frequencies = block_size**2
    rest = 4 * channels + 6 * frequencies + 256  # means, ranks, frequency scales, points
    most = (budget - rest) // (2 * channels * channels + 2 * channels + 4)
    if most < min(LEAST_DENSE_BANDS, frequencies):
        return np.arange(frequencies, dtype=np.uint8), False
    groups = [[(u, v)] for u in range(block_size) for v in range(block_size)]
    order = sorted(range(frequencies), key=lambda f: (-sum(groups[f][0]), groups[f][0]))
    for number in order:
        if sum(bool(group) for group in groups) <= most:
            break
        for u, v in list(groups[number]):
            if u < v:
                groups[number] += groups[v * block_size + u]
                groups[v * block_size + u] = []
    groups = sorted((g for g in groups if g), key=lambda g: (sum(g[0]), abs(g[0][0] - g[0][1])))
    while len(groups) > most:

        def loss(number: int) -> float:
            merged = groups[number] + groups[number + 1]
            return sum((1 + u + v) ** -2 for u, v in merged)

        chosen = min(range(len(groups) - 1), key=loss)
        groups[chosen : chosen + 2] = [groups[chosen] + groups[chosen + 1]]
    band_of = np.zeros(frequencies, np.uint8)
    groups.sort(key=lambda g: min(u * block_size + v for u, v in g))
    for number, group in enumerate(groups):
        for u, v in group:
            band_of[u * block_size + v] = number
    return band_of, True


# --- probes of the cloud ----------------------------------------------------------------------


def output_tensors(output: object) -> list[Tensor]:
    """Return the float tensors in a model's output: a tensor, or dicts, lists and tuples of them.

    Raises:
        ModelError: there is none.
    """
    found: list[Tensor] = []
    waiting = [output]
    while waiting:
        value = waiting.pop(0)
        if isinstance(value, Tensor):
            if value.is_floating_point():
                found.append(value)
        elif isinstance(value, dict):
            waiting[:0] = value.values()
        elif isinstance(value, list | tuple):
            waiting[:0] = value
    if not found:
        raise ModelError(f"the model's output, {type(output).__name__}, holds no float tensor")
    return found


def is_classification(outputs: Sequence[Tensor]) -> bool:
    """Tell whether the outputs are taken for the logits of one class in many: one (N, classes)."""
    return len(outputs) == 1 and outputs[0].ndim == 2 and outputs[0].shape[1] > 1


@as_written()
def probe_gradients(
    cloud: Cloud, features: Sequence[Tensor], count: int, generator: torch.Generator
) -> list[Tensor]:
    """Return `count` random gradients whose mean outer product is the sensitivity.

    Classes: w = sqrt(p) eps - p <sqrt(p), eps> with random signs eps has the softmax's Fisher
    information diag(p) - p p^T as its covariance, so grad <w, logits> has that of the features.
    Anything else: random signs on outputs divided by their standard deviations and the root of
    their number, so that every output tensor counts alike.

    Args:
        cloud: the cloud sub-model.
        features: (C, H, W) for each tensor of the split.
        count: how many.
        generator: of the signs, on the CPU.

    Returns:
        (count, C, H, W) for each tensor.
    """
    inputs = [tensor.detach()[None].requires_grad_() for tensor in features]
    draws: list[list[Tensor]] = []
    with torch.enable_grad():
        outputs = output_tensors(cloud(inputs))
        if not any(output.requires_grad for output in outputs):
            raise ModelError("the model's output does not depend on the features")
        for _ in range(count):  # one forward pass serves them all
            total = torch.zeros((), dtype=torch.float32, device=outputs[0].device)
            for output in outputs:
                total = total + (output * _probe(outputs, output.detach(), generator)).sum()
            gradients = torch.autograd.grad(total, inputs, retain_graph=True, allow_unused=True)
            draws.append(
                [
                    torch.zeros_like(tensor) if gradient is None else gradient
                    for tensor, gradient in zip(inputs, gradients, strict=True)
                ]
            )
    return [torch.cat(of_tensor) for of_tensor in zip(*draws, strict=True)]


def _probe(outputs: Sequence[Tensor], output: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the weights of one output: see `probe_gradients`."""
    signs = torch.randint(0, 2, output.shape, generator=generator, device="cpu") * 2 - 1
    signs = signs.to(output)
    if is_classification(outputs):
        p = torch.softmax(output, 1)
        weights = p.sqrt() * signs
        return weights - p * weights.sum(1, keepdim=True)
    spread = output.double().std(correction=0).clamp(min=1e-12)
    return signs / (spread * math.sqrt(output.numel())).to(output)


# --- sums -------------------------------------------------------------------------------------


class TensorStatistics:
    """Sums over images for one tensor, float64; all of it in `sums`, for checkpoints.

    `sums` holds sensitivity, intra and inter: (F, C, C), or (F, C) where the profile will be
    diagonal; mean and direct: (C,), sums over blocks of the features' mean and of the constant
    frequency; counts: (4,), views, blocks of features, blocks of residuals, largest magnitude.
    """

    def __init__(self, spec: TensorSpec, budget: int, device: torch.device | str = "cpu") -> None:
        self.spec = spec
        self.block_size = block_size_for(spec)
        self.band_of, self.dense = bands_for(self.block_size, spec.channels, budget)
        channels = (spec.channels, spec.channels) if self.dense else (spec.channels,)
        square = (self.block_size**2, *channels)
        shapes = (square, square, square, (spec.channels,), (spec.channels,), (4,))
        self.sums = {
            name: torch.zeros(shape, dtype=torch.float64, device=device)
            for name, shape in zip(SUMS, shapes, strict=True)
        }
        basis = dct_basis(self.block_size) * 0.5**BASIS_BITS
        self._basis = torch.from_numpy(np.kron(basis, basis)).to(device, torch.float32)

    @property
    def blocks(self) -> int:
        """How many blocks were counted, of features or of residuals, whichever are fewer."""
        return int(self.sums["counts"][1:3].min())

    @property
    def few(self) -> bool:
        """Whether these are too few for the covariances to be relied on."""
        return self.blocks < FEW * self.spec.channels

    @as_written()
    def spectrum(self, tensors: Tensor) -> Tensor:
        """Transform (N, C, H, W) features to (F, C, blocks)."""
        blocks = torch.cat([split_blocks(tensor, self.block_size) for tensor in tensors])
        count, channels = blocks.shape[:2]
        flat = blocks.reshape(count * channels, -1)
        return (self._basis @ flat.t()).reshape(-1, count, channels).transpose(1, 2)

    def outer(self, spectrum: Tensor) -> Tensor:
        """Sum the outer products of (F, C, N) vectors over channels, or only their squares."""
        spectrum = spectrum.double()
        return spectrum @ spectrum.transpose(1, 2) if self.dense else spectrum.square().sum(2)

    def add_features(self, tensor: Tensor) -> None:
        """Count (C, H, W) features."""
        spectrum = self.spectrum(tensor[None])
        blocks = spectrum.shape[2]
        self.sums["intra"] += self.outer(spectrum)
        self.sums["mean"] += tensor.double().mean((1, 2)) * blocks
        self.sums["direct"] += spectrum[0].double().sum(1)
        counts = self.sums["counts"]
        counts[1] += blocks
        counts[3] = torch.maximum(counts[3], tensor.abs().max().double())

    def add_residual(self, tensor: Tensor) -> None:
        """Count a (C, H, W) motion-compensated residual."""
        spectrum = self.spectrum(tensor[None])
        self.sums["inter"] += self.outer(spectrum)
        self.sums["counts"][2] += spectrum.shape[2]

    @staticmethod
    def add_gradients(statistics: Sequence[TensorStatistics], gradients: Sequence[Tensor]) -> None:
        """Count the (N, C, H, W) gradients of one view, for all tensors at once.

        Each view counts alike: divided by the trace over everything, so that images of which the
        model is unsure do not decide alone.
        """
        found = [
            each.outer(each.spectrum(gradient))
            for each, gradient in zip(statistics, gradients, strict=True)
        ]
        total = sum(float(_traces(matrices).sum()) for matrices in found)
        for each, matrices in zip(statistics, found, strict=True):
            if total > 0 and math.isfinite(total):
                each.sums["sensitivity"] += matrices / total
            each.sums["counts"][0] += 1


def _traces(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(1) if matrices.ndim == 3 else matrices.sum(1)


def channel_weights(
    specs: Sequence[TensorSpec],
    samples: Sequence[Sequence[Tensor]],
    cloud: Cloud,
    *,
    probes: int = 4,
    seed: int = 0,
) -> list[NDArray[np.float64]]:
    """Measure what an error in each channel costs the task, for a profile that has to be small.

    Args:
        specs: the tensors.
        samples: a few frames: one (C, H, W) tensor per spec.
        cloud: the cloud sub-model.
        probes: random gradients per frame.
        seed: of their signs.

    Returns:
        Per tensor (C,) flattened sensitivities, scaled so that a step costs what it would with all
        weights at 1.

    Raises:
        ModelError: the output holds no float tensor, or does not depend on the features.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    device = samples[0][0].device
    statistics = [TensorStatistics(spec, 0, device) for spec in specs]  # 0 bytes: diagonal
    for features in samples:
        gradients = probe_gradients(cloud, features, probes, generator)
        TensorStatistics.add_gradients(statistics, gradients)
    weights = []
    for each in statistics:
        sensitivity = each.sums["sensitivity"].sum(0).cpu().numpy()
        if not sensitivity.any():
            raise ModelError(f"the model's output does not depend on {each.spec.name!r}")
        sensitivity /= sensitivity.mean()
        flat = _flattened(sensitivity)
        weights.append(flat * _cost(flat, sensitivity))
    return weights


# --- statistics -> profile --------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _BandTransform:
    """One band: synthesis (C, C) or (C,), squared gain of its analysis, and (2, members, C)
    variances of the components.
    """

    members: NDArray[np.intp]
    synthesis: NDArray[np.float64]
    gain: float
    variances: NDArray[np.float64]


class WeightedTransform:
    """The transform that statistics ask for; `profile` quantises it for a unit.

    Raises:
        ModelError: the output does not depend on the features.
    """

    def __init__(self, statistics: Sequence[TensorStatistics]) -> None:
        self._statistics = statistics
        self._means = []
        sensitivities, covariances = [], []
        for each in statistics:
            mean, covariance = _moments(each)
            self._means.append(mean)
            covariances.append(covariance)
            views = max(float(each.sums["counts"][0]), 1.0)
            sensitivities.append(each.sums["sensitivity"].cpu().numpy() / views)
        weights = _weights(sensitivities, [each.band_of for each in statistics])
        self._bands = [
            [
                _transform(weight, covariance, np.flatnonzero(each.band_of == number), prior)
                for number, weight in enumerate(of_tensor)
            ]
            for each, of_tensor, covariance, prior in zip(
                statistics, weights, covariances, map(_prior_share, statistics), strict=True
            )
        ]

    @property
    def deviation(self) -> float:
        """Largest standard deviation of a component."""
        largest = max(float(band.variances.max()) for bands in self._bands for band in bands)
        return math.sqrt(largest)

    def profile(self, unit: float, provenance: dict[str, object] | None = None) -> Profile:
        """Return the profile whose step at qp 0 is `unit`."""
        tensors = (
            _quantised(each, mean, bands, unit)
            for each, mean, bands in zip(self._statistics, self._means, self._bands, strict=True)
        )
        return Profile(tuple(tensors), dict(provenance or {}))


def _moments(statistics: TensorStatistics) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (C,) means and the (2, F, C, C) or (2, F, C) covariances around them."""
    sums = {name: tensor.cpu().numpy() for name, tensor in statistics.sums.items()}
    _, blocks, residuals, _ = sums["counts"]
    mean = sums["mean"] / blocks
    intra, inter = sums["intra"] / blocks, sums["inter"] / max(residuals, 1.0)
    # of the frequencies, the constant one alone has a mean: block size times that of the channel
    shift, direct = mean * statistics.block_size, sums["direct"] / blocks
    if statistics.dense:
        intra[0] += np.outer(shift, shift) - np.outer(direct, shift) - np.outer(shift, direct)
    else:
        intra[0] += shift * shift - 2 * direct * shift
    return mean, np.stack([intra, inter])


def _prior_share(statistics: TensorStatistics) -> float:
    """Return how far covariances are to be shrunk towards multiples of the identity."""
    if not statistics.few:
        return 0.0
    return statistics.spec.channels / (statistics.spec.channels + statistics.blocks)


def _weights(
    sensitivities: Sequence[NDArray[np.float64]], bands: Sequence[NDArray[np.uint8]]
) -> list[list[NDArray[np.float64]]]:
    """Return H of every band of every tensor: flattened sensitivities, all on one scale.

    The scale: a step of s costs as much in these coordinates as it would in those of the
    sensitivity itself.
    """
    levels = [
        (np.trace(g, axis1=1, axis2=2) if g.ndim == 3 else g.sum(1)) / g.shape[1]
        for g in sensitivities
    ]
    mean = float(np.concatenate(levels).mean())
    if not mean > 0:
        raise ModelError("the model's output does not depend on the features")
    levels = [np.maximum(level, LEAST_LEVEL * mean) for level in levels]
    middle = math.exp(float(np.log(np.concatenate(levels)).mean()))
    weights, costs = [], []
    for g, level, band_of in zip(sensitivities, levels, bands, strict=True):
        flat = [
            _flattened(g[f] / level[f]) * (middle * (level[f] / middle) ** FLATTENING)
            for f in range(len(g))
        ]
        shared = [
            np.mean([flat[f] for f in np.flatnonzero(band_of == number)], axis=0)
            for number in range(int(band_of.max()) + 1)
        ]
        weights.append(shared)
        costs += [_cost(shared[number], g[f]) for f, number in enumerate(band_of)]
    scale = float(np.mean(costs))
    return [[weight * scale for weight in of_tensor] for of_tensor in weights]


def _flattened(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Raise a sensitivity of mean 1 to the power `FLATTENING`, and bring its mean to 1 again."""
    if matrix.ndim == 1:
        values = (matrix + REGULARISATION) ** FLATTENING
        return np.asarray(values / values.mean())
    eigenvalues, vectors = np.linalg.eigh(matrix + REGULARISATION * np.eye(len(matrix)))
    powers = np.maximum(eigenvalues, REGULARISATION / 2) ** FLATTENING
    return np.asarray((vectors * (powers / powers.mean())) @ vectors.T)


def _cost(weight: NDArray[np.float64], sensitivity: NDArray[np.float64]) -> float:
    """Return tr(H^-1 G) per channel."""
    if weight.ndim == 1:
        return float((sensitivity / weight).mean())
    return float(np.trace(np.linalg.solve(weight, sensitivity))) / len(weight)


def _transform(
    weight: NDArray[np.float64],
    covariance: NDArray[np.float64],
    members: NDArray[np.intp],
    prior: float,
) -> _BandTransform:
    if weight.ndim == 1:  # components are channels
        variances = np.maximum(covariance[:, members] * weight, 0)
        if prior:
            variances += prior * (variances.mean(2, keepdims=True) - variances)
        return _BandTransform(members, weight**-0.5, float(weight.mean()), variances)
    eigenvalues, vectors = np.linalg.eigh(weight)
    half = (vectors * np.sqrt(eigenvalues)) @ vectors.T
    inverse = (vectors / np.sqrt(eigenvalues)) @ vectors.T
    whitened = half @ covariance[:, members] @ half
    traces = np.maximum(np.trace(whitened, axis1=2, axis2=3), 1e-300)[..., None, None]
    if prior:
        whitened = (1 - prior) * whitened + prior * traces / len(weight) * np.eye(len(weight))
    shares = np.array([INTRA_SHARE, 1 - INTRA_SHARE]).reshape(2, 1, 1, 1)
    mixed = (whitened / traces * shares).sum(0).mean(0)
    _, basis = np.linalg.eigh((mixed + mixed.T) / 2)
    basis = basis[:, ::-1]  # largest variance first
    variances = np.einsum("ij,kmih,hj->kmj", basis, whitened, basis, optimize=True)
    gain = float(np.trace(weight)) / len(weight)
    return _BandTransform(members, inverse @ basis, gain, np.maximum(variances, 0))


def _quantised(
    statistics: TensorStatistics,
    mean: NDArray[np.float64],
    bands: Sequence[_BandTransform],
    unit: float,
) -> TensorProfile:
    """Return the profile of one tensor, integers throughout."""
    frequencies, channels = statistics.block_size**2, statistics.spec.channels
    gain = math.sqrt(float(np.mean([band.gain for band in bands])))
    largest = max(float(statistics.sums["counts"][3]), 2.0**-20)
    steepest = max(float(np.abs(band.synthesis).max()) for band in bands) * unit / STEP_UNITS
    fraction_bits = min(
        math.ceil(math.log2(STEP_LATENTS * gain / unit)),
        math.floor(math.log2(LATENT_LIMIT / 2 / largest)),  # room for twice what was seen
        math.floor(math.log2(MAX_MATRIX / steepest)) - SPECTRUM_BITS,
        MAX_FRACTION_BITS,
    )
    fraction_bits = max(fraction_bits, 0)
    ranks = np.empty(frequencies, np.int64)
    frequency_scale = np.zeros((2, frequencies))
    least = unit * 2.0 ** (RANK_QP / 6) / 2
    quantised = []
    for band in bands:
        # spectrum = matrix · coefficient >> shift, where a level of one at qp 0 is 64
        matrix = band.synthesis * (unit * 2.0 ** (fraction_bits + SPECTRUM_BITS) / STEP_UNITS)
        peak = max(float(np.abs(matrix).max()), 2.0**-25)
        shift = min(max(math.floor(math.log2(MAX_MATRIX / peak)), 0), MAX_SHIFT)
        integers = np.clip(np.round(matrix * 2.0**shift), -MAX_MATRIX, MAX_MATRIX)
        deviations = np.sqrt(band.variances)
        scale = 6 * np.log2(np.maximum(deviations / unit, LEAST_SCALE))
        shared = scale.mean(1)
        frequency_scale[:, band.members] = (scale - shared[:, None]).mean(2)
        quantised.append(Band(integers.astype(np.int16), shift, to_int8(shared)))
        coded = deviations.max(0) > least
        # the components of a dense band come in the order of their variance; channels in none
        last = channels - coded[:, ::-1].argmax(1) if matrix.ndim == 1 else coded.sum(1)
        ranks[band.members] = np.where(coded.any(1), last, 1)
    if statistics.few:  # what was not seen may still come
        ranks[:] = channels
    limit = LATENT_LIMIT
    return TensorProfile(
        fraction_bits,
        statistics.block_size,
        np.clip(np.round(mean * 2.0**fraction_bits), -limit, limit).astype(np.int32),
        tuple(quantised),
        statistics.band_of,
        ranks,
        to_int8(frequency_scale),
        np.array(DEFAULT_POINTS, np.int8),
    )
