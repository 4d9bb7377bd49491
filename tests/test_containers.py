"""What is no video is refused, with the remedy where there is one."""

from __future__ import annotations

import io
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from videos import (
    NATIVE,
    Pipe,
    needs_h264,
    noise,
    numbers,
    packets_of,
    ramp,
    read,
    refused,
    shape,
    write_video,
)

from codec.errors import VideoError
from codec.files.containers import is_live, name_of
from codec.files.video import VideoReader

pytestmark = pytest.mark.video


def test_a_pipe_with_its_index_at_the_end_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "late.mp4"
    pictures = [noise(240, 320, seed) for seed in range(4)]  # more than FFmpeg's read buffer
    write_video(path, pictures, codec="mpeg4", pixel_format="yuv420p", movflags=None)
    with pytest.raises(VideoError, match="faststart"):
        read(io.BufferedReader(Pipe(path.read_bytes())))


def test_what_is_not_a_video_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "no such file" in refused(tmp_path / "missing.mp4")
    assert "is a directory" in refused(tmp_path)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert "is empty" in refused(empty)
    for name in ("notes.txt", "notes.mp4", "notes"):
        text = tmp_path / name
        text.write_text("This is not a video, it is prose.\n" * 100)
        assert "not a video" in refused(text)
    garbage = tmp_path / "garbage.mp4"
    garbage.write_bytes(np.random.default_rng(1).bytes(50_000))
    refused(garbage)
    for data in (b"", b"x", b"prose " * 999):
        with pytest.raises(VideoError):
            read(io.BytesIO(data))
    assert capfd.readouterr() == ("", "")


def test_audio_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        frame.rate = 8000
        output.mux([*stream.encode(frame), *stream.encode()])
    assert "no video stream (found: audio)" in refused(path)


def test_a_video_stream_without_frames_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hollow.mkv"
    write_video(path, ramp(3))
    data = path.read_bytes()
    path.write_bytes(data[: data.index(bytes(packets_of(path)[0])) - 20])
    refused(path)


@needs_h264
def test_an_mp4_without_its_index_is_called_unfinished(tmp_path: Path) -> None:
    path = tmp_path / "unfinished.mp4"
    write_video(path, codec="libx264", pixel_format="yuv420p", movflags=None, **shape(10))
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"moov") - 4])
    for source in (path, io.BytesIO(path.read_bytes())):
        with pytest.raises(VideoError, match=r"without its index .* cut off or is not finished"):
            VideoReader(source, NATIVE)


@pytest.mark.parametrize(
    ("source", "live"),
    [
        ("-", True),
        ("rtsp://camera/1", True),
        ("HTTP://host/clip.mp4", True),
        ("clip.mp4", False),
        ("a:b.mp4", False),
        ("c:/clip.mp4", False),
        ("/dev/null", True),
        (Pipe(b""), True),
        (io.BytesIO(), False),
    ],
)
def test_what_gives_frames_when_they_come(source, live):
    assert is_live(source) is live


def test_secrets_of_a_camera_are_in_no_message():
    assert name_of("rtsp://user:secret@camera/1?x=a@b") == "rtsp://camera/1?x=a@b"
    with pytest.raises(VideoError, match=r"^http://127\.0\.0\.1:9/: cannot be opened") as caught:
        VideoReader("http://user:secret@127.0.0.1:9/", NATIVE, live=True)
    assert "secret" not in str(caught.value)


def test_a_camera_on_the_network(tmp_path: Path) -> None:
    write_video(tmp_path / "camera.mkv", ramp(5))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}/camera.mkv"
        assert numbers(read(place, live=True)) == [0, 1, 2, 3, 4]
        with pytest.raises(VideoError, match="no such file"):  # a file is what is asked for
            read(place)
        server.shutdown()
