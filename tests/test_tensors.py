"""Tensors into .npz: what comes back, in how much memory, and what is left after a failure."""

from __future__ import annotations

import errno
import io
import sys
import tempfile
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from codec.files.tensors import TensorFile

NAMES = ["features.denseblock1/x", "add_3"]


def frames(count: int) -> list[tuple[list[np.ndarray], int]]:
    rng = np.random.default_rng(1)
    shapes = ((3, 4, 5), (2, 1, 1))
    return [
        ([rng.normal(size=shape).astype(np.float32) for shape in shapes], 512 * number - 7)
        for number in range(count)
    ]


@pytest.mark.parametrize("count", [1, 9])
def test_what_goes_in_comes_out(tmp_path, count):
    path = tmp_path / "out.npz"
    given = frames(count)
    with TensorFile(str(path), NAMES) as file:
        for tensors, pts in given:
            file.append(tensors, pts)
        file.finish()
    assert [found.name for found in tmp_path.iterdir()] == ["out.npz"]
    with np.load(path, allow_pickle=False) as loaded:
        assert sorted(loaded) == sorted([*NAMES, "pts"])
        assert loaded["pts"].dtype == np.int64
        assert loaded["pts"].tolist() == [pts for _, pts in given]
        for number, name in enumerate(NAMES):
            assert loaded[name].dtype == np.float32
            assert np.array_equal(loaded[name], np.stack([tensors[number] for tensors, _ in given]))


def test_views_are_stored_in_their_own_order(tmp_path):
    tensor = np.arange(24, dtype=np.float32).reshape(4, 3, 2).transpose(2, 1, 0)
    with TensorFile(str(tmp_path / "x.npz"), ["t"]) as file:
        file.append([tensor], 0)
        file.finish()
    with np.load(tmp_path / "x.npz") as loaded:
        assert np.array_equal(loaded["t"][0], tensor)


def test_nothing_is_left_without_finish(tmp_path):
    path = str(tmp_path / "out.npz")
    with pytest.raises(KeyboardInterrupt), TensorFile(path, NAMES) as file:  # noqa: PT012
        file.append(*frames(1)[0])
        raise KeyboardInterrupt
    with TensorFile(path, NAMES) as file:
        file.append(*frames(1)[0])
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_finish_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(np.lib.format, "write_array", lambda *_: (_ for _ in ()).throw(OSError()))
    with pytest.raises(OSError), TensorFile(str(tmp_path / "x.npz"), NAMES) as file:  # noqa: PT011,PT012
        file.append(*frames(1)[0])
        file.finish()
    assert list(tmp_path.iterdir()) == []


def test_finish_needs_a_frame(tmp_path):
    with (
        pytest.raises(ValueError, match="no frame"),
        TensorFile(str(tmp_path / "x.npz"), NAMES) as file,
    ):
        file.finish()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_exists_needs_force(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError), TensorFile(str(path), NAMES) as file:  # noqa: PT012
        file.append(*frames(1)[0])
        file.finish()
    assert path.read_bytes() == b"old"
    with TensorFile(str(path), NAMES, force=True) as file:
        file.append(*frames(1)[0])
        file.finish()
    with np.load(path) as loaded:
        assert loaded["add_3"].shape == (1, 2, 1, 1)


def test_a_tensor_called_pts_is_refused(tmp_path):
    with pytest.raises(ValueError, match="pts"):
        TensorFile(str(tmp_path / "x.npz"), ["t", "pts"])


def test_standard_output(monkeypatch):
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=output))
    with TensorFile("-", NAMES) as file:
        file.append(*frames(1)[0])
        file.finish()
    with np.load(io.BytesIO(output.getvalue())) as loaded:
        assert loaded["pts"].tolist() == [-7]


@pytest.mark.parametrize("path", ["/dev/null", "-"])
def test_devices_that_seek_nowhere(monkeypatch, path):
    with open("/dev/null", "w") as device:  # noqa: PTH123 - as standard output
        monkeypatch.setattr(sys, "stdout", device)
        with TensorFile(path, NAMES) as file:
            for each in frames(3):
                file.append(*each)
            file.finish()


def test_a_full_disk_is_told_with_the_name_of_the_output(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"

    def full(**_: object) -> io.RawIOBase:
        return FullDisk()

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match="No space left") as caught, TensorFile(str(path), NAMES) as f:
        f.append(*frames(1)[0])
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


class FullDisk(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, _: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_memory_does_not_grow_with_frames(tmp_path):
    tensor = np.zeros((64, 32, 32), np.float32)  # 256 KiB
    with TensorFile(str(tmp_path / "x.npz"), ["t"]) as file:
        tracemalloc.start()
        for number in range(100):
            file.append([tensor], number)
        file.finish()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 4 << 20
