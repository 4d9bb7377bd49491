"""Independent jobs with stable keys: each is done once, here or on a cluster, and its result kept.

    jobs ──► those without a result ──► processes of this machine, or a dask.distributed cluster
                      ▲                                   │ one result at a time
                      └────────── FOLDER/KEY.json ◄───────┘ temporary name, then renamed

Work killed at any point goes on where it was: what is in the folder is complete, what is not there
is done.  Keys are the jobs' own affair; two jobs of one key are the same job.

A job that raises does not stop the others; what failed is told at the end, and tried again the next
time.  On a cluster a job whose worker dies is done by another one.  The workers have to be able to
import what the job is made of, and to read the files that it names.

Not here: what a job is (`codec/planning/measurement.py`, and those of the studies).
"""

import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from tqdm import tqdm

from codec.errors import JobError
from codec.files.outputs import open_output

__all__ = ["Job", "Result", "Store", "complete"]

Result = dict[str, Any]
"""What a job returns: anything that JSON can say."""

ORPHAN_SECONDS = 1.0
"""How often a process looks whether the one that started it still lives."""
RETRIES = 1
"""How often a cluster does a job again that raised; those whose worker died are its own affair."""


class Job(Protocol):
    """A piece of work that can be sent to another process."""

    @property
    def key(self) -> str:
        """A file name without suffix, the same whenever the job is."""

    @property
    def label(self) -> str:
        """What it is, for people."""

    @property
    def group(self) -> str:
        """Jobs of one group take about equally long."""

    def run(self) -> Result:
        """Do it."""


class Store:
    """Results in a folder, one JSON file each."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"

    def __contains__(self, key: str) -> bool:
        """Tell whether a result is there."""
        return self._path(key).exists()

    def read(self, key: str, *, complete: Callable[[Result], bool] = lambda result: True) -> Result:
        """Return a result.

        Args:
            key: of its job.
            complete: tells whether all is there that such a job returns.

        Raises:
            JobError: the file is damaged.
        """
        try:
            found: object = json.loads(self._path(key).read_text(encoding="utf-8"))
        except ValueError as error:
            raise self._damaged(key, str(error)) from error
        if not (isinstance(found, dict) and complete(found)):
            raise self._damaged(key, "something is missing in it")
        return found

    def _damaged(self, key: str, why: str) -> JobError:
        return JobError(
            f"{self._path(key)}: not the JSON of a result ({why}); delete it to have it made again"
        )

    def write(self, key: str, result: Result) -> None:
        """Keep a result: all of it or nothing."""
        text = json.dumps(result, allow_nan=False, default=_plain)
        with open_output(str(self._path(key)), force=True) as file:
            file.write(text.encode())


def _plain(value: object) -> int | float | bool:
    """Turn the scalars of NumPy, which the figures of a codec often are, into Python's."""
    if not isinstance(value, np.generic):
        raise TypeError(f"{type(value).__name__} in a result: JSON has no such thing")
    found: int | float | bool = value.item()
    return found


@dataclass(slots=True)
class _Remaining:
    """Estimates the time that remains from the mean time of the jobs of each group."""

    waiting: dict[str, int]
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def note(self, group: str, seconds: float) -> None:
        self.waiting[group] -= 1
        self.seconds[group].append(seconds)

    def estimate(self, workers: int) -> str:
        known = {group: sum(found) / len(found) for group, found in self.seconds.items()}
        if not known:
            return ""
        mean = sum(known.values()) / len(known)
        total = sum(count * known.get(group, mean) for group, count in self.waiting.items())
        minutes = total / max(workers, 1) / 60
        return f"about {minutes:.0f} min left" if minutes >= 1 else "less than a minute left"


def complete(
    jobs: Sequence[Job],
    store: Store,
    *,
    workers: int = 1,
    cluster: str | None = None,
    again: Callable[[Result], bool] = lambda result: False,
    quiet: bool = False,
) -> list[str]:
    """Do the jobs whose results are missing, and keep each result as soon as it is there.

    Args:
        jobs: in the order in which to begin; those that share a clip beside each other, since a
            process keeps the last ones.
        store: where results are and go.
        workers: processes of this machine.
        cluster: address of a dask scheduler, to do the work there instead.
        again: tells of a result that is there whether its job is to be done once more.
        quiet: no progress bar.

    Returns:
        A line for each job that failed.

    Raises:
        JobError: a process died, or there is no cluster at that address.
    """
    missing = {job.key: job for job in jobs if job.key not in store or again(store.read(job.key))}
    remaining = _Remaining(defaultdict(int))
    for job in missing.values():
        remaining.waiting[job.group] += 1
    failed = []
    if not missing:
        return []
    with _results(list(missing.values()), workers, cluster) as (results, width):
        bar = tqdm(
            total=len(missing),
            unit="job",
            dynamic_ncols=True,
            disable=quiet,
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
        )
        with bar:
            for job, outcome, seconds in results:
                try:
                    if isinstance(outcome, Exception):
                        raise outcome  # noqa: TRY301 - one that cannot be kept has failed as well
                    store.write(job.key, outcome)
                except Exception as error:  # told at the end, with the job's label
                    failed.append(f"{job.label}: {_described(error)}")
                    bar.write(f"failed: {failed[-1]}", file=sys.stderr)
                remaining.note(job.group, seconds)
                bar.set_postfix_str(remaining.estimate(width()), refresh=False)
                bar.update()
    return failed


def _described(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


_Outcome = tuple[Job, Result | Exception, float]


@contextmanager
def _results(jobs: Sequence[Job], workers: int, cluster: str | None) -> Iterator[Any]:
    """Give an iterator of outcomes as they come, and a function that counts who is at work."""
    if cluster is not None:
        with _clustered(jobs, cluster) as found:
            yield found
    elif workers == 1:
        torch.set_num_threads(1)
        yield (_attempt(job) for job in jobs), lambda: 1
    else:
        with _pooled(jobs, workers) as outcomes:
            yield outcomes, lambda: workers


def _attempt(job: Job) -> _Outcome:
    start = time.perf_counter()
    try:
        outcome: Result | Exception = job.run()
    except Exception as error:  # told at the end, with the job's label
        outcome = error
    return job, outcome, time.perf_counter() - start


def _timed(job: Job) -> tuple[Result, float]:
    """Do a job on a worker of the cluster, which tells of errors itself."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    return job.run(), time.perf_counter() - start


def _begin_worker(parent: int) -> None:
    """Prepare a process: one thread, and no life after the one that started it."""
    torch.set_num_threads(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(ORPHAN_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _pooled(jobs: Sequence[Job], workers: int) -> Iterator[Iterator[_Outcome]]:
    # spawned, not forked: torch's and FFmpeg's threads do not survive a fork
    pool = ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_begin_worker, initargs=(os.getpid(),)
    )

    def outcomes() -> Iterator[_Outcome]:
        futures = [pool.submit(_attempt, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise JobError(
                "a process ended abruptly (out of memory?); what was measured is kept: the same "
                "command goes on from there, with fewer processes by -j"
            ) from error

    try:
        yield outcomes()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _clustered(jobs: Sequence[Job], address: str) -> Iterator[Any]:
    try:
        distributed: Any = import_module("distributed")  # an extra, and slow to import
    except ImportError as error:
        raise JobError(
            f"--cluster needs the extra `cluster` ({error}): pip install "
            "'latent-motion-codec[cluster]'"
        ) from error
    try:
        client = distributed.Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        raise JobError(
            f"no dask scheduler answers at {address} ({_described(error)}); start one with "
            "`dask scheduler` and workers with `dask worker ADDRESS --nthreads 1`"
        ) from error
    with client:
        futures = {
            client.submit(_timed, job, key=f"lmc-{job.key}", pure=False, retries=RETRIES): job
            for job in jobs
        }

        def outcomes() -> Iterator[_Outcome]:
            for future in distributed.as_completed(futures, loop=client.loop):
                job = futures[future]
                if future.status == "finished":
                    yield job, *future.result()
                else:
                    error = future.exception() or RuntimeError("the cluster gave the job up")
                    yield job, error, 0.0
                future.release()

        def width() -> int:
            return sum(client.nthreads().values())

        try:
            yield outcomes(), width
        finally:
            client.cancel(list(futures))
