"""What the field hands in: damage, and errors that are not ours."""

from __future__ import annotations

import gc
import io
import random
from itertools import pairwise
from pathlib import Path

import av
import pytest
from av.codec import codecs_available
from videos import (
    CASES,
    NATIVE,
    assert_same,
    moving,
    needs_h264,
    noise,
    packets_of,
    read,
    refused,
    shape,
    write_video,
)

from codec.errors import FeatureCodecError, VideoError
from codec.files.damage import DAMAGE_POLICIES, Damage
from codec.files.video import Frame, VideoReader

pytestmark = pytest.mark.video


def packets(path: Path) -> list[tuple[int, bytes, bool]]:
    """Presentation time, content and kind of each packet, in the order of the file."""
    with av.open(str(path)) as container:
        return [
            (packet.pts, bytes(packet), packet.is_keyframe)
            for packet in container.demux(container.streams.best("video"))
            if packet.size
        ]


@needs_h264
def test_a_truncated_file_gives_what_is_there_and_then_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cut.mp4"
    write_video(
        path,
        moving(40, (1, 1)),
        codec="libx264",
        pixel_format="yuv420p",
        options={"bf": "2", "qp": "20"},
    )
    data = path.read_bytes()
    whole = read(path)
    assert len(whole) == 40
    path.write_bytes(data[: len(data) * 2 // 3])
    frames = []
    with (
        pytest.raises(VideoError, match=r"cannot be decoded at frame \d+ \("),
        VideoReader(path, NATIVE) as video,
    ):
        frames.extend(video)
    assert 15 < len(frames) < 30
    assert_same(frames, whole[: len(frames)])
    # What lies before the damage can be asked for without hearing of it.
    assert_same(read(path, frames=(0, 10)), whole[:10])
    path.write_bytes(data[:100])
    refused(path)
    assert capfd.readouterr() == ("", "")


def test_damage_in_the_middle_names_the_frame(tmp_path: Path) -> None:
    path = tmp_path / "damaged.mov"
    write_video(
        path, [noise(48, 64, seed) for seed in range(12)], codec="png", pixel_format="rgb24"
    )
    data = bytearray(path.read_bytes())
    place = data.index(bytes(packets_of(path)[6]))
    data[place : place + 64] = bytes(64)
    path.write_bytes(bytes(data))
    frames = []
    with (
        pytest.raises(VideoError, match="cannot be decoded at frame 6 "),
        VideoReader(path, NATIVE) as video,
    ):
        frames.extend(video)
    assert len(frames) == 6


DAMAGED = [
    pytest.param("libx264", "yuv420p", "mkv", {"bf": "2", "g": "10"}, marks=needs_h264),
    pytest.param("libx264", "yuv420p", "mp4", {"bf": "0", "g": "10"}, marks=needs_h264),
    ("mpeg4", "yuv420p", "mp4", {"bf": "2", "g": "10"}),
    ("mpeg2video", "yuv420p", "mkv", {"g": "10"}),
    ("mjpeg", "yuvj420p", "mkv", {}),
    ("png", "rgb24", "mov", {}),
]


@pytest.mark.parametrize(("codec", "pixel_format", "suffix", "options"), DAMAGED)
@pytest.mark.parametrize("motion", [False, True])
def test_one_bad_packet_has_one_policy(
    tmp_path: Path,
    codec: str,
    pixel_format: str,
    suffix: str,
    options: dict[str, str],
    motion: bool,
) -> None:
    path = tmp_path / f"clip.{suffix}"
    write_video(path, codec=codec, pixel_format=pixel_format, options=options, **shape())
    whole = read(path, export_motion=motion)
    listed = packets(path)
    number = next(i for i in range(13, 40) if codec in {"png", "mjpeg"} or not listed[i][2])
    _, content, _ = listed[number]
    behind = next((pts for pts, _, key in listed[number + 1 :] if key), None)
    assert behind is not None
    damaged = bytearray(path.read_bytes())
    place = damaged.index(content)
    damaged[place + 40 : place + len(content)] = random.Random(1).randbytes(len(content) - 40)
    path.write_bytes(damaged)

    first_missing = min(pts for pts, _, _ in listed[number:])
    before = [frame for frame in whole if frame.pts < first_missing]
    if codec == "mpeg2video":  # its decoder lets go of the frame that it holds when the next fails
        before.pop()
    frames: list[Frame] = []
    with (
        pytest.raises(VideoError, match=rf"at frame {len(before)} \(.*--damaged skip"),
        VideoReader(path, NATIVE, export_motion=motion) as video,
    ):
        frames.extend(video)
    assert_same(frames, before)

    with VideoReader(path, NATIVE, export_motion=motion, damaged="skip") as video:
        kept = list(video)
        lost = len(whole) - len(kept)
        assert video.damage == Damage(1, lost)
        assert lost >= 1
    known = {frame.pts: frame for frame in whole}
    assert_same(kept, [known[frame.pts] for frame in kept])
    wanted = {frame.pts for frame in before} | {f.pts for f in whole if f.pts >= behind}
    assert wanted <= {frame.pts for frame in kept}

    concealed = read(path, damaged="conceal")
    assert len(kept) <= len(concealed) <= len(whole)


@needs_h264
def test_a_hole_in_a_transport_stream_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "hole.ts"
    write_video(
        path,
        moving(60, (1, 1)),
        codec="libx264",
        pixel_format="yuv420p",
        options={"bf": "0", "g": "20", "qp": "30"},
    )
    whole = read(path)
    content = path.read_bytes()
    position = content.index(packets(path)[25][1][:100]) // 188 * 188
    path.write_bytes(content[:position] + content[position + 188 * 12 :])
    with pytest.raises(VideoError, match=r"at frame 2\d \("):
        read(path)
    with VideoReader(path, NATIVE, damaged="skip") as video:
        kept = list(video)
        assert video.damage == Damage(1, 60 - len(kept))
    assert 40 <= len(kept) < 46
    known = {frame.pts: frame for frame in whole}
    assert_same(kept, [known[frame.pts] for frame in kept])


@needs_h264
def test_a_cut_last_packet_is_heard_of(tmp_path: Path) -> None:
    path = tmp_path / "cut.h264"
    write_video(
        path,
        [picture for seed in range(10) for picture in moving(2, (seed, 3))],
        codec="libx264",
        pixel_format="yuv420p",
        options={"bf": "0", "qp": "15"},
    )
    listed = packets(path)
    path.write_bytes(path.read_bytes()[: -len(listed[-1][1]) // 2])
    with pytest.raises(VideoError, match=r"cannot be decoded at frame 1\d \("):
        read(path)
    with VideoReader(path, NATIVE, damaged="skip") as video:
        assert len(list(video)) == 19
        assert video.damage == Damage(1, 1)


@pytest.mark.parametrize("damaged", DAMAGE_POLICIES)
def test_a_damaged_program_table_ends_in_our_error_or_in_frames(damaged: str) -> None:
    for _ in range(5):  # it depended on what lay behind a buffer
        try:
            read(CASES / "damaged_hevc.ts", damaged=damaged)
        except VideoError as error:
            assert "no frame that can be decoded" in str(error)  # noqa: PT017 - or none at all


def test_recordings_that_start_inside_a_gop_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "middle.ts"
    write_video(
        path, moving(40, (1, 1)), codec="mpeg2video", pixel_format="yuv420p", options={"g": "15"}
    )
    content = path.read_bytes()
    tables = content[: 188 * 3]
    place = content.index(packets(path)[5][1][:60]) // 188 * 188
    path.write_bytes(tables + content[place:])
    frames = read(path)
    assert 20 <= len(frames) <= 35


class Failing(io.BytesIO):
    """A file whose reads fail after a while with an error of any kind."""

    def __init__(self, content: bytes, error: Exception) -> None:
        super().__init__(content)
        self.error, self.left = error, 2

    def read(self, size: int | None = -1) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().read(min(size or 4096, 4096))


@pytest.mark.parametrize("error", [RuntimeError("odd"), IndexError("odd"), OSError(5, "odd")])
def test_nothing_foreign_comes_out(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "clip.avi"
    write_video(path, codec="mpeg4", pixel_format="yuv420p", **shape(20))
    with pytest.raises(VideoError):
        read(Failing(path.read_bytes(), error))


def mutated(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 5))):
        reach = len(changed) if draw.random() < 0.7 else min(len(changed), 600)
        place = draw.randrange(reach)
        kind = draw.choice(("bytes", "zeros", "hole", "cut", "twice", "insert"))
        if kind == "bytes":
            changed[place : place + 8] = draw.randbytes(len(changed[place : place + 8]))
        elif kind == "zeros":
            changed[place : place + 200] = bytes(len(changed[place : place + 200]))
        elif kind == "hole":
            del changed[place : place + draw.choice((1, 188, 900))]
        elif kind == "cut":
            del changed[max(place, 1) :]
        elif kind == "twice":
            changed[place:place] = changed[place : place + draw.choice((188, 2000))]
        else:
            changed[place:place] = draw.randbytes(draw.choice((1, 50)))
    return bytes(changed) or b"\0"


MUTATED = [
    ("libx264", "yuv420p", "mp4", {"bf": "2", "g": "8"}),
    ("libx264", "yuv420p", "mkv", {"bf": "2", "g": "8"}),
    ("libx264", "yuv420p", "ts", {"bf": "2", "g": "8"}),
    ("libx264", "yuv420p", "h264", {"bf": "2", "g": "8"}),
    ("libx265", "yuv420p", "ts", {"x265-params": "log-level=none:keyint=8"}),
    ("mpeg4", "yuv420p", "avi", {"bf": "2", "g": "8"}),
    ("mpeg2video", "yuv420p", "mpg", {"bf": "2", "g": "8"}),
    ("libvpx-vp9", "yuv420p", "webm", {"b": "200000", "g": "8"}),
    ("ffv1", "yuv420p", "mkv", {}),
    ("flv", "yuv420p", "flv", {"g": "8"}),
    ("mjpeg", "yuvj420p", "avi", {}),
    ("gif", "rgb8", "gif", {}),
    ("png", "rgb24", "png", {}),
]


def _try(tmp_path: Path, each: int) -> None:
    draw = random.Random(each)
    tried = 0
    for codec, pixel_format, suffix, options in MUTATED:
        if codec not in codecs_available:
            continue
        path = tmp_path / f"clip.{suffix}"
        pictures = moving(1 if suffix == "png" else 24, (1, 2))
        write_video(
            path,
            pictures,
            codec=codec,
            pixel_format=pixel_format,
            options=options,
            container="image2" if suffix == "png" else None,
        )
        content = path.read_bytes()
        for number in range(each):
            path.write_bytes(mutated(content, draw))
            damaged = DAMAGE_POLICIES[number % 3]
            pts = []
            try:
                with VideoReader(
                    path, NATIVE, damaged=damaged, export_motion=number % 2 == 0
                ) as video:
                    pts = [frame.pts for frame in video]
            except FeatureCodecError as error:
                assert "\n" not in str(error)  # noqa: PT017 - most give one, and some none
            assert all(a < b for a, b in pairwise(pts)), (suffix, number)
            tried += 1
    gc.collect()
    assert tried >= 6 * each


def test_mutated_files_give_frames_in_order_or_our_errors(tmp_path: Path) -> None:
    _try(tmp_path, 12)


@pytest.mark.slow
def test_two_thousand_mutated_files(tmp_path: Path) -> None:
    _try(tmp_path, 160)
