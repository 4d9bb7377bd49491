"""Write the conformance streams and the streams that must be refused, with their manifest.

    python -m tools.make.bitstreams FOLDER

Nothing is ever overwritten: a stream, once published, stays; a changed one gets the next revision
in its name.  What they are: `valid_streams.py`, `invalid_streams.py`, and `bounds.py` of either.
"""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import tools.make.bounds  # noqa: F401 - enters its streams in both lists
from codec.errors import BitstreamError
from codec.files.outputs import one_line, open_output
from codec.files.streams import StreamReader
from codec.format.constants import (
    FORMAT_VERSION,
)
from codec.limits import Limits
from codec.normative.decoder import DecodedFrame, Decoder
from codec.normative.reconstruction import bytes_of
from tools.make.invalid_streams import INVALID, Invalid
from tools.make.valid_streams import VALID, Valid

__all__ = ["decode", "stream_md5", "write_all"]

SUFFIX = ".lmc"
LARGEST_FILE, LARGEST_TOTAL = 32 << 10, 500 << 10


def decode(content: bytes, limits: Limits | None = None) -> list[DecodedFrame]:
    """Decode a whole stream."""
    reader = StreamReader(io.BytesIO(content), limits or Limits())
    decoder = Decoder(reader.header)
    return [decoder.decode(packet) for packet in reader]


def stream_md5(frames: Sequence[DecodedFrame]) -> str:
    """Return the MD5 of a stream: of the latents of all its frames (FORMAT.md 9)."""
    digest = hashlib.md5(usedforsecurity=False)
    for frame in frames:
        for content in bytes_of(frame.latents):
            digest.update(content)
    return digest.hexdigest()


def _row(kind: str, values: dict[str, str | int | list[int] | list[str]]) -> str:
    """Return a row of the manifest in TOML."""
    lines = [f"[[{kind}]]"]
    for name, value in values.items():
        if isinstance(value, str):
            assert not set(value) & set('"\\')
            lines.append(f'{name} = "{value}"')
        elif isinstance(value, list) and value and isinstance(value[0], str):
            lines += [f"{name} = [", *(f'  "{item}",' for item in value), "]"]
        else:
            lines.append(f"{name} = {value}")
    return "\n".join(lines) + "\n"


def _valid_row(stream: Valid, content: bytes) -> str:
    frames = decode(content)
    return _row(
        "valid",
        {
            "file": f"valid/{stream.name}{SUFFIX}",
            "exercises": stream.exercises,
            "clause": stream.clause,
            "maker": stream.maker,
            "bytes": len(content),
            "frames": len(frames),
            "key_frames": [number for number, frame in enumerate(frames) if frame.key],
            "pts": [frame.pts for frame in frames],
            "md5": stream_md5(frames),
            "frame_md5": [frame.md5() for frame in frames],
        },
    )


def _invalid_row(stream: Invalid, content: bytes) -> str:
    try:
        decode(content)
    except BitstreamError as error:
        words = stream.message.split("|")
        if type(error).__name__ != stream.error or not any(word in str(error) for word in words):
            raise AssertionError(f"{stream.name}: {error!r}") from error
    else:
        raise AssertionError(f"{stream.name} decodes")
    return _row(
        "invalid",
        {
            "file": f"invalid/{stream.name}{SUFFIX}",
            "error": stream.error,
            "note": stream.note,
            "clause": stream.clause,
            "bytes": len(content),
        },
    )


def write_all(folder: Path) -> None:
    """Write all streams and the manifest into `folder`.

    Raises:
        FileExistsError: one of them is there; nothing has been written then.
    """
    files: dict[Path, bytes] = {}
    rows = [
        "# Written by tools/make/bitstreams.py; README.md explains it.\n\n"
        f"format_version = {FORMAT_VERSION}\n"
    ]
    for good in VALID:
        content = files[folder / "valid" / f"{good.name}{SUFFIX}"] = good.make()
        rows.append(_valid_row(good, content))
    for bad in INVALID:
        content = files[folder / "invalid" / f"{bad.name}{SUFFIX}"] = bad.make()
        rows.append(_invalid_row(bad, content))
    assert max(len(content) for content in files.values()) <= LARGEST_FILE
    assert sum(len(content) for content in files.values()) <= LARGEST_TOTAL
    files[folder / "manifest.toml"] = "\n".join(rows).encode()
    for path in files:
        if path.exists():
            raise FileExistsError(f"{path}: exists; streams are never overwritten")
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_output(str(path)) as file:
            file.write(content)


def main() -> None:
    """Write into the folder named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tools.make.bitstreams FOLDER")
    try:
        write_all(Path(sys.argv[1]))
    except OSError as error:
        sys.exit(one_line(error))


if __name__ == "__main__":
    main()
