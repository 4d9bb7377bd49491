"""Coverage-guided search for bytes that break a decoder: needs the extra `fuzz` (atheris).

    python tests/fuzz.py TARGET [-max_total_time=600] [other options of libFuzzer] [FOLDERS]

header        the sequence header, behind its CRC
packet        frame packets, and end packets behind their CRC
profile       the serialisation of a profile
stream        whole streams, behind every CRC, the hash of the profile and the checks of frames
differential  the same, by the reference decoder as well: both take it alike, or refuse it alike

Anything but a result or a `BitstreamError` is a finding; libFuzzer keeps the input in a file that
is told to it again as an argument to reproduce it.  Seeds are the streams of bitstreams/, and a
corpus of one's own may be named as a folder behind them.

An input is a row of pieces, each behind its length, rather than a stream: what a mutation changes
stays in its piece, and CRCs, hashes and checks are made right around it.
"""

from __future__ import annotations

import hashlib
import io
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import atheris
import numpy as np  # noqa: F401 - not to be instrumented: imported before the codec is
import torch

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

with atheris.instrument_imports(include=["codec", "reference_decoder"]):
    import reference_decoder

    from codec.errors import BitstreamError
    from codec.files.streams import StreamReader
    from codec.format.constants import FORMAT_VERSION, MAGIC
    from codec.format.header import SequenceHeader
    from codec.format.packets import EndPacket, FramePacket
    from codec.format.primitives import ByteReader, ByteWriter, crc32
    from codec.format.profile import Profile
    from codec.format.slots import Slots
    from codec.limits import Limits
    from codec.normative import decoder as normative
    from tools.make.composing import assemble

LIMITS = Limits(
    header_bytes=1 << 14,
    profile_bytes=1 << 14,
    packet_bytes=1 << 12,
    tensors=4,
    channels=64,
    elements=1 << 11,
    input_pixels=1 << 16,
    index_entries=1 << 10,
    vectors=1 << 8,
)
"""Small: what an input announces is computed in milliseconds."""
MAX_PACKETS = 6


# --- pieces ---------------------------------------------------------------------------------------


def pieces_of(content: bytes) -> list[bytes]:
    """Cut an input: each piece behind its length in two bytes, the last as long as it is."""
    pieces, position = [], 0
    while position + 2 <= len(content):
        length = int.from_bytes(content[position : position + 2], "little")
        pieces.append(content[position + 2 : position + 2 + length])
        position += 2 + length
    return pieces


def joined(pieces: Sequence[bytes]) -> bytes:
    return b"".join(len(piece).to_bytes(2, "little") + piece for piece in pieces)


def pairs_of(pieces: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """What packets are made of, as far as both pieces of one are there."""
    return list(zip(pieces[::2], pieces[1::2], strict=False))[:MAX_PACKETS]


def sealed(content: bytes) -> bytes:
    return content + crc32(content).to_bytes(4, "little")


def header_around(body: bytes) -> bytes:
    out = ByteWriter()
    out.raw(MAGIC)
    out.u8(FORMAT_VERSION)
    out.varint(len(body))
    out.raw(body)
    return sealed(bytes(out.content))


def packet_around(fields: bytes, payload: bytes, check: int) -> bytes:
    """A frame packet: its tag, qp and pts, and its payload."""
    if fields[:1] == b"\x40":
        return fields[:1]
    out = ByteWriter()
    out.raw(fields)
    out.varint(len(payload))
    out.raw(payload)
    out.fixed(check, 4 if out.content[0] >> 4 == 2 else 2)
    return bytes(out.content) + bytes(4 if out.content[0] >> 4 == 2 else 0)


def stream_of(pieces: Sequence[bytes], checks: Sequence[int]) -> bytes:
    """The stream of an input: body of the header in front of its profile, profile, and packets."""
    body, profile = pieces[:2]
    out = ByteWriter()
    out.raw(bytes([body[0] | 1]) + body[1:] if body else b"")
    out.raw(hashlib.sha256(profile).digest()[:8])
    packed = zlib.compress(profile)
    out.varint(len(profile))
    out.varint(len(packed))
    out.raw(packed)
    frames = [
        packet_around(fields, payload, checks[number] if number < len(checks) else 0)
        for number, (fields, payload) in enumerate(pairs_of(pieces[2:]))
    ]
    return assemble([header_around(bytes(out.content)), *frames], index=())


# --- targets --------------------------------------------------------------------------------------


def header(content: bytes) -> None:
    parsed, size = SequenceHeader.from_bytes(header_around(content), LIMITS)
    assert size == len(header_around(content))
    assert SequenceHeader.from_bytes(parsed.to_bytes(), Limits())[0] == parsed


def packet(content: bytes) -> None:
    previous = FramePacket(True, 0, 20, False, b"", 1)
    for fields, payload in pairs_of(pieces_of(content)):
        if fields[:1] == b"\x30":
            end = EndPacket.read(ByteReader(end_around(payload)), LIMITS)
            assert end.to_bytes() == end_around(payload)
        else:
            written = packet_around(fields, payload, 7)
            kept = Slots[FramePacket]()
            kept.keep(previous, None, key=False)
            parsed = FramePacket.read(ByteReader(written), kept, 1, LIMITS)
            again = parsed.to_bytes(previous)
            found = FramePacket.read(ByteReader(again), kept, 1, LIMITS)
            # flags that say nothing new are not written again, so that the bytes may be others
            assert replace(found, crc=parsed.crc) == parsed
            previous = parsed


def end_around(body: bytes) -> bytes:
    out = ByteWriter()
    out.u8(0x30)
    out.varint(len(body))
    out.raw(body)
    out.fixed(len(out.content) + 8, 4)
    return sealed(bytes(out.content))


def profile(content: bytes) -> None:
    assert Profile.from_bytes(content, LIMITS).to_bytes() == content


def stream(content: bytes) -> None:
    pieces = pieces_of(content)
    if len(pieces) >= 2:
        checks_of(stream_of(pieces, []))


def checks_of(content: bytes) -> list[int]:
    """The checks that the frames of a stream should have, up to the first error."""
    found: list[int] = []
    right = FramePacket.check_of

    def accept(entry, latents):
        found.append(right(entry, latents))
        return entry.check

    FramePacket.check_of = accept
    try:
        with suppress(BitstreamError):
            list(frames_of(content))
    finally:
        FramePacket.check_of = right
    return found


def frames_of(content: bytes) -> Iterator[tuple[bool, int, str]]:
    reader = StreamReader(io.BytesIO(content), LIMITS)
    decoder = normative.Decoder(reader.header, limits=LIMITS)
    for entry in reader:
        frame = decoder.decode(entry[1] if isinstance(entry, tuple) else entry)
        yield frame.key, frame.pts, frame.md5()


def differential(content: bytes) -> None:
    pieces = pieces_of(content)
    if len(pieces) < 2:
        return
    try:  # what exceeds our limits does not exceed those of the other decoder
        plain = stream_of(pieces[:2], [])
        normative.Decoder(StreamReader(io.BytesIO(plain), LIMITS).header, limits=LIMITS)
    except BitstreamError:
        return
    made = stream_of(pieces, checks_of(stream_of(pieces, [])))
    ours = outcome(lambda: frames_of(made))
    theirs = outcome(
        lambda: (
            (frame.key, frame.pts, hashlib.md5(frame.latents).hexdigest())
            for frame in reference_decoder.decode(made)
        )
    )
    assert ours == theirs, (ours, theirs, made.hex())


def outcome(decode: Callable[[], Iterator[tuple[bool, int, str]]]) -> tuple[list, str | None]:
    """The frames that came out, and the name of the error that ended them."""
    frames: list[tuple[bool, int, str]] = []
    try:
        frames.extend(decode())
    except (BitstreamError, reference_decoder.BitstreamError) as error:
        return frames, type(error).__name__
    return frames, None


TARGETS = {target.__name__: target for target in (header, packet, profile, stream, differential)}


# --- seeds ----------------------------------------------------------------------------------------


def seeds(name: str) -> Iterator[bytes]:
    """The streams of bitstreams/, in the form that a target takes."""
    for path in sorted((PROJECT / "bitstreams" / "valid").glob("*.lmc")):
        content = path.read_bytes()
        reader = StreamReader(io.BytesIO(content))
        serialised = reader.header.profile or b""
        bare = replace(reader.header, profile=None).to_bytes()
        source = ByteReader(bare, len(MAGIC) + 1)
        body = source.raw(source.varint())
        packets: list[bytes] = []
        previous = None
        for entry in reader:
            parsed = entry[1] if isinstance(entry, tuple) else entry
            framing = len(parsed.payload) + (2 if len(parsed.payload) > 127 else 1)
            framing = 0 if parsed.repeat else framing + (8 if parsed.key else 2)
            fields = parsed.to_bytes(previous)
            packets += [fields[: len(fields) - framing], parsed.payload]
            previous = parsed
        if name == "header":
            full = ByteReader(reader.header.to_bytes(), len(MAGIC) + 1)
            yield full.raw(full.varint())
        elif name == "packet":
            yield joined([*packets[: 2 * MAX_PACKETS], b"\x30", b"\0\0\0\0\x02\x01\x00\x4c"])
        elif name == "profile":
            yield serialised
        elif len(serialised) < 4096:
            yield joined([body[:-8], serialised, *packets[: 2 * MAX_PACKETS]])


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python tests/fuzz.py {'|'.join(TARGETS)} [OPTIONS] [FOLDERS]")
    target = TARGETS[sys.argv[1]]
    torch.set_num_threads(1)

    def run(content: bytes) -> None:
        with suppress(BitstreamError):
            target(content)

    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(seeds(sys.argv[1])):
            (Path(folder) / f"{number:03}").write_bytes(seed)
        options = [argument for argument in sys.argv[2:] if argument.startswith("-")]
        named = [argument for argument in sys.argv[2:] if not argument.startswith("-")]
        if not any(Path(argument).is_file() for argument in named):
            named.append(folder)
        atheris.Setup([sys.argv[0], "-max_len=8192", "-timeout=60", *options, *named], run)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
