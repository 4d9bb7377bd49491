"""Outputs whole or absent, never an input, and named by every error; what signals leave."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from codec.files.outputs import (
    check_output,
    check_outputs,
    ended_by_signals,
    named,
    one_line,
    open_output,
    temporary_folder,
)


def test_output_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "out"
    with open_output(str(path)) as file:
        file.write(b"content")
        assert not path.exists()
    assert path.read_bytes() == b"content"
    assert os.listdir(tmp_path) == ["out"]  # noqa: PTH208
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_failed_output_leaves_nothing(tmp_path, error):
    old = tmp_path / "old"
    old.write_bytes(b"old")
    for path in (tmp_path / "new", old):
        with pytest.raises(error), open_output(str(path), force=True) as file:  # noqa: PT012
            file.write(b"half")
            raise error
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert old.read_bytes() == b"old"


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_a_temporary_folder_leaves_nothing(tmp_path, monkeypatch, error):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with suppress(ValueError, KeyboardInterrupt), temporary_folder("lmc-test-") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_bytes(b"content")
        assert [folder] == list(tmp_path.iterdir())
        if error is not None:
            raise error
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_exist_need_force(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError, match="--force"), open_output(str(path)):
        pass
    with open_output(str(path), force=True) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_outputs_in_no_folder_are_refused_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        check_output(str(tmp_path / "no" / "out"), force=False)
    with pytest.raises(IsADirectoryError, match="is a directory"):
        check_output(str(tmp_path), force=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_outputs_in_a_read_only_folder_are_refused_at_once(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="cannot be written to"):
        check_output(str(tmp_path / "out"), force=False)


def test_a_link_stays_a_link(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    with open_output(str(link), force=True) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_the_longest_name_works(tmp_path):
    path = tmp_path / ("x" * 255)
    with open_output(str(path)) as file:
        file.write(b"content")
    assert path.read_bytes() == b"content"


def test_devices_are_written_to_not_replaced(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with open_output(str(fifo), force=True) as file:
            file.write(b"content")
        assert stat.S_ISFIFO(fifo.stat().st_mode)
        assert os.read(reading, 100) == b"content"
    finally:
        os.close(reading)
    with open_output("/dev/null") as file:
        file.write(b"content")
    assert not Path("/dev/null").is_file()


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    path = tmp_path / "out"
    with pytest.raises(FileExistsError, match="appeared"), open_output(str(path)) as file:  # noqa: PT012
        file.write(b"new")
        path.write_bytes(b"mine")
    assert path.read_bytes() == b"mine"
    with open_output(str(path), force=True) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert [found.name for found in tmp_path.iterdir()] == ["out"]


def test_no_links_no_harm(tmp_path, monkeypatch):
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "out"
    with open_output(str(path)) as file:
        file.write(b"new")
    with pytest.raises(FileExistsError, match="appeared"), open_output(str(tmp_path / "other")):
        (tmp_path / "other").write_bytes(b"mine")
    assert sorted(found.name for found in tmp_path.iterdir()) == ["other", "out"]


def test_a_folder_that_vanishes_is_told_with_the_name_of_the_output(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = str(folder / "out")
    with pytest.raises(FileNotFoundError) as caught, open_output(path) as file:  # noqa: PT012
        file.write(b"new")
        shutil.rmtree(folder)
    assert caught.value.filename == path
    assert one_line(caught.value) == f"{path}: no such file or directory"


@pytest.mark.parametrize("method", ["write", "flush", "seek", "close"])
def test_every_method_names_the_file(method):
    class Full:
        def __getattr__(self, _: str) -> object:
            def fail(*_: object) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            return fail

    file = named(cast(BinaryIO, Full()), "name")
    with pytest.raises(OSError, match="No space") as caught:
        getattr(file, method)()
    assert caught.value.filename == "name"
    with pytest.raises(OSError, match="No space") as caught, file:
        pass
    assert caught.value.filename == "name"


def test_errors_of_the_body_keep_their_names(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, open_output(str(tmp_path / "out")):
        (tmp_path / "in").open()
    assert caught.value.filename == str(tmp_path / "in")
    with pytest.raises(OSError, match="theirs") as bare, open_output(str(tmp_path / "out")):
        raise OSError(errno.EIO, "theirs")
    assert bare.value.filename is None


def test_an_output_is_no_input_by_any_name(tmp_path):
    path = tmp_path / "in"
    path.write_bytes(b"mine")
    (tmp_path / "hard").hardlink_to(path)
    (tmp_path / "soft").symlink_to(path)
    (tmp_path / "folder").symlink_to(tmp_path)
    for name in ("in", "hard", "soft", "folder/in", f"folder/../{tmp_path.name}/in"):
        with pytest.raises(ValueError, match="same file as VIDEO"):
            check_outputs({"-o": f"{tmp_path}/{name}"}, [("VIDEO", path)], force=True)
    check_outputs({"-o": str(tmp_path / "out"), "-p": None}, [("VIDEO", path)], force=True)


def test_a_pipe_that_is_read_is_not_written(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(ValueError, match="same file"):
        check_outputs({"-o": str(fifo)}, [("VIDEO", fifo)], force=True)


def test_signals_are_left_alone_by_a_file_and_restored_by_a_command(tmp_path):
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    with open_output(str(tmp_path / "out")):
        assert {number: signal.getsignal(number) for number in before} == before
    with ended_by_signals():
        assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
    assert {number: signal.getsignal(number) for number in before} == before
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with ended_by_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_the_first_signal_tells_and_the_second_ends():
    code = (
        "import os, signal, threading, time\n"
        "from codec.files.outputs import ended_by_signals, told_of_signals\n"
        "told = threading.Event()\n"
        "with ended_by_signals():\n"
        "    with told_of_signals(told.set):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        assert told.wait(10)\n"
        "        print('told', flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(10)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 128 + signal.SIGTERM
    assert finished.stdout == "told\n"
    assert finished.stderr == "lmc: ended by SIGTERM\n"
