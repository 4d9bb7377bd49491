"""The second decoder, of FORMAT.md alone, and ours: they return the same, and refuse the same."""

from __future__ import annotations

import ast
import hashlib
import io
import math
import subprocess
import sys
import tomllib
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import reference_decoder
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import (
    SEEDS,
    encode_all,
    header_of,
    profiles,
    random_features,
    random_symbols,
    random_vectors,
    stream_headers,
)

from codec.encoding.config import MAX_EFFORT, EncoderConfig
from codec.encoding.payloads import FrameWriter
from codec.errors import BitstreamError
from codec.files.streams import StreamReader, StreamWriter
from codec.format.constants import MAX_QP
from codec.format.header import SequenceHeader, TensorSpec
from codec.format.packets import FramePacket
from codec.format.profile import Profile, profile_of
from codec.normative.decoder import Decoder
from codec.normative.reconstruction import Reconstructor, bytes_of
from codec.normative.syntax import FrameReader
from tools.make.composing import REVISION

SOURCE = Path(reference_decoder.__file__)
FOLDER = SOURCE.resolve().parent.parent / "bitstreams"
MANIFEST = tomllib.loads((FOLDER / "manifest.toml").read_text(encoding="utf-8"))
HISTORY = sorted((FOLDER / "history").glob("*.lmc"))

Outcome = tuple[list[tuple[bool, int, str]], str | None]
"""Kind, pts and MD5 of the frames that came out, and the name of the error that ended them."""


def named(rows):
    return pytest.mark.parametrize("row", rows, ids=[Path(row["file"]).stem for row in rows])


def by_reference(content: bytes, start: int = 0) -> Outcome:
    found = []
    frames = reference_decoder.decode(content, start)
    try:
        found.extend((f.key, f.pts, hashlib.md5(f.latents).hexdigest()) for f in frames)
    except reference_decoder.BitstreamError as error:
        return found, type(error).__name__
    return found, None


def by_codec(content: bytes) -> Outcome:
    found = []
    try:
        reader = StreamReader(io.BytesIO(content))
        decoder = Decoder(reader.header)
        for packet in reader:
            frame = decoder.decode(packet)
            found.append((frame.key, frame.pts, frame.md5()))
    except BitstreamError as error:
        return found, type(error).__name__
    return found, None


# --- the conformance streams ----------------------------------------------------------------------


@named(MANIFEST["valid"])
def test_valid_stream_decodes_to_its_digests(row):
    content = (FOLDER / row["file"]).read_bytes()
    frames = list(reference_decoder.decode(content))
    assert [frame.pts for frame in frames] == row["pts"]
    assert [number for number, frame in enumerate(frames) if frame.key] == row["key_frames"]
    assert [hashlib.md5(frame.latents).hexdigest() for frame in frames] == row["frame_md5"]
    latents = b"".join(frame.latents for frame in frames)
    assert hashlib.md5(latents).hexdigest() == row["md5"]
    middle = row["frames"] // 2
    expected = list(zip(row["pts"], row["frame_md5"], strict=True))[middle:]
    found, error = by_reference(content, middle)
    assert [(pts, digest) for _, pts, digest in found] == expected
    assert error is None


@named(MANIFEST["invalid"])
def test_invalid_stream_is_refused_with_its_error(row):
    _, error = by_reference((FOLDER / row["file"]).read_bytes())
    assert error == row["error"]


@pytest.mark.parametrize("path", HISTORY, ids=lambda path: path.stem)
def test_streams_of_earlier_versions_are_unsupported(path):
    assert by_reference(path.read_bytes()) == ([], "UnsupportedBitstreamError")


@pytest.mark.parametrize("name", ["one_by_one_a", "header_fields_a"])
def test_every_prefix_is_truncated(name):
    content = (FOLDER / "valid" / f"{name}_{REVISION}.lmc").read_bytes()
    for size in range(len(content)):
        _, error = by_reference(content[:size])
        assert error == "TruncatedBitstreamError"


# --- random streams -------------------------------------------------------------------------------


def stream_of(header: SequenceHeader, packets: Sequence[FramePacket]) -> bytes:
    file = io.BytesIO()
    writer = StreamWriter(file, header)
    for packet in packets:
        writer.write(packet)
    writer.close()
    return file.getvalue()


def sealed(header: SequenceHeader, packets: Sequence[FramePacket]) -> list[FramePacket]:
    """Packets with the checks of what our decoder makes of their payloads, up to the first that
    it refuses.  So a payload of noise is compared by its latents, not by a check that is wrong.
    """
    profile = profile_of(header)
    syntax = FrameReader(header, profile)
    loop = Reconstructor(header.tensors, profile, header.grid)
    made: list[FramePacket] = []
    for number, packet in enumerate(packets):
        try:
            frame = syntax.read(packet)
        except BitstreamError:
            return [*made, *packets[number:]]
        latents = loop.reconstruct(loop.predict(frame.vectors), frame)
        made.append(packet.sealed(made[-1] if made else None, bytes_of(latents)))
    return made


def packets_of(rng: np.random.Generator, header: SequenceHeader, count: int) -> list[FramePacket]:
    """Packets of random symbols, many of which no encoder would choose, and of random pts."""
    profile = profile_of(header)
    payloads = FrameWriter(header, profile)
    packets: list[FramePacket] = []
    for frame in random_symbols(rng, header, profile, count):
        has_offsets = payloads.changes_offsets(frame)
        payload = payloads.write(frame)
        before = packets[-1] if packets else None
        pts = before.pts + before.duration if before else 0
        if rng.random() < 0.3:
            pts = int(rng.integers(-100, 100))
        duration = header.frame_duration if frame.key or before is None else pts - before.pts
        packets.append(
            FramePacket(
                key=frame.key,
                pts=pts,
                qp=frame.qp,
                has_vectors=frame.vectors is not None,
                payload=payload,
                duration=duration,
                has_offsets=has_offsets,
            )
        )
    return sealed(header, packets)


@st.composite
def extreme_headers(draw):
    """Headers whose profiles are anything that FORMAT.md 5 allows."""
    profile = draw(profiles())
    specs = tuple(
        TensorSpec(
            f"t{number}",
            tensor.channels,
            draw(st.integers(1, 9)),
            draw(st.integers(1, 9)),
            draw(st.sampled_from((1, 3, 8, 1 << 16))),
            draw(st.sampled_from((1, 3, 8, 1 << 16))),
            draw(st.sampled_from((0, 7, -40, 1 << 16, -(1 << 16)))),
            draw(st.sampled_from((0, 7, -40, 1 << 16, -(1 << 16)))),
        )
        for number, tensor in enumerate(profile.tensors)
    )
    size = draw(st.tuples(st.integers(1, 80), st.integers(1, 80)))
    return header_of(specs, profile, size=size, grid=draw(st.sampled_from((4, 15, 32, 1024))))


CONFIGS = st.builds(
    EncoderConfig,
    qp=st.integers(0, MAX_QP),
    keyint=st.sampled_from((1, 2, 3, 64)),
    scene_cut=st.booleans(),
    effort=st.integers(0, MAX_EFFORT),
)


@settings(max_examples=15)
@given(stream_headers(), CONFIGS, SEEDS)
def test_streams_of_the_encoder_decode_alike(header, config, seed):
    rng = np.random.default_rng(seed)
    features = random_features(rng, header, 4)
    fields = [random_vectors(rng, header, 40) if rng.random() < 0.7 else None for _ in features]
    encoded = encode_all(header, config, features, fields)
    content = stream_of(header, [frame.packet for frame in encoded])
    assert by_reference(content) == by_codec(content)
    assert by_codec(content)[1] is None


@settings(max_examples=25)
@given(st.one_of(stream_headers(), extreme_headers()), SEEDS)
def test_streams_of_random_symbols_decode_alike(header, seed):
    content = stream_of(header, packets_of(np.random.default_rng(seed), header, 4))
    assert by_reference(content) == by_codec(content)
    assert by_codec(content)[1] is None


@settings(max_examples=25)
@given(
    st.one_of(stream_headers(max_tensors=2), extreme_headers()),
    SEEDS,
    st.integers(0, 2),
    st.integers(0, 1000),
    st.integers(1, 255),
)
def test_changed_payloads_are_taken_or_refused_alike(header, seed, number, position, value):
    packets = packets_of(np.random.default_rng(seed), header, 3)
    payload = bytearray(packets[number].payload or b"\0")
    payload[position % len(payload)] ^= value
    packets[number] = replace(packets[number], payload=bytes(payload))
    content = stream_of(header, packets)  # the check is that of another payload
    assert by_reference(content) == by_codec(content)
    content = stream_of(header, sealed(header, packets))
    assert by_reference(content) == by_codec(content)


@settings(max_examples=25)
@given(st.one_of(stream_headers(max_tensors=2), extreme_headers()), st.data())
def test_payloads_of_noise_are_taken_or_refused_alike(header, data):
    packets = [
        FramePacket(
            key=number == 0,
            pts=number,
            qp=data.draw(st.integers(0, MAX_QP)),
            has_vectors=number > 0 and data.draw(st.booleans()),
            payload=data.draw(st.binary(max_size=100)),
            duration=1,
            has_offsets=data.draw(st.booleans()),
        )
        for number in range(3)
    ]
    content = stream_of(header, sealed(header, packets))
    assert by_reference(content) == by_codec(content)


# --- changed headers and profiles, under their right CRC and hash ---------------------------------

SMALL = ["multi_tensor_a", "header_fields_a", "ranks_dense_a", "mixed_bands_a"]


def read(name: str) -> tuple[SequenceHeader, list[FramePacket], bytes]:
    content = (FOLDER / "valid" / f"{name}_{REVISION}.lmc").read_bytes()
    reader = StreamReader(io.BytesIO(content))
    return reader.header, list(reader)[:2], content


def seal_header(body: bytes) -> bytes:
    """Magic, version, length and CRC around the body of a header (4.2)."""
    length = (
        bytes([len(body) & 0x7F | 0x80, len(body) >> 7]) if len(body) > 127 else bytes([len(body)])
    )
    head = reference_decoder.MAGIC + bytes([reference_decoder.FORMAT_VERSION]) + length + body
    return head + zlib.crc32(head).to_bytes(4, "little")


def alike(header: bytes, packets: Sequence[FramePacket]) -> None:
    """Compare how a header is taken, and frames decoded by it.  Which of several errors is named,
    FORMAT.md 3 leaves open.
    """
    try:
        parsed = SequenceHeader.from_bytes(header)[0]
        profile_of(parsed)
    except BitstreamError:
        assert by_reference(header)[1] not in {None, "TruncatedBitstreamError"}
        return
    assume(sum(math.prod(spec.shape) for spec in parsed.tensors) < 5000)
    assume(math.prod(parsed.field_shape) < 1000)
    content = header + stream_of(parsed, sealed(parsed, packets))[len(parsed.to_bytes()) :]
    assert by_reference(content) == by_codec(content)


@given(
    st.sampled_from(SMALL),
    st.integers(0, 1000),
    st.binary(min_size=1, max_size=2),
    st.sampled_from((1, 1, 1, 0, 2)),
)
def test_changed_headers_are_taken_or_refused_alike(name, position, inserted, removed):
    _, packets, content = read(name)
    stream = reference_decoder.Reader(content, reference_decoder.TruncatedBitstreamError)
    stream.take(9)
    body = stream.take(stream.varint())
    start = position % len(body)
    alike(seal_header(body[:start] + inserted + body[start + removed :]), packets)


@given(
    st.sampled_from(SMALL),
    st.integers(0, 1000),
    st.binary(min_size=1, max_size=2),
    st.sampled_from((1, 1, 1, 0, 2)),
)
def test_changed_profiles_are_taken_or_refused_alike(name, position, inserted, removed):
    header, packets, _ = read(name)
    assert header.profile is not None
    start = position % len(header.profile)
    serialised = header.profile[:start] + inserted + header.profile[start + removed :]
    profile_hash = hashlib.sha256(serialised).digest()[:8]
    changed = replace(header, profile=serialised, profile_hash=profile_hash)
    alike(changed.to_bytes(), packets)


# --- the decoder itself ---------------------------------------------------------------------------


def test_needs_the_standard_library_only():
    imported = set()
    for node in ast.walk(ast.parse(SOURCE.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add((node.module or "").partition(".")[0])
    assert imported <= sys.stdlib_module_names


def test_is_short_enough_to_be_read():
    assert len(SOURCE.read_text(encoding="utf-8").splitlines()) < 890


def test_every_shipped_profile_is_found_by_its_hash():
    index = SOURCE.resolve().parent.parent / "codec" / "format" / "profiles" / "index.json"
    hashes = [key for key in reference_decoder.json.loads(index.read_text()) if "@" not in key]
    assert hashes
    for name in hashes:
        serialised = reference_decoder.shipped_profile(bytes.fromhex(name))
        assert Profile.from_bytes(serialised).hash.hex() == name


def command(path: Path) -> subprocess.CompletedProcess[str]:
    """Run it in isolation: without the packages and the folder of the project."""
    return subprocess.run(
        [sys.executable, "-I", "-S", str(SOURCE), str(path)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_prints_one_md5_a_frame():
    row = next(row for row in MANIFEST["valid"] if "keyint_a" in row["file"])
    finished = command(FOLDER / row["file"])
    assert finished.stdout.split() == row["frame_md5"]
    assert finished.returncode == 0


def test_command_names_the_error():
    finished = command(FOLDER / "invalid" / f"truncated_end_{REVISION}.lmc")
    assert finished.stderr.startswith("TruncatedBitstreamError: ")
    assert finished.returncode == 1
