"""Small random streams for the tests: hypothesis strategies, and builders that take a seed.

Strategies draw what is parsed (headers, packets, profiles) value by value, so that a failure
shrinks.  What is coded (features, symbols) comes from a seed: tensors are too large to be drawn.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from codec.encoding.config import EncoderConfig
from codec.encoding.encoder import EncodedFrame, Encoder
from codec.format.constants import HASH_BYTES, MAX_LEVEL, MAX_OFFSET, MAX_QP, MAX_VECTOR
from codec.format.header import Interpolation, Preprocessing, Resize, SequenceHeader, TensorSpec
from codec.format.packets import EndPacket, FramePacket
from codec.format.profile import MAX_POINT, Band, Profile, TensorProfile
from codec.format.tables import DEFAULT_POINTS
from codec.normative.symbols import MODE_INTRA, MODE_SKIP, FrameSymbols, TensorSymbols

SEEDS = st.integers(0, 2**32 - 1)

# --- what is parsed -------------------------------------------------------------------------------

names = st.text(st.characters(codec="utf-8"), max_size=20).filter(str.isprintable)
tensor_names = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,20}", fullmatch=True).filter(
    lambda name: name != "pts"
)
hashes = st.binary(min_size=HASH_BYTES, max_size=HASH_BYTES)


@st.composite
def tensor_specs(draw, name=None):
    stride = st.sampled_from((1, 2, 3, 4, 8, 16, 32))
    offset = st.one_of(st.integers(-40, 40), st.sampled_from((-(1 << 16), 1 << 16)))
    return TensorSpec(
        draw(tensor_names) if name is None else name,
        draw(st.integers(1, 5)),
        draw(st.integers(1, 9)),
        draw(st.integers(1, 9)),
        draw(stride),
        draw(stride),
        draw(offset),
        draw(offset),
    )


@st.composite
def preprocessings(draw):
    side = st.integers(0, 1 << 16)
    thousandths = st.tuples(*[st.integers(0, 255_000)] * 3)
    scale = st.tuples(*[st.integers(1, 1 << 32)] * 3)
    resize = draw(st.sampled_from(Resize))
    extent = st.integers(1, 1 << 16)
    return Preprocessing(
        draw(side),
        draw(side),
        draw(side),
        draw(thousandths),
        draw(scale),
        resize,
        (0, 0) if resize is Resize.SHORT_SIDE else (draw(extent), draw(extent)),
        draw(st.tuples(*[st.integers(0, 255)] * 3)) if resize is Resize.LETTERBOX else (0, 0, 0),
        draw(st.sampled_from(Interpolation)),
        draw(st.booleans()),
    )


@st.composite
def headers(draw):
    """Headers that parse; profile and hash do not belong together."""
    count = draw(st.integers(1, 3))
    return SequenceHeader(
        tensors=tuple(draw(tensor_specs(name=f"tensor.{n}")) for n in range(count)),
        input_height=draw(st.integers(1, 2048)),
        input_width=draw(st.integers(1, 2048)),
        profile_hash=draw(hashes),
        profile=draw(st.none() | st.binary(max_size=40)),
        grid=draw(st.integers(4, 1024)),
        time_base=Fraction(draw(st.integers(1, 1 << 31)), draw(st.integers(1, 1 << 31))),
        frame_duration=draw(st.integers(0, 1 << 40)),
        model=draw(names),
        split=draw(names),
        weights=draw(names),
        weights_hash=draw(hashes),
        preprocessing=draw(st.none() | preprocessings()),
        task=draw(st.sampled_from(("", "{}", '{"task": "detection"}'))),
    )


@st.composite
def packet_sequences(draw, frame_duration=1):
    """Consistent packets: the first is a key frame, durations follow from pts."""
    packets: list[FramePacket] = []
    for _ in range(draw(st.integers(1, 4))):
        key = not packets or draw(st.booleans())
        if packets and draw(st.booleans()):
            pts = packets[-1].pts + packets[-1].duration
        else:
            pts = draw(st.integers(-(1 << 40), 1 << 40))
        before = packets[-1] if packets else None
        if before is not None and draw(st.booleans()):
            repeated = replace(before, key=False, pts=before.pts + before.duration, payload=b"")
            repeated = replace(repeated, has_vectors=False, has_offsets=False, repeat=True)
            packets.append(repeated.sealed(before, []))
            continue
        same_qp = bool(packets) and draw(st.booleans())
        packets.append(
            FramePacket(
                key=key,
                pts=pts,
                qp=packets[-1].qp if same_qp else draw(st.integers(0, MAX_QP)),
                has_vectors=not key and draw(st.booleans()),
                has_offsets=draw(st.booleans()),
                payload=draw(st.binary(max_size=200)),
                duration=frame_duration if key else pts - packets[-1].pts,
            ).sealed(before, [memoryview(draw(st.binary(max_size=8)))])
        )
    return packets


@st.composite
def end_packets(draw):
    steps = draw(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 1 << 30)), max_size=6))
    frame, offset, entries = -1, 0, []
    for step, advance in steps:
        frame, offset = frame + step, offset + advance
        entries.append((frame, offset))
    running = draw(st.integers(0, (1 << 32) - 1))
    return EndPacket(frame + 1 + draw(st.integers(0, 99)), tuple(entries), running)


@st.composite
def tensor_profiles(draw, max_block_size=4):
    """Anything FORMAT.md 5 allows, extremes included."""
    channels = draw(st.integers(1, 4))
    block_size = draw(st.integers(1, max_block_size))
    frequencies = block_size**2
    bands = []
    for _ in range(draw(st.integers(1, 5))):
        dense = draw(st.booleans())
        rank = draw(st.integers(1, channels)) if dense else channels
        shape = (channels, rank) if dense else (channels,)
        matrix = draw(hnp.arrays(np.int16, shape))
        scale = draw(hnp.arrays(np.int8, (2, rank)))
        bands.append(Band(matrix, draw(st.integers(0, 40)), scale))
    of = draw(hnp.arrays(np.uint8, frequencies, elements=st.integers(0, len(bands) - 1)))
    ranks = np.array([draw(st.integers(0, bands[number].rank)) for number in of])
    if not ranks.any():
        ranks[draw(st.integers(0, frequencies - 1))] = 1
    points = hnp.arrays(
        np.int8, (len(DEFAULT_POINTS), 2), elements=st.integers(-MAX_POINT, MAX_POINT)
    )
    return TensorProfile(
        draw(st.integers(0, 22)),
        block_size,
        draw(hnp.arrays(np.int32, channels, elements=st.integers(1 - (1 << 23), (1 << 23) - 1))),
        tuple(bands),
        of,
        ranks,
        draw(hnp.arrays(np.int8, (2, frequencies))),
        draw(points),
    )


def profiles(max_block_size=4):
    tensors = tensor_profiles(max_block_size=max_block_size)
    return st.builds(Profile, st.lists(tensors, min_size=1, max_size=2).map(tuple))


# --- what is coded --------------------------------------------------------------------------------


def plausible_profile(
    rng: np.random.Generator,
    channels: int,
    block_size: int,
    *,
    bands: int = 1,
    dense: bool = False,
    full: bool = False,
    cut: bool = False,
) -> TensorProfile:
    """A profile for features of standard deviation around 1: steps equal it at about qp 24.

    `full`: dense matrices are square.  `cut`: of each frequency only some components are coded,
    perhaps none, and any points are used.
    """
    made = []
    for _ in range(bands):
        if dense:
            rank = channels if full else int(rng.integers(1, channels + 1))
            turn, _ = np.linalg.qr(rng.normal(size=(channels, channels)))
            matrix = np.round(turn[:, :rank] * (1 << 13)).astype(np.int16)
        else:
            rank = channels
            matrix = rng.integers(1 << 12, 1 << 14, channels).astype(np.int16)
        scale = rng.integers(8, 30, (2, rank)).astype(np.int8)
        made.append(Band(matrix, 13, scale))
    frequencies = block_size**2
    mean = rng.integers(-100, 100, channels).astype(np.int32)
    band_of = rng.integers(0, bands, frequencies).astype(np.uint8)
    ranks = np.array([band.rank for band in made])[band_of]
    points = np.array(DEFAULT_POINTS, np.int8)
    if cut:
        ranks = rng.integers(0, ranks + 1)
        ranks[0] = max(ranks[0], 1)
        points = rng.integers(-MAX_POINT, MAX_POINT + 1, points.shape).astype(np.int8)
    return TensorProfile(
        6,
        block_size,
        mean,
        tuple(made),
        band_of,
        ranks,
        rng.integers(-12, 1, (2, frequencies)).astype(np.int8),
        points,
    )


def header_of(
    specs: tuple[TensorSpec, ...], profile: Profile, *, size: tuple[int, int], grid: int = 32
) -> SequenceHeader:
    """A header that carries its profile."""
    return SequenceHeader(
        tensors=specs,
        input_height=size[0],
        input_width=size[1],
        profile_hash=profile.hash,
        profile=profile.to_bytes(),
        grid=grid,
    )


@st.composite
def stream_headers(draw, max_tensors=3, *, full=False):
    """Headers of decodable streams: one to three tensors, odd sizes, any block size and rank, or
    all of them of full rank.
    """
    rng = np.random.default_rng(draw(SEEDS))
    specs, tensors = [], []
    size = draw(st.tuples(st.integers(1, 80), st.integers(1, 80)))
    for number in range(draw(st.integers(1, max_tensors))):
        stride = draw(st.sampled_from((2, 3, 4, 8, 16)))
        channels = draw(st.integers(1, 6))
        height, width = (min(-(-side // stride), 12) for side in size)
        offset = draw(st.integers(-20, 20))
        specs.append(
            TensorSpec(f"t{number}", channels, height, width, stride, stride, offset, -offset)
        )
        tensors.append(
            plausible_profile(
                rng,
                channels,
                draw(st.sampled_from((1, 2, 3, 4, 5, 7, 8, 16))),
                bands=draw(st.integers(1, 3)),
                dense=draw(st.booleans()),
                full=full,
                cut=not full and draw(st.booleans()),
            )
        )
    grid = draw(st.sampled_from((4, 8, 16, 32, 33)))
    return header_of(tuple(specs), Profile(tuple(tensors)), size=size, grid=grid)


def random_vectors(rng: np.random.Generator, header: SequenceHeader, reach: int) -> np.ndarray:
    """A field of vectors within ±reach quarter pixels, mostly alike, as motion is."""
    shape = (*header.field_shape, 2)
    common = rng.integers(-reach, reach + 1, 2)
    own = rng.integers(-reach, reach + 1, shape)
    return np.where(rng.random(shape) < 0.7, common, own).astype(np.int32)


def random_features(
    rng: np.random.Generator, header: SequenceHeader, frames: int, spread: float = 1.0
) -> list[list[torch.Tensor]]:
    """Frames that resemble the ones before them, with a cut now and then and repeats."""
    scenes: list[list[torch.Tensor]] = []
    for _ in range(frames):
        chance = rng.random()
        if not scenes or chance < 0.2:
            level = rng.normal() * spread
            frame = [_noise(rng, spec.shape, spread) + level for spec in header.tensors]
        elif chance < 0.3:
            frame = scenes[-1]
        else:
            frame = [before + _noise(rng, before.shape, spread / 8) for before in scenes[-1]]
        scenes.append(frame)
    return scenes


def _noise(rng: np.random.Generator, shape: tuple[int, ...], spread: float) -> torch.Tensor:
    return torch.from_numpy(rng.normal(size=tuple(shape)) * spread).float()


def random_symbols(
    rng: np.random.Generator, header: SequenceHeader, profile: Profile, frames: int
) -> list[FrameSymbols]:
    """Frames of symbols with everything in them: skips, escapes, extremes, changes of qp."""
    sequence: list[FrameSymbols] = []
    qp = int(rng.integers(0, MAX_QP + 1))
    for number in range(frames):
        key = number == 0 or rng.random() < 0.2
        if rng.random() < 0.3:
            qp = int(rng.integers(0, MAX_QP + 1))
        vectors = None
        if not key and rng.random() < 0.7:
            reach = int(rng.choice((0, 1, 8, 200, MAX_VECTOR)))
            vectors = random_vectors(rng, header, reach)
        tensors = []
        changing = rng.random() < 0.4
        for place, (spec, tensor) in enumerate(zip(header.tensors, profile.tensors, strict=True)):
            rows, columns = tensor.blocks(spec.height, spec.width)
            chances = rng.dirichlet((1, 1, 1))
            modes = rng.choice(3, rows * columns, p=chances).astype(np.uint8)
            if key:
                modes[:] = MODE_INTRA
            offsets = np.zeros(rows * columns, np.int64)
            if not key:
                offsets = sequence[-1].tensors[place].offsets
            if changing and rng.random() < 0.7:
                reach = int(rng.choice((1, MAX_OFFSET)))
                drawn = rng.integers(-reach, reach + 1, rows * columns)
                offsets = np.where(modes == MODE_SKIP, offsets, drawn)
            shape = (len(tensor.scan.position), int((modes != MODE_SKIP).sum()))
            spread = float(rng.choice((0, 0.05, 0.5, 3, 40)))
            levels = np.round(rng.laplace(size=shape) * spread)
            extreme = rng.random(shape) < float(rng.choice((0, 0.02)))
            levels[extreme] = rng.choice((-MAX_LEVEL, -32, -31, 31, 32, MAX_LEVEL), extreme.sum())
            tensors.append(
                TensorSymbols(modes, levels.astype(np.int32), np.zeros(shape, np.uint8), offsets)
            )
        sequence.append(FrameSymbols(key, qp, vectors, tensors))
    return sequence


def encode_all(
    header: SequenceHeader,
    config: EncoderConfig,
    frames: list[list[torch.Tensor]],
    fields: list[np.ndarray | None],
    *,
    intra: bool = False,
) -> list[EncodedFrame]:
    """Encode a clip."""
    encoder = Encoder(header, config)
    return [
        encoder.encode(features, field, intra=intra)
        for features, field in zip(frames, fields, strict=True)
    ]
