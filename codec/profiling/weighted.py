"""Second-order statistics of features -> profile: coordinates in which one step serves everything.

Per frequency (u, v) of the block DCT, over channels:

    G   sensitivity: what an error costs the task (Fisher information of the output's distribution,
        or Gauss-Newton matrix of its standardised values), from random probes of the cloud
    C   covariance of features, and of motion-compensated residuals

With the metric H = G, flattened as `FLATTENING` says, and U the eigenvectors of H^1/2 C H^1/2,
components are T = U^T H^1/2 times the spectrum: an equal error in any of them costs the task about
the same, and they are uncorrelated.  The profile stores the synthesis H^-1/2 U.

Sums are those of `profiling.statistics`.  Which images, which views of them and when to write a
checkpoint is the affair of `pipeline.calibration`; the simple profile without a cloud sub-model
that of `profiling.simple`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.errors import ModelError
from codec.format.constants import LATENT_LIMIT
from codec.format.header import TensorSpec
from codec.format.profile import MAX_FRACTION_BITS, MAX_SHIFT, Band, Profile, TensorProfile
from codec.format.tables import DEFAULT_POINTS
from codec.normative.transform import SPECTRUM_BITS
from codec.profiling.fixed_point import (
    MAX_MATRIX,
    STEP_LATENTS,
    STEP_UNITS,
    to_int8,
    to_latents,
)
from codec.profiling.probes import AnyCloud, Criterion, probe_gradients
from codec.profiling.statistics import TensorStatistics

__all__ = ["WeightedTransform", "channel_weights"]

FLATTENING: Final = 0.6
"""Exponent of the sensitivity, over channels and over the frequencies of a tensor.  With 1, errors
are shaped for the images of the calibration: the sensitivity of an unseen scene is known only
roughly, and errors are finite, so what looks harmless must not be given all of them.  1 lost
10 … 50 % of rate on static clips against 0.6.  Between the tensors of a split there is no such
doubt: there 0.6 lost a fifth on a detector's pyramid against 1."""
REGULARISATION: Final = 0.01
"""Added to the sensitivity of every direction, as a share of the mean one, for the same reason."""
LEAST_LEVEL: Final = 2.0**-20
"""Least sensitivity of a frequency, as a share of the mean one: some outputs ignore some."""
INTRA_SHARE: Final = 0.5
"""Weight of the features, against residuals, in what the components decorrelate."""
RANK_QP: Final = 14
"""Components below half a step at this qp in both kinds are not coded: no loss was found against
coding all, with a third fewer symbols."""
LEAST_SCALE: Final = 1e-4
"""Least standard deviation stated, in steps at qp 0."""


def channel_weights(
    specs: Sequence[TensorSpec],
    samples: Sequence[Sequence[Tensor]],
    cloud: AnyCloud,
    task: Criterion,
    *,
    probes: int = 4,
    seed: int = 0,
) -> list[NDArray[np.float64]]:
    """Measure what an error in each channel costs the task, for a profile that has to be small.

    Args:
        specs: the tensors.
        samples: a few frames: one (C, H, W) tensor per spec.
        cloud: the cloud sub-model.
        task: what errors of its output cost.
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
        gradients = probe_gradients(cloud, features, probes, generator, task)
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
            sensitivity = each.sums["sensitivity"].cpu().numpy() / views
            sensitivities.append(_shrunk(sensitivity, each.shrinkage()[0]))
        metrics = _metrics(sensitivities, [each.band_of for each in statistics])
        self._bands = [
            [
                _transform(metric, covariance, np.flatnonzero(each.band_of == number), prior)
                for number, metric in enumerate(of_tensor)
            ]
            for each, of_tensor, covariance, prior in zip(
                statistics, metrics, covariances, map(_prior_share, statistics), strict=True
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
    shrinkage = statistics.shrinkage()
    return mean, np.stack([_shrunk(intra, shrinkage[1]), _shrunk(inter, shrinkage[2])])


def _shrunk(matrices: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shrink (F, C, C) towards their diagonals; leave (F, C), which are diagonals."""
    if matrices.ndim == 2:
        return matrices
    kept = 1 - shares[:, None, None] * (1 - np.eye(matrices.shape[1]))
    return np.asarray(matrices * kept)


def _prior_share(statistics: TensorStatistics) -> float:
    """Return how far covariances are to be shrunk towards multiples of the identity."""
    if not statistics.few:
        return 0.0
    return statistics.spec.channels / (statistics.spec.channels + statistics.blocks)


def _metrics(
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
    metrics, costs = [], []
    for g, level, band_of in zip(sensitivities, levels, bands, strict=True):
        middle = math.exp(float(np.log(level).mean()))  # tensors differ as they are found to
        flat = [
            _flattened(g[f] / level[f]) * (middle * (level[f] / middle) ** FLATTENING)
            for f in range(len(g))
        ]
        shared = [
            np.mean([flat[f] for f in np.flatnonzero(band_of == number)], axis=0)
            for number in range(int(band_of.max()) + 1)
        ]
        metrics.append(shared)
        costs += [_cost(shared[number], g[f]) for f, number in enumerate(band_of)]
    scale = float(np.mean(costs))
    return [[metric * scale for metric in of_tensor] for of_tensor in metrics]


def _flattened(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Raise a sensitivity of mean 1 to the power `FLATTENING`, and bring its mean to 1 again."""
    if matrix.ndim == 1:
        values = (matrix + REGULARISATION) ** FLATTENING
        return np.asarray(values / values.mean())
    eigenvalues, vectors = np.linalg.eigh(matrix + REGULARISATION * np.eye(len(matrix)))
    powers = np.maximum(eigenvalues, REGULARISATION / 2) ** FLATTENING
    return np.asarray((vectors * (powers / powers.mean())) @ vectors.T)


def _cost(metric: NDArray[np.float64], sensitivity: NDArray[np.float64]) -> float:
    """Return tr(H^-1 G) per channel."""
    if metric.ndim == 1:
        return float((sensitivity / metric).mean())
    return float(np.trace(np.linalg.solve(metric, sensitivity))) / len(metric)


def _transform(
    metric: NDArray[np.float64],
    covariance: NDArray[np.float64],
    members: NDArray[np.intp],
    prior: float,
) -> _BandTransform:
    if metric.ndim == 1:  # components are channels
        variances = np.maximum(covariance[:, members] * metric, 0)
        if prior:
            variances += prior * (variances.mean(2, keepdims=True) - variances)
        return _BandTransform(members, metric**-0.5, float(metric.mean()), variances)
    eigenvalues, vectors = np.linalg.eigh(metric)
    half = (vectors * np.sqrt(eigenvalues)) @ vectors.T
    inverse = (vectors / np.sqrt(eigenvalues)) @ vectors.T
    whitened = half @ covariance[:, members] @ half
    traces = np.maximum(np.trace(whitened, axis1=2, axis2=3), 1e-300)[..., None, None]
    if prior:
        whitened = (1 - prior) * whitened + prior * traces / len(metric) * np.eye(len(metric))
    shares = np.array([INTRA_SHARE, 1 - INTRA_SHARE]).reshape(2, 1, 1, 1)
    mixed = (whitened / traces * shares).sum(0).mean(0)
    _, basis = np.linalg.eigh((mixed + mixed.T) / 2)
    basis = basis[:, ::-1]  # largest variance first
    variances = np.einsum("ij,kmih,hj->kmj", basis, whitened, basis, optimize=True)
    gain = float(np.trace(metric)) / len(metric)
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
    return TensorProfile(
        fraction_bits,
        statistics.block_size,
        to_latents(mean * 2.0**fraction_bits),
        tuple(quantised),
        statistics.band_of,
        ranks,
        to_int8(frequency_scale),
        np.array(DEFAULT_POINTS, np.int8),
    )
