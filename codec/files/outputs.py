"""Output files: whole or absent, never an input, and named by every error.

    check_outputs ─► before any work: may all outputs be written, is none of them an input?
    open_output   ─► a hidden file beside the output, renamed when all went well
    temporary_folder ─► what a command keeps while it works
    ended_by_signals ─► around a command: a signal ends it, and nothing temporary stays
    told_of_signals  ─► around what a signal may ask to come to its end by itself

Knows names and bytes, nothing of what is written.  `open_output` alone leaves signals as they are,
which are a program's own affair; so a process that is killed outright leaves the hidden file.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, cast

if TYPE_CHECKING:
    from socket import socket

__all__ = [
    "STANDARD_OUTPUT",
    "check_output",
    "check_outputs",
    "ended_by_signals",
    "named",
    "naming",
    "one_line",
    "open_output",
    "standard_stream",
    "temporary_folder",
    "told_of_signals",
]

STANDARD_OUTPUT = "standard output"
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU")
"""What people, terminals, shells and batch systems end a command with."""
PATIENCE = 1.0
"""Seconds that an ending waits for a temporary file that is just being made."""

_told: list[Callable[[], object]] = []
"""Who is told of the next signal, in place of an end."""
_temporaries: set[Path] = set()
_making = threading.Lock()
"""Held while a temporary file or folder comes into being, or a file gets its final name."""


# --- before any work ------------------------------------------------------------------------------


def check_outputs(
    outputs: Mapping[str, str | None],
    inputs: Iterable[tuple[str, str | Path | None]] = (),
    *,
    force: bool,
) -> None:
    """Refuse outputs that could not be written, that are an input, or that are one file.

    Files are the same whatever they are called: through links, and redirected to standard input or
    output.

    Args:
        outputs: what each is called on the command line -> its path, "-" or None.
        inputs: the same of what is read.
        force: outputs may exist.

    Raises:
        ValueError: two of them are one file.
        OSError: one of them cannot be written.
    """
    taken = {
        found: (label, str(path))
        for label, path in inputs
        if path is not None and (found := _identity(str(path), "stdin")) is not None
    }
    written: dict[object, str] = {}
    # results are printed there too, and `>>` to an input would write behind what is being read
    implicit = {} if "-" in outputs.values() else {STANDARD_OUTPUT: "-"}
    for label, path in {**outputs, **implicit}.items():
        found = None if path is None else _identity(path, "stdout")
        if found is None:
            continue
        shown = STANDARD_OUTPUT if path == "-" else f"{label} {path!r}"
        if found in taken:
            other, source = taken[found]
            source = "from standard input" if source == "-" else repr(source)
            raise ValueError(
                f"{shown} is the same file as {other} {source}, which would be destroyed; "
                "name another output"
            )
        if found in written:
            raise ValueError(f"{written[found]} and {label} both name {path!r}")
        written[found] = label
    if "-" in outputs.values():
        standard_stream("stdout")
    for path in outputs.values():
        if path is not None:
            check_output(path, force=force)


def _identity(path: str, standard: str) -> object:
    """Return what two names of one file have in common; None for a device, or what is no file."""
    try:
        if path == "-":
            status = os.fstat(getattr(sys, standard).fileno())
            if not stat.S_ISREG(status.st_mode):
                return "-", standard
        else:
            status = os.stat(path)  # noqa: PTH116 - of bytes that a Path would refuse too
    except (AttributeError, OSError, ValueError):  # closed, or replaced by what is no file
        if path == "-":
            return "-", standard
        target = Path(os.path.realpath(path))
        with suppress(OSError):
            parent = target.parent.stat()
            return parent.st_dev, parent.st_ino, target.name
        return str(target)
    if stat.S_ISCHR(status.st_mode):
        return None
    return status.st_dev, status.st_ino


def check_output(path: str, *, force: bool) -> None:
    """Refuse, before any work is done, an output that could not be written at the end."""
    if path == "-":
        return
    given = Path(path)
    if given.is_dir() or path.endswith(("/", os.sep)) or not path:
        raise IsADirectoryError(f"{path or repr(path)}: is a directory; name a file")
    if given.is_file() and not force:  # devices and named pipes exist to be written to
        raise FileExistsError(f"{path}: exists; pass --force to overwrite it")
    if _is_special(given):
        if not os.access(given, os.W_OK):
            raise PermissionError(f"{path}: cannot be written to")
        return
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"{path}: the folder {target.parent} cannot be written to")


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file()


def standard_stream(name: str) -> BinaryIO:
    """Return the bytes of "stdin" or "stdout".

    Raises:
        OSError: it is closed.
    """
    stream = getattr(sys, name)
    if stream is None:
        raise OSError(errno.EBADF, "is closed", f"standard {name.removeprefix('std')}put")
    return cast(BinaryIO, stream.buffer)


# --- errors that say which file -------------------------------------------------------------------


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Give errors of the system the name of the file, which those of a full disk lack, and others
    have only as that of a temporary file.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a text of our own, or of the io module
            raise
        raise OSError(error.errno, error.strerror, name) from error


class _Named:
    """A file whose every method raises errors with its name."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name

    def __enter__(self) -> _Named:
        return self

    def __exit__(self, *_: object) -> None:
        with naming(self._name):
            self._file.close()

    def __getattr__(self, attribute: str) -> Any:  # noqa: ANN401 - whatever the file has
        found = getattr(self._file, attribute)
        if not callable(found):
            return found

        def call(*arguments: object) -> object:
            with naming(self._name):
                return found(*arguments)

        return call


def named(file: BinaryIO, name: str) -> BinaryIO:
    """Return the same file, whose errors tell its name."""
    return cast(BinaryIO, _Named(file, name))


def one_line(error: Exception) -> str:
    """Return what an error of ours or of the system says, with the file's name."""
    if isinstance(error, OSError) and error.errno is not None and error.strerror is not None:
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return f"{place}{error.strerror.lower()}"
    return " ".join(str(error).split())


# --- writing --------------------------------------------------------------------------------------


@contextmanager
def open_output(path: str, *, force: bool = False) -> Iterator[BinaryIO]:
    """Open a binary file that appears under its name only when all went well; "-" is standard
    output.

    Raises:
        FileExistsError: it is there already, or at the end, and `force` is not set.
    """
    if path == "-":
        output = named(standard_stream("stdout"), STANDARD_OUTPUT)
        yield output
        output.flush()
        return
    check_output(path, force=force)
    given = Path(path)
    if _is_special(given):
        with naming(path):
            file: BinaryIO = given.open("wb")
        with named(file, path) as output:
            yield output
        return
    target = Path(os.path.realpath(path))  # a link stays one, and the file it names is replaced
    with naming(path), _making:
        descriptor, hidden = tempfile.mkstemp(prefix=".lmc-", suffix=".part", dir=target.parent)
        temporary = Path(hidden)
        _temporaries.add(temporary)
    try:
        with named(os.fdopen(descriptor, "wb"), path) as output:
            yield output
        with naming(path), _making:
            temporary.chmod(0o666 & ~_umask())
            _put(temporary, target, force=force)
    finally:
        with suppress(OSError):  # where the folder has gone, so has the file
            temporary.unlink(missing_ok=True)
        _temporaries.discard(temporary)


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Make a folder that is removed with all that is in it, however its use ends."""
    with _making:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        _temporaries.add(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _temporaries.discard(folder)


def _put(temporary: Path, target: Path, *, force: bool) -> None:
    """Give a file its final name; without `force` only one that nothing else has taken since."""
    if not force:
        try:
            os.link(temporary, target)  # unlike a rename, this never replaces
        except (AttributeError, OSError):  # there may be no links here, as on a memory card
            if target.exists():
                raise FileExistsError(
                    f"{target}: appeared while it was being made; pass --force to overwrite it"
                ) from None
        else:
            return
    temporary.replace(target)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# --- signals --------------------------------------------------------------------------------------


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let signals end the process at once, status 128 + number, after removing what is temporary.

    A thread does it: Python's own handlers wait for the main thread to come back from C, which may
    take as long as the network or a reader of a pipe likes.  What is ignored stays so, as under
    nohup.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what signals do
        return
    from socket import socketpair  # noqa: PLC0415 - not for those who only write a file

    reading, writing = socketpair()
    writing.setblocking(False)
    before: dict[int, Any] = {}
    for name in SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
            before[number] = signal.signal(number, lambda *_: None)
    descriptor = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading, frozenset(before)), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, action in before.items():
            signal.signal(number, action)
        writing.close()  # at which the thread ends


@contextmanager
def told_of_signals(tell: Callable[[], object]) -> Iterator[None]:
    """Within `ended_by_signals`, let the first signal call `tell`, from another thread; the next
    one ends the process.
    """
    _told.append(tell)
    try:
        yield
    finally:
        with suppress(ValueError):  # it has been told
            _told.remove(tell)


def _watch(reading: socket, ends: frozenset[int]) -> None:
    with reading:
        while number := reading.recv(1):
            if number[0] not in ends:
                continue
            if not _told:
                _end(number[0])
            _told.pop()()


def _end(number: int) -> NoReturn:
    _making.acquire(timeout=PATIENCE)  # and never released: no file appears from here on
    for temporary in tuple(_temporaries):
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with suppress(OSError):
                temporary.unlink()
    with suppress(OSError):
        os.write(2, f"lmc: ended by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)
