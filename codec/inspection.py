"""What is in a stream, as values: its header in words, and what each frame spends on what.

Symbols are parsed, nothing is reconstructed; neither tensors nor models are needed for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from codec.encoding.payloads import FrameWriter
from codec.errors import BitstreamError
from codec.files.streams import BeforeFault, StreamReader
from codec.format.constants import FORMAT_VERSION
from codec.format.header import Preprocessing, Resize, SequenceHeader
from codec.format.profile import Profile, bytes_apart, profile_of, travels
from codec.normative.symbols import MODE_INTER, MODE_INTRA, MODE_SKIP
from codec.normative.syntax import FrameReader

__all__ = ["FrameContents", "StreamContents", "described", "inspected"]

MODE_NAMES = {MODE_SKIP: "skip", MODE_INTER: "inter", MODE_INTRA: "intra"}


@dataclass(frozen=True, slots=True)
class FrameContents:
    """What is in a frame: sizes in bytes, ideal code lengths in bits by syntax element, and how
    many blocks are of each mode.  `slots`: predicted from, kept in; None where nothing is said of
    them.
    """

    frame: int
    type: str
    pts: int
    qp: int
    bytes: int
    bytes_framing: int
    bits: dict[str, float]
    blocks: dict[str, int]
    slots: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class StreamContents:
    """What is in a stream; of one that is cut or damaged, what comes before that, and the fault."""

    header: dict[str, str | int]
    bytes: int
    bytes_header: int
    bytes_end: int
    frames: list[FrameContents]
    fault: BitstreamError | OSError | None


def inspected(reader: StreamReader, profile: Profile | None = None) -> StreamContents:
    """Parse every symbol of a stream, up to the fault if there is one.

    Args:
        reader: at the first packet.
        profile: what the stream was written with, where its header only names it; and what tells
            whether it predicts importance, which no stream says.

    Raises:
        BitstreamError: the profile is unknown, another one, or broken: then no frame can be read.
    """
    used_profile = profile_of(reader.header, reader.limits, profile)
    header = described(reader.header, used_profile)
    if profile is not None:
        header["importance"] = _importance(profile)
    before_fault = BeforeFault(_frames(reader, used_profile))
    frames = list(before_fault)
    used = reader.header_bytes + sum(frame.bytes for frame in frames)
    size = used if before_fault.error is not None else reader.bytes_read
    return StreamContents(
        header,
        size,
        reader.header_bytes,
        size - used,
        frames,
        before_fault.error,
    )


def _frames(reader: StreamReader, profile: Profile) -> Iterator[FrameContents]:
    syntax, lengths = FrameReader(reader.header, profile), FrameWriter(reader.header, profile)
    for packet in reader:
        symbols = syntax.read(packet)
        modes = [tensor.modes for tensor in symbols.tensors]
        yield FrameContents(
            frame=reader.packet_number,
            type="repeat" if packet.repeat else "key" if packet.key else "inter",
            pts=packet.pts,
            qp=packet.qp,
            bytes=reader.packet_bytes,
            bytes_framing=reader.packet_bytes - len(packet.payload),
            bits={name: round(bits, 2) for name, bits in lengths.code_lengths(symbols).items()},
            blocks={
                name: int(sum((mode == value).sum() for mode in modes))
                for value, name in MODE_NAMES.items()
            },
            slots=packet.slots,
        )


def described(header: SequenceHeader, profile: Profile) -> dict[str, str | int]:
    """Return what a header says, in words, and how large a profile is that it only names."""
    way = travels(header)
    if way == "apart":
        way = f"travels apart, {bytes_apart(header, profile)} bytes that count nowhere here"
    return {
        "format version": FORMAT_VERSION,
        "model": header.model or "(none: the writer's own tensors)",
        "split": header.split,
        "weights": f"{header.weights} {header.weights_hash.hex()}",
        "input": f"{header.input_width}x{header.input_height}",
        "preprocessing": _preprocessing(header.preprocessing),
        "task": header.task or "(that of the model's name, or none)",
        "motion grid": header.grid,
        "time base": str(header.time_base),
        "frame duration": header.frame_duration,
        "references": header.references,
        "profile": f"{header.profile_hash.hex()}, {way}",
        "tensors": "; ".join(
            f"{spec.name} {'x'.join(map(str, spec.shape))}, n^k = {spec.stride_y},{spec.stride_x}, "
            f"offset {spec.offset_y2 / 2:g},{spec.offset_x2 / 2:g}"
            for spec in header.tensors
        ),
    }


def _importance(profile: Profile) -> str:
    """Say whether a profile's file predicts importance."""
    plain = "not predicted" if profile.importance is None else "predicted"
    return f"{profile.provenance.get('importance', plain)} (by the profile given)"


def _preprocessing(how: Preprocessing | None) -> str:
    if how is None:
        return "(none said)"
    steps = {
        Resize.SHORT_SIDE: f"short side {how.short_side}" if how.short_side else "own size",
        Resize.STRETCH: f"stretched to {how.size[1]}x{how.size[0]}",
        Resize.LETTERBOX: f"letterbox of {how.size[1]}x{how.size[0]}",
    }
    placed = f"crop {how.crop}, " if how.crop else ""
    if not how.crop and how.pad_multiple != 1:
        placed = f"padded to multiples of {how.pad_multiple}, "
    mean, scale = (
        " ".join(f"{each / 1000:g}" for each in values)
        for values in (how.mean_thousandths, how.scale_thousandths)
    )
    return (
        f"{steps[how.resize]}, {how.interpolation.name.lower()}, {placed}"
        f"{'BGR' if how.bgr else 'RGB'}, mean {mean}, scale {scale}"
    )
