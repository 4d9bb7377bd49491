"""Tensors to an .npz file of any length, in constant memory.

An .npy header states the number of frames, which is known only at the end; so frames go to
temporary files beside the output, and `finish` copies those into the archive behind their headers.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from codec.files.outputs import naming, open_output
from codec.format.constants import RESERVED_NAME

__all__ = ["TensorFile"]


class TensorFile:
    """Collects frames; a context manager that leaves nothing behind unless `finish` was called.

    Raises:
        ValueError: a tensor has the name under which the time stamps are stored.
    """

    def __init__(self, path: str, names: Sequence[str], *, force: bool = False) -> None:
        if RESERVED_NAME in names:
            raise ValueError(
                f"a tensor is called {RESERVED_NAME!r}, as are the time stamps in an .npz file"
            )
        self._path, self._names, self._force = path, list(names), force
        self._shapes: list[tuple[int, ...]] = []
        self._pts: list[int] = []
        self._stack = ExitStack()
        self._files: list[BinaryIO] = []

    def __enter__(self) -> Self:
        """Open the temporary files."""
        given = Path(self._path)
        special = self._special = self._path == "-" or (given.exists() and not given.is_file())
        target = Path(os.path.realpath(given))  # a link may lead to another disk
        folder = Path(tempfile.gettempdir()) if special else target.parent
        # what fails is told of the output, or of where temporary files are for one that is no file
        self._place = str(folder) if special else self._path
        with naming(self._place):
            self._files = [
                self._stack.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 - it is
                for _ in self._names
            ]
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary files."""
        with naming(self._place):  # closing writes what is in the buffers, if there is room
            self._stack.close()

    def append(self, tensors: Sequence[NDArray[np.float32]], pts: int) -> None:
        """Add one frame: a (C, H, W) float32 array for each name."""
        self._shapes = [tensor.shape for tensor in tensors]
        for file, tensor in zip(self._files, tensors, strict=True):
            with naming(self._place):
                file.write(np.ascontiguousarray(tensor, "<f4").data)
        self._pts.append(pts)

    def finish(self) -> None:
        """Write the archive, of at least one frame."""
        if not self._pts:
            raise ValueError("no frame has been appended")
        with ExitStack() as stack:
            output: Any = stack.enter_context(open_output(self._path, force=self._force))
            sink: Any = _Onward(output) if self._special else output
            archive = stack.enter_context(zipfile.ZipFile(sink, "w"))
            for name, file, shape in zip(self._names, self._files, self._shapes, strict=True):
                with naming(self._place):
                    file.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    _write_header(member, (len(self._pts), *shape), "<f4")
                    shutil.copyfileobj(file, member, 1 << 20)
            with archive.open(f"{RESERVED_NAME}.npy", "w") as member:
                np.lib.format.write_array(member, np.array(self._pts, np.int64))


class _Onward:
    """Writes on only: devices say that they can seek but do not, and behind `>>` none should."""

    def __init__(self, file: BinaryIO) -> None:
        self.write, self.flush = file.write, file.flush


def _write_header(file: Any, shape: tuple[int, ...], dtype: str) -> None:  # noqa: ANN401 - a zip member
    np.lib.format.write_array_header_2_0(
        file, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
