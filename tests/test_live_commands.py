"""`lmc receive` and `lmc send` as their users meet them: two processes on the loopback."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("aioquic")

from live_ends import FRAMES, network_options, read_account, write_inputs

from codec import cli

pytestmark = [pytest.mark.video]

SEND = ["send", "x", "--to", "a:1", "--fingerprint", "0" * 64, "--token", "t"]
LMC = [sys.executable, "-m", "codec"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("live"))


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """Even if these tests run in the background of a shell, whose programs ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Receiving:
    """`lmc receive`, and what it has printed for senders."""

    def __init__(self, folder: Path, *options: object) -> None:
        words = ["receive", "--listen", "127.0.0.1:0", "--model", folder / "small.pt2", *options]
        self.process = subprocess.Popen(
            [*LMC, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        self.printed = ""
        while "lmc send" not in self.printed:
            line = self.process.stderr.readline()
            assert line, self.printed
            self.printed += line
        words = self.printed.splitlines()[-1].split()
        assert words[:3] == ["lmc", "send", "SOURCE"]
        self.told = words[3:]

    def end(self, number: int = signal.SIGTERM) -> tuple[str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        return out, self.printed + err


@contextmanager
def receiving(folder: Path, *options: object) -> Iterator[Receiving]:
    found = Receiving(folder, *options)
    try:
        yield found
    finally:
        if found.process.poll() is None:
            found.process.kill()
            found.process.communicate()


def lmc(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in arguments])


def sent(folder: Path, told: list[str], *more: object) -> Result:
    clip = folder / "clip.mkv"
    return lmc("send", clip, *told, *network_options(folder), *more)


def sums(path: Path) -> list[str]:
    result = lmc("decode", path, "--md5", "-q")
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_from_file_to_results(folder, tmp_path):
    ours, theirs, out = tmp_path / "sent.lmc", tmp_path / "received.lmc", tmp_path / "out.jsonl"
    options = ["--every-frame", "--task", out, "--record", theirs]
    with receiving(folder, *options) as receiver:
        assert re.search("^fingerprint  [0-9a-f]{64}$", receiver.printed, re.MULTILINE)
        assert re.search("^token        [0-9a-f]{32}$", receiver.printed, re.MULTILINE)
        result = sent(folder, receiver.told, "--every-frame", "--record", ours)
        assert result.exit_code == 0, result.output
        assert result.stdout == ""
        account = "of 12 frames 12 decoded, 0 lost, 0 given up, 0 skipped; 1 key frames; latency "
        assert result.stderr.startswith(account)
        assert result.stderr.count("\n") == 1
        _, told = receiver.end(signal.SIGINT)
        assert receiver.process.returncode == 0
    assert "sender 1: of 12 frames 12 decoded, 0 concealed, 0 skipped, 0 lost; " in told
    stream = tmp_path / "file.lmc"
    encode = ["encode", folder / "clip.mkv", "-o", stream, *network_options(folder)]
    assert lmc(*encode, "--no-scene-cut", "-q").exit_code == 0
    decode = ["decode", stream, "--model", folder / "small.pt2", "--task", tmp_path / "out.json"]
    assert lmc(*decode, "-q").exit_code == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows
    assert rows == json.loads((tmp_path / "out.json").read_text())
    assert sums(ours) == sums(theirs) == sums(stream)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "file.lmc",
        "out.json",
        "out.jsonl",
        "received.lmc",
        "sent.lmc",
    ]


@pytest.mark.slow
def test_a_focus_goes_back_and_is_granted(folder, tmp_path):
    out, few = tmp_path / "out.jsonl", tmp_path / "few.toml"
    few.write_text((folder / "detection.toml").read_text().replace("0.3", "0.6"))
    with receiving(folder, "--task", out, "--focus", "--max-bytes", 512) as receiver:
        told = [*receiver.told, "--task", few, "--fps", 4, "--max-latency", "2s"]
        result = lmc("send", folder / "clip.mkv", *network_options(folder), *told)
        assert result.exit_code == 0, result.output
        _, told = receiver.end()
    assert any("bbox" in json.loads(line) for line in out.read_text().splitlines())
    assert re.search("[1-9][0-9]* wishes granted", result.stderr)
    ours, theirs = read_account(result.stderr), read_account(told)
    assert ours["frames"] == theirs["frames"] == FRAMES
    assert sum(ours[what] for what in ("decoded", "lost", "given up", "skipped")) == FRAMES
    assert sum(theirs[what] for what in ("decoded", "concealed", "skipped", "lost")) == FRAMES


def test_recordings_of_later_senders_are_checked_first(folder, tmp_path):
    (tmp_path / "out-7.lmc").write_bytes(b"")
    words = ["receive", "--record", tmp_path / "out.lmc"]
    result = lmc(*words)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"lmc: {tmp_path}/out-7.lmc: exists; pass --force")
    result = lmc(*words, "--force", "--senders", 2, "--task", tmp_path / "out-2.lmc")
    assert result.exit_code == 2
    assert "both name" in result.stderr


@pytest.mark.slow
def test_the_page_shows_what_came(folder):
    with receiving(folder, "--page", "0", "--every-frame") as receiver:
        page = re.search("^page at (http://127.0.0.1:[0-9]+/)$", receiver.printed, re.MULTILINE)
        assert page
        result = sent(folder, receiver.told, "--every-frame", "-q")
        assert result.exit_code == 0, result.output
        for _ in range(100):
            with urlopen(f"{page[1]}status?sender=1") as answer:
                status = json.load(answer)
            if status["senders"] and not status["senders"][0]["connected"]:
                break
            time.sleep(0.1)
        receiver.end()
    (sender,), shown = status["senders"], status["selected"]
    assert (sender["decoded"], sender["concealed"], sender["split"]) == (FRAMES, 0, "relu")
    assert [frame[:2] for frame in shown["frames"]] == [
        [number, "key" if number == 0 else "decoded"] for number in range(FRAMES)
    ]
    assert all(size > 0 and latency >= 0 for _, _, size, latency in shown["frames"])
    assert "bbox" in shown["columns"]
    assert len(shown["thumbnails"]) == 6


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_both_ends_and_leaves_whole_files(folder, tmp_path, number):
    ours, theirs = tmp_path / "sent.lmc", tmp_path / "received.lmc"
    token = tmp_path / "token"
    token.write_text("open sesame\n")
    options = ["--task", "-", "--record", theirs, "--token", token, "--max-latency", "5s", "-q"]
    with receiving(folder, *options) as receiver:
        assert receiver.told[-2:] == ["--token", str(token)]
        words = ["send", folder / "clip.mkv", *receiver.told, *network_options(folder)]
        words += ["--fps", 2, "--record", ours, "--max-latency", "5s"]
        sender = subprocess.Popen([*LMC, *map(str, words)], stderr=subprocess.PIPE, text=True)
        assert receiver.process.stdout is not None
        first = json.loads(receiver.process.stdout.readline())
        assert first["image_id"] == 0
        sender.send_signal(number)
        _, account = sender.communicate(timeout=30)
        assert sender.returncode == 0
        assert re.match(r"of \d+ frames \d+ decoded, ", account)
        _, told = receiver.end(number)
        assert receiver.process.returncode == 0
        assert told.count("\n") == 6
    assert 0 < len(sums(ours)) < FRAMES
    assert sums(ours) == sums(theirs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["received.lmc", "sent.lmc", "token"]


@pytest.mark.slow
def test_who_is_refused_is_told_why_in_one_line(folder):
    with receiving(folder) as receiver:
        wrong = {"--token": "guessed", "--fingerprint": "ab" * 32}
        said = {"--token": "wrong token", "--fingerprint": "expected abababab"}
        for option, value in wrong.items():
            told = list(receiver.told)
            told[told.index(option) + 1] = value
            result = sent(folder, told)
            assert result.exit_code == 1
            assert result.stderr.startswith("lmc: ")
            assert result.stderr.count("\n") == 1
            assert said[option] in result.stderr
        receiver.end()
        assert receiver.process.returncode == 0


@pytest.mark.slow
def test_a_receiver_that_is_known_again(folder, tmp_path):
    options = ["--identity", tmp_path / "me.pem", "--token", "open sesame"]
    fingerprints = []
    for _ in range(2):
        with receiving(folder, *options) as receiver:
            fingerprints.append(receiver.told[receiver.told.index("--fingerprint") + 1])
            receiver.end()
    assert fingerprints[0] == fingerprints[1]


@pytest.mark.slow
def test_a_port_that_is_taken(folder):
    with receiving(folder) as receiver:
        place = receiver.told[receiver.told.index("--to") + 1]
        result = lmc("receive", "--listen", place)
        assert result.exit_code == 1
        assert result.stderr == f"lmc: cannot listen at {place}: address already in use\n"
        receiver.end()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["receive", "--listen", "4433"], "'4433' is not HOST:PORT"),
        (["receive", "--listen", "here:99999"], "'here:99999' is not HOST:PORT"),
        (["receive", "--max-latency", "200"], "'200' is not a time from 1ms to 60s"),
        (["receive", "--record", "-"], "--record names a file"),
        (["receive", "--focus"], "--focus goes by results; give --task"),
        (
            ["receive", "--focus", "--task", "-", "--every-frame"],
            "--every-frame keeps the quality everywhere",
        ),
        (SEND[:-2], "--token is needed"),
        (
            [*SEND, "--fps", "5", "--every-frame"],
            "--fps is of files that are read as a camera would be",
        ),
        ([*SEND, "--fps", "nan"], "'nan' is not a finite number"),
        (
            [*SEND, "--fingerprint", "xy"],
            "'xy' is no fingerprint",
        ),
    ],
)
def test_wrong_usage(words, message):
    result = lmc(*words)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", "").split())


def test_efforts_of_classifiers_are_refused_for_a_detector(folder):
    result = sent(folder, SEND[2:], "--effort", 5)
    assert result.exit_code == 1
    assert result.stderr.startswith("lmc: efforts from 5 on choose levels by the probabilities")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["receive", " ".join(SEND)])
def test_without_aioquic(command):
    code = (
        "import sys\nsys.modules['aioquic'] = None\n"
        f"sys.argv = ['lmc', *{command.split()!r}]\n"
        "from codec.cli import main\nmain()"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 1
    message = "lmc: the live link needs aioquic; pip install 'latent-motion-codec[live]'\n"
    assert finished.stderr == message


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_results_that_cannot_be_written_end_the_receiver(folder):
    with receiving(folder, "--task", "/dev/full") as receiver:
        sent(folder, receiver.told, "--fps", 5)
        _, told = receiver.process.communicate(timeout=30)
        assert receiver.process.returncode == 1
    assert told.splitlines()[-1] == "lmc: /dev/full: no space left on device"


@pytest.mark.slow
def test_a_source_that_is_none(folder):
    with receiving(folder) as receiver:
        told = [*receiver.told, *network_options(folder)]
        for source, message in (
            ("rtsp://user:secret@127.0.0.1:9/x", "rtsp://127.0.0.1:9/x: cannot be opened"),
            ("nowhere.mp4", "nowhere.mp4: no such file"),
        ):
            result = lmc("send", source, *told)
            assert result.exit_code == 1
            assert message in result.stderr
            assert "secret" not in result.stderr
            assert result.stderr.count("\n") == 1
        receiver.end()


@pytest.mark.slow
def test_frames_from_a_pipe(folder, tmp_path):
    out = tmp_path / "out.jsonl"
    with receiving(folder, "--every-frame", "--task", out) as receiver:
        words = ["send", "-", *receiver.told, *network_options(folder), "--every-frame", "-q"]
        finished = subprocess.run(
            [*LMC, *map(str, words)],
            input=(folder / "clip.mkv").read_bytes(),
            capture_output=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        receiver.end()
    frames = {json.loads(line)["image_id"] for line in out.read_text().splitlines()}
    assert frames == set(range(FRAMES))
