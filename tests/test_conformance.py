"""The streams of bitstreams/: valid ones decode to their digests, invalid ones are refused."""

from __future__ import annotations

import hashlib
import io
import tomllib
from pathlib import Path

import pytest

from codec import errors
from codec.files.streams import StreamReader
from codec.format.constants import FORMAT_VERSION
from codec.format.header import SequenceHeader
from codec.normative.decoder import DecodedFrame, Decoder
from tools.make.bitstreams import LARGEST_FILE, LARGEST_TOTAL, decode, stream_md5, write_all
from tools.make.invalid_streams import INVALID
from tools.make.valid_streams import VALID

FOLDER = Path(__file__).resolve().parent.parent / "bitstreams"
MANIFEST = tomllib.loads((FOLDER / "manifest.toml").read_text(encoding="utf-8"))


def named(rows):
    return pytest.mark.parametrize("row", rows, ids=[Path(row["file"]).stem for row in rows])


def frames_from(content: bytes, start: int) -> list[tuple[int, DecodedFrame]]:
    """Decode from the key frame at or before `start`."""
    reader = StreamReader(io.BytesIO(content))
    reader.seek(start)
    decoder = Decoder(reader.header)
    return [(reader.packet_number, decoder.decode(packet)) for packet in reader]


def test_manifest_and_folders_name_the_same_files():
    listed = [row["file"] for kind in ("valid", "invalid") for row in MANIFEST[kind]]
    present = [
        path.relative_to(FOLDER).as_posix()
        for kind in ("valid", "invalid")
        for path in (FOLDER / kind).iterdir()
    ]
    assert sorted(listed) == sorted(present)


def test_manifest_names_every_stream_of_the_tool():
    for kind, streams in (("valid", VALID), ("invalid", INVALID)):
        assert {Path(row["file"]).stem for row in MANIFEST[kind]} >= {s.name for s in streams}


def test_streams_are_small():
    sizes = {}
    for row in MANIFEST["valid"] + MANIFEST["invalid"]:
        sizes[row["file"]] = (FOLDER / row["file"]).stat().st_size
        assert sizes[row["file"]] == row["bytes"]
    assert max(sizes.values()) <= LARGEST_FILE
    assert sum(sizes.values()) <= LARGEST_TOTAL


def test_manifest_is_of_this_format():
    assert MANIFEST["format_version"] == FORMAT_VERSION


@named(MANIFEST["valid"])
def test_valid_stream_decodes_to_its_digests(row):
    frames = decode((FOLDER / row["file"]).read_bytes())
    assert len(frames) == row["frames"]
    assert [frame.md5() for frame in frames] == row["frame_md5"]
    assert stream_md5(frames) == row["md5"]
    assert [number for number, frame in enumerate(frames) if frame.key] == row["key_frames"]
    assert [frame.pts for frame in frames] == row["pts"]


@named(MANIFEST["valid"])
def test_features_are_the_latents_in_float32(row):
    content = (FOLDER / row["file"]).read_bytes()
    profile = Decoder(SequenceHeader.from_bytes(content)[0]).profile
    for frame in decode(content):
        for feature, latent, tensor in zip(
            frame.features, frame.latents, profile.tensors, strict=True
        ):
            assert (feature.double() * 2.0**tensor.fraction_bits == latent).all()


@named([row for row in MANIFEST["valid"] if row["frames"]])
def test_valid_stream_decodes_from_every_frame_of_its_index(row):
    content = (FOLDER / row["file"]).read_bytes()
    end = StreamReader(io.BytesIO(content)).index()
    assert end is not None
    assert end.frames == row["frames"]
    assert {number for number, _ in end.key_frames} <= set(row["key_frames"])
    keys = [key for key, _ in end.key_frames]
    # of the frames that one key frame serves, the first and the last
    for number in {0, *keys, *(key - 1 for key in keys if key), row["frames"] - 1}:
        found = frames_from(content, number)
        starts = [key for key in keys if key <= number] or [0]
        assert [n for n, _ in found] == list(range(starts[-1], row["frames"]))
        assert [frame.md5() for _, frame in found] == row["frame_md5"][starts[-1] :]
        assert [frame.pts for _, frame in found] == row["pts"][starts[-1] :]


@named(MANIFEST["invalid"])
def test_invalid_stream_raises_its_error(row):
    with pytest.raises(errors.BitstreamError) as caught:
        decode((FOLDER / row["file"]).read_bytes())
    assert type(caught.value) is getattr(errors, row["error"])
    assert "\n" not in str(caught.value)


HISTORY = sorted((FOLDER / "history").glob("*.lmc"))
"""Streams of earlier versions, named after them."""


@pytest.mark.parametrize("path", HISTORY, ids=lambda path: path.stem)
def test_streams_of_earlier_versions_are_refused_by_their_version(path):
    version = int(path.stem.partition("_")[0].removeprefix("v"))
    assert version < FORMAT_VERSION
    message = f"format version {version}, this decoder reads {FORMAT_VERSION}"
    with pytest.raises(errors.UnsupportedBitstreamError, match=message):
        decode(path.read_bytes())


def test_every_earlier_version_has_a_stream():
    versions = {int(path.stem.partition("_")[0].removeprefix("v")) for path in HISTORY}
    assert versions == set(range(1, FORMAT_VERSION))


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bitstreams")
    write_all(folder)
    return folder


@pytest.mark.slow
def test_tool_writes_streams_of_the_same_digests(regenerated):
    """Encoders decide in floating point, so what the encoder made may differ elsewhere."""
    found = tomllib.loads((regenerated / "manifest.toml").read_text(encoding="utf-8"))
    expected = {row["file"]: row for row in MANIFEST["valid"] if row["maker"] == "symbols"}
    for row in found["valid"]:
        if row["maker"] == "symbols":
            assert row == expected[row["file"]] | {"bytes": row["bytes"]}
    assert len(expected) > 20


@pytest.mark.slow
def test_tool_writes_the_same_packets(regenerated):
    """Headers are compared unpacked, for zlib does not promise the same bytes everywhere."""
    for row in MANIFEST["valid"]:
        if row["maker"] == "symbols":
            ours = StreamReader(io.BytesIO((FOLDER / row["file"]).read_bytes()))
            theirs = StreamReader(io.BytesIO((regenerated / row["file"]).read_bytes()))
            assert ours.header == theirs.header
            assert list(ours) == list(theirs)


@pytest.mark.slow
def test_tool_refuses_to_overwrite_and_then_writes_nothing(regenerated):
    def digests():
        return {
            path: hashlib.sha256(path.read_bytes()).hexdigest() for path in regenerated.rglob("*.*")
        }

    removed = regenerated / MANIFEST["valid"][0]["file"]
    content = removed.read_bytes()
    removed.unlink()
    before = digests()
    with pytest.raises(FileExistsError, match="never overwritten"):
        write_all(regenerated)
    assert digests() == before
    removed.write_bytes(content)
