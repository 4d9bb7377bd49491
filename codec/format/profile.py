"""The profile: calibrated statistics of the coded tensors, as a value.  FORMAT.md 5.

A profile says in which coordinates a tensor is coded (fraction bits, mean, block size, synthesis
matrices) and how large its coefficients are expected to be before anything has been decoded.
Measuring one is the affair of `profiling`.  Two serialisations: `to_bytes` is canonical,
travels in streams and is what the hash is taken of; safetensors files carry the same arrays and
their provenance.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from codec.errors import CorruptBitstreamError, UnsupportedBitstreamError
from codec.format.constants import CLASSES, HASH_BYTES, LATENT_LIMIT, MAX_CHANNELS
from codec.format.header import SequenceHeader, TensorSpec
from codec.format.primitives import ByteReader, ByteWriter
from codec.limits import DEFAULT_LIMITS, Limits

__all__ = [
    "INTER",
    "INTRA",
    "MOST_LOGARITHM",
    "STATISTICS",
    "Band",
    "ImportanceModel",
    "Profile",
    "TensorProfile",
    "bytes_apart",
    "embedded",
    "padded_elements",
    "profile_of",
    "shipped_profile",
    "travels",
]

INTRA, INTER = 0, 1
"""The two kinds of residual, each with statistics of its own."""

STATISTICS = 6
"""What importance is told from of each channel of a block: its mean, log deviation and maximum; the
same of the 3 x 3 blocks around it, the mean of the first two."""
IMPORTANCE = "importance."
"""What the names of its arrays begin with in a file."""
MOST_LOGARITHM = 30.0
"""Of importance; encoders take it for less already."""

MAX_BLOCK_SIZE = 16
MAX_FRACTION_BITS = 22
MAX_SHIFT = 40
MAX_BANDS = 256
MAX_POINT = 32
DIAGONAL, DENSE = 0, 1

FREQUENCY_GROUPS = (0, 1, 2, 3, 3)
"""Coding pass of a frequency by u + v; beyond the end: the last pass."""
LAST_GROUP = 4


@dataclass(frozen=True, eq=False)
class Band:
    """The synthesis of the frequencies that share one matrix.

    `matrix` is (C, R) int16, or (C,) int16 for a diagonal one (R = C); spectrum = matrix ·
    components >> shift. `scale` is (2, R) int8: the qp at which the step equals the scale of a
    component, for intra and inter residuals.
    """

    matrix: NDArray[np.int16]
    shift: int
    scale: NDArray[np.int8]

    @property
    def rank(self) -> int:
        """Number of components."""
        return int(self.matrix.shape[-1])


@dataclass(frozen=True, eq=False)
class TensorProfile:
    """The profile of one tensor.

    `mean`: (C,) int32, latent units.  `band_of`: (B · B,) uint8, band of frequency u · B + v.
    `ranks`: (B · B,) int64, how many components of a frequency are coded: the first ones of its
    band; the others are there so that the encoder can invert the matrix.
    `frequency_scale`: (2, B · B) int8, added to the scale of the component.
    `points`: (K, 2) int8, reconstruction points of each scale class, for magnitude 1 and for larger
    ones, in 1/64 step towards zero.
    """

    fraction_bits: int
    block_size: int
    mean: NDArray[np.int32]
    bands: tuple[Band, ...]
    band_of: NDArray[np.uint8]
    ranks: NDArray[np.int64]
    frequency_scale: NDArray[np.int8]
    points: NDArray[np.int8]

    def __post_init__(self) -> None:
        """Refuse what FORMAT.md 5 does not allow."""
        frequencies = self.block_size**2
        checks = (
            (0 <= self.fraction_bits <= MAX_FRACTION_BITS, f"fraction bits {self.fraction_bits}"),
            (1 <= self.block_size <= MAX_BLOCK_SIZE, f"block size {self.block_size}"),
            (self.band_of.shape == (frequencies,), f"bands of {self.band_of.shape} frequencies"),
            (
                self.frequency_scale.shape == (2, frequencies),
                f"frequency scale {self.frequency_scale.shape}",
            ),
            (
                len(self.bands) > int(self.band_of.max(initial=0)),
                f"{len(self.bands)} bands, one missing",
            ),
            (self.ranks.shape == (frequencies,), f"ranks of {self.ranks.shape} frequencies"),
            (self.points.shape == (CLASSES, 2), f"points of shape {self.points.shape}"),
            (_within(self.points, MAX_POINT), "point out of range"),
            (_within(self.mean, LATENT_LIMIT), "mean out of range"),
            (all(0 <= band.shift <= MAX_SHIFT for band in self.bands), "shift out of range"),
            (
                all(band.matrix.shape[0] == self.channels for band in self.bands),
                "matrix of other channels",
            ),
            (all(1 <= band.rank <= self.channels for band in self.bands), "rank over the channels"),
            (
                all(band.scale.shape == (2, band.rank) for band in self.bands),
                "scale of another rank",
            ),
        )
        for holds, what in checks:
            if not holds:
                raise ValueError(f"profile: {what}")
        columns = np.array([band.rank for band in self.bands])[self.band_of]
        if (self.ranks < 0).any() or (self.ranks > columns).any() or not self.ranks.any():
            raise ValueError("profile: ranks beyond the components of a band, or all zero")

    @property
    def channels(self) -> int:
        """C."""
        return int(self.mean.shape[0])

    @property
    def components(self) -> int:
        """Largest number of components coded of a frequency."""
        return int(self.ranks.max())

    @cached_property
    def scan(self) -> Scan:
        """Order in which coefficient positions are coded."""
        return Scan.of(self)

    def blocks(self, height: int, width: int) -> tuple[int, int]:
        """Return (rows, columns) of blocks in a tensor of that size."""
        return -(-height // self.block_size), -(-width // self.block_size)


@dataclass(frozen=True, eq=False)
class Scan:
    """Coefficient positions in coding order, in passes: FORMAT.md 7.4.

    `position`: (P,) int64, frequency · R + component.  `scale`: (2, P) int64 initial scales in qp
    units.  `bounds`: first position of each pass, and P.
    """

    position: NDArray[np.int64]
    scale: NDArray[np.int64]
    bounds: tuple[int, ...]

    @classmethod
    def of(cls, profile: TensorProfile) -> Scan:
        """Sort positions by pass (low frequencies first, within them the first quarter of
        components first).
        """
        rows = []
        for frequency, number in enumerate(profile.band_of):
            band = profile.bands[number]
            u, v = divmod(frequency, profile.block_size)
            group = FREQUENCY_GROUPS[u + v] if u + v < len(FREQUENCY_GROUPS) else LAST_GROUP
            rank = int(profile.ranks[frequency])
            first = -(-rank // 4)
            component = np.arange(rank)
            row = np.empty((rank, 4), np.int64)
            row[:, 0] = 2 * group + (component >= first)
            row[:, 1] = frequency * profile.components + component
            row[:, 2:] = (
                band.scale[:, :rank].astype(np.int64) + profile.frequency_scale[:, frequency, None]
            ).T
            rows.append(row)
        table = np.concatenate(rows)
        table = table[np.argsort(table[:, 0], kind="stable")]
        passes = 2 * (LAST_GROUP + 1)
        bounds = np.searchsorted(table[:, 0], np.arange(passes + 1))
        return cls(table[:, 1], np.ascontiguousarray(table[:, 2:].T), tuple(int(b) for b in bounds))


@dataclass(frozen=True, eq=False)
class ImportanceModel:
    """How the importance of a tensor's blocks is told from its features (`encoding.importance`):
    log importance = weights · statistics + bias.

    `weights`: (6 C,) float32.  `floor`: (C,) float32, deviations that count as none.  `bounds`:
    what log importance was seen to be, least and most; no features make it less or more.
    """

    weights: NDArray[np.float32]
    bias: float
    floor: NDArray[np.float32]
    bounds: tuple[float, float] = (-MOST_LOGARITHM, MOST_LOGARITHM)

    def __post_init__(self) -> None:
        """Refuse what gives no importance."""
        channels = self.floor.size
        for name, array, size in (
            ("weights", self.weights, STATISTICS * channels),
            ("floor", self.floor, channels),
        ):
            if array.shape != (size,) or not np.isfinite(array).all():
                raise ValueError(
                    f"importance: {name} of shape {array.shape}, expected {size} finite numbers"
                )
        if not (self.floor > 0).all():
            raise ValueError(f"importance: floor {self.floor.min():g}, expected numbers above 0")
        if not math.isfinite(self.bias):
            raise ValueError(f"importance: bias {self.bias}, expected a finite number")
        least, most = self.bounds
        if not -MOST_LOGARITHM <= least <= most <= MOST_LOGARITHM:
            raise ValueError(
                f"importance: bounds {least:g} and {most:g}, expected two numbers in order within "
                f"±{MOST_LOGARITHM:g}"
            )


@dataclass(frozen=True, eq=False)
class Profile:
    """The profiles of all tensors of a split, in the stream's order, and where they came from.

    `importance` is the encoder's, one for each tensor: no stream carries it, no hash covers it.
    """

    tensors: tuple[TensorProfile, ...]
    provenance: dict[str, Any] = field(default_factory=dict)
    importance: tuple[ImportanceModel, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse importance of other tensors."""
        if self.importance is not None:
            found = [model.floor.size for model in self.importance]
            expected = [tensor.channels for tensor in self.tensors]
            if found != expected:
                raise ValueError(
                    f"importance: for tensors of {found} channels, expected {expected}"
                )

    def to_bytes(self) -> bytes:
        """Serialise canonically."""
        out = ByteWriter()
        out.varint(len(self.tensors))
        for tensor in self.tensors:
            _write_tensor(out, tensor)
        return bytes(out.content)

    @classmethod
    def from_bytes(cls, content: bytes, limits: Limits = DEFAULT_LIMITS) -> Profile:
        """Parse the canonical serialisation; anything malformed is a `CorruptBitstreamError`."""
        source = ByteReader(content)
        try:
            count = source.varint()
            if count > limits.tensors:
                raise CorruptBitstreamError(f"{count} tensors")
            # each consumes bytes, so the loop is bounded by the content
            tensors = tuple(_read_tensor(source) for _ in range(count))
        except (EOFError, ValueError) as error:
            raise CorruptBitstreamError(f"profile: {error}") from error
        source.end("profile")
        return cls(tensors)

    def __eq__(self, other: object) -> bool:
        """Compare what is coded with, not where it came from."""
        return isinstance(other, Profile) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        """Go with `__eq__`."""
        return hash(self.hash)

    @cached_property
    def hash(self) -> bytes:
        """First eight bytes of the SHA-256 of the canonical serialisation."""
        return hashlib.sha256(self.to_bytes()).digest()[:HASH_BYTES]

    def to_file(self, file: BinaryIO) -> None:
        """Write a safetensors file: the canonical bytes; importance; the provenance as JSON
        metadata.
        """
        from safetensors.numpy import save

        content: dict[str, NDArray[Any]] = {"profile": np.frombuffer(self.to_bytes(), np.uint8)}
        for number, model in enumerate(self.importance or ()):
            content[f"importance.{number}.weights"] = model.weights
            content[f"importance.{number}.floor"] = model.floor
            content[f"importance.{number}.bias"] = np.array([model.bias])
            content[f"importance.{number}.bounds"] = np.array(model.bounds)
        metadata = {"provenance": json.dumps(self.provenance, sort_keys=True)}
        file.write(save(content, metadata))

    def save(self, path: Path) -> None:
        """Write a file by name: see `to_file`."""
        with path.open("wb") as file:
            self.to_file(file)

    @classmethod
    def load(cls, path: Path) -> Profile:
        """Read a file written by `save`.

        Raises:
            OSError: there is no such file.
            UnsupportedBitstreamError, CorruptBitstreamError: it holds no profile.
        """
        from safetensors import SafetensorError, safe_open

        with path.open("rb"):
            pass  # a file that is missing says so, rather than that it is no profile
        try:
            with safe_open(path, framework="numpy") as file:
                content = file.get_tensor("profile").tobytes()
                names = [name for name in file.keys() if name.startswith(IMPORTANCE)]  # noqa: SIM118 - no mapping
                arrays = {name: file.get_tensor(name) for name in names}
                provenance = json.loads((file.metadata() or {}).get("provenance", "{}"))
            if not isinstance(provenance, dict):
                raise CorruptBitstreamError("provenance is no JSON object")
        except (SafetensorError, OSError, ValueError) as error:
            raise UnsupportedBitstreamError(f"{path}: not a profile: {error}") from error
        tensors = cls.from_bytes(content).tensors
        try:
            return cls(tensors, provenance, _importance(arrays))
        except ValueError as error:
            raise UnsupportedBitstreamError(f"{path}: not a profile: {error}") from error


def _importance(arrays: dict[str, NDArray[Any]]) -> tuple[ImportanceModel, ...] | None:
    """Return what a file says of importance, if it does."""
    left = {name: _checked_floats(name, array) for name, array in arrays.items()}
    models: list[ImportanceModel] = []
    while left:
        prefix = f"{IMPORTANCE}{len(models)}."
        needed = [prefix + name for name in ("weights", "floor", "bias")]
        missing = [name for name in needed if name not in left]
        if missing:
            raise ValueError(f"arrays {', '.join(left)}, expected {', '.join(missing)} with them")
        weights, floor, bias = (left.pop(name) for name in needed)
        # files of earlier calibrations have none
        bounds = left.pop(f"{prefix}bounds", np.array([-MOST_LOGARITHM, MOST_LOGARITHM]))
        if bias.shape != (1,) or bounds.shape != (2,):
            raise ValueError(
                f"importance: bias and bounds of shapes {bias.shape} and {bounds.shape}, expected "
                "(1,) and (2,)"
            )
        least, most = bounds.tolist()
        floats = weights.astype(np.float32), floor.astype(np.float32)
        models.append(ImportanceModel(floats[0], float(bias[0]), floats[1], (least, most)))
    return tuple(models) or None


def _checked_floats(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return an array of floats that float32 can hold; nothing else is, NaN included."""
    if array.dtype.kind != "f" or not (np.abs(array) <= np.finfo(np.float32).max).all():
        raise ValueError(f"{name} of {array.dtype}, expected finite numbers of float32")
    return array


def _within(values: NDArray[Any], limit: int) -> bool:
    """Return whether no magnitude is over `limit`; abs would overflow at the least integer."""
    return bool(((values >= -limit) & (values <= limit)).all())


def _write_tensor(out: ByteWriter, tensor: TensorProfile) -> None:
    out.u8(tensor.fraction_bits)
    out.u8(tensor.block_size)
    out.varint(tensor.channels)
    for value in tensor.mean.tolist():
        out.signed(value)
    out.varint(len(tensor.bands))
    out.raw(tensor.band_of.tobytes())
    for value in tensor.ranks.tolist():
        out.varint(value)
    out.raw(tensor.frequency_scale.tobytes())
    out.raw(tensor.points.tobytes())
    for band in tensor.bands:
        out.u8(DIAGONAL if band.matrix.ndim == 1 else DENSE)
        out.u8(band.shift)
        if band.matrix.ndim == 2:
            out.varint(band.rank)
        out.raw(band.matrix.astype("<i2").tobytes())
        out.raw(band.scale.tobytes())


def _read_tensor(source: ByteReader) -> TensorProfile:
    fraction_bits, block_size, channels = source.u8(), source.u8(), source.varint()
    if not 1 <= channels <= min(MAX_CHANNELS, source.remaining):
        raise CorruptBitstreamError(f"{channels} channels")
    mean = np.array([source.signed() for _ in range(channels)], np.int64)
    if not _within(mean, LATENT_LIMIT):
        raise CorruptBitstreamError("mean out of range")
    count = source.varint()
    if not 1 <= count <= MAX_BANDS:
        raise CorruptBitstreamError(f"{count} bands")
    frequencies = block_size**2
    band_of = np.frombuffer(source.raw(frequencies), np.uint8)
    ranks = np.array([source.varint() for _ in range(frequencies)], np.uint64)
    if (ranks > channels).any():
        raise CorruptBitstreamError("rank over the channels")
    frequency_scale = np.frombuffer(source.raw(2 * frequencies), np.int8).reshape(2, frequencies)
    points = np.frombuffer(source.raw(2 * CLASSES), np.int8).reshape(CLASSES, 2)
    bands = []
    for _ in range(count):
        kind, shift = source.u8(), source.u8()
        if kind not in {DIAGONAL, DENSE}:
            raise CorruptBitstreamError(f"kind of band {kind}")
        rank = channels if kind == DIAGONAL else source.varint()
        shape = (channels,) if kind == DIAGONAL else (channels, rank)
        matrix = np.frombuffer(source.raw(2 * math.prod(shape)), "<i2").reshape(shape)
        scale = np.frombuffer(source.raw(2 * rank), np.int8).reshape(2, rank)
        bands.append(Band(matrix.astype(np.int16), shift, scale))
    return TensorProfile(
        fraction_bits,
        block_size,
        mean.astype(np.int32),
        tuple(bands),
        band_of,
        ranks.astype(np.int64),
        frequency_scale,
        points,
    )


def travels(header: SequenceHeader) -> str:
    """Return how a profile gets to decoders: "embedded", "shipped", or "apart" from the stream."""
    if header.profile is not None:
        return "embedded"
    return "apart" if shipped_profile(header.profile_hash.hex()) is None else "shipped"


def bytes_apart(header: SequenceHeader, profile: Profile) -> int:
    """Return how much larger a header would be that carried its profile."""
    carrying = replace(header, profile=profile.to_bytes())
    return len(carrying.to_bytes()) - len(replace(header, profile=None).to_bytes())


def embedded(profile: Profile, *, embed: bool = True) -> bytes | None:
    """Return what a header carries of a profile: nothing of one that is shipped, nor, without
    `embed`, of one that decoders will be given.
    """
    shipped = shipped_profile(profile.hash.hex()) is not None
    return profile.to_bytes() if embed and not shipped else None


def shipped_profile(name: str) -> Profile | None:
    """Return the profile shipped for `name` ("model@split", or a hash in hexadecimal), or None."""
    folder = Path(__file__).parent / "profiles"
    index = json.loads((folder / "index.json").read_text())
    file = index.get(name)
    return None if file is None else Profile.load(folder / file)


def profile_of(
    header: SequenceHeader, limits: Limits = DEFAULT_LIMITS, given: Profile | None = None
) -> Profile:
    """Return the profile that a header carries or names, checked against its hash and limits.

    Args:
        header: of the stream.
        limits: what to allocate at most.
        given: the profile that the stream was written with, for a header that only names it.

    Raises:
        UnsupportedBitstreamError: the header names one that is neither given nor shipped, or
            another than the one given.
        CorruptBitstreamError: what it carries is no profile, or does not fit its tensors.
        LimitExceededError: more elements than `limits` allows.
    """
    name = header.profile_hash.hex()
    if given is not None and given.hash != header.profile_hash:
        raise UnsupportedBitstreamError(
            f"the profile given has hash {given.hash.hex()}, the stream was written with {name}; "
            "give that one"
        )
    profile = given
    if profile is None:
        profile = (
            shipped_profile(name)
            if header.profile is None
            else Profile.from_bytes(header.profile, limits)
        )
    if profile is None:
        raise UnsupportedBitstreamError(
            f"profile {name} is not shipped with this release, and the stream does not carry it; "
            "give the profile that it was written with: --profile FILE (in the library profile=)"
        )
    if profile.hash != header.profile_hash:
        raise CorruptBitstreamError(
            f"profile of hash {profile.hash.hex()}, expected {header.profile_hash.hex()}"
        )
    found = [tensor.channels for tensor in profile.tensors]
    expected = [spec.channels for spec in header.tensors]
    if found != expected:
        raise CorruptBitstreamError(f"profile for tensors of {found} channels, expected {expected}")
    sizes = [tensor.block_size for tensor in profile.tensors]
    padded = padded_elements(header.tensors, sizes)
    limits.check("elements", padded)
    if header.references > 1:
        limits.check("kept_elements", header.references * padded)
    return profile


def padded_elements(specs: Sequence[TensorSpec], block_sizes: Sequence[int]) -> int:
    """Count elements in whole blocks, which are decoded also where a tensor ends within one."""
    return sum(
        spec.channels * -(-spec.height // size) * -(-spec.width // size) * size**2
        for spec, size in zip(specs, block_sizes, strict=True)
    )
