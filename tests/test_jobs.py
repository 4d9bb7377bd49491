"""Jobs are done once and kept: here, in other processes, on a cluster, after being killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from small_jobs import SmallJob

from codec.errors import JobError
from codec.running.jobs import Store, _Remaining, complete

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def attempts(tmp_path: Path) -> Path:
    folder = tmp_path / "attempts"
    folder.mkdir()
    return folder


def counted(folder: Path) -> Counter[str]:
    return Counter(path.name.partition(".")[0] for path in folder.iterdir())


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once_and_kept(tmp_path: Path, attempts: Path, workers: int) -> None:
    jobs = [SmallJob(attempts, number) for number in range(6)]
    store = Store(tmp_path / "jobs")
    assert complete([*jobs, jobs[0]], store, workers=workers) == []
    assert [store.read(job.key)["square"] for job in jobs] == [0, 1, 4, 9, 16, 25]
    assert set(counted(attempts).values()) == {1}
    assert sorted(path.name for path in (tmp_path / "jobs").iterdir()) == [
        f"job-{number:03}.json" for number in range(6)
    ]
    assert complete(jobs, Store(tmp_path / "jobs"), workers=workers) == []
    assert set(counted(attempts).values()) == {1}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_stops_nothing_else(tmp_path: Path, attempts: Path, workers: int) -> None:
    jobs = [SmallJob(attempts, number, fails=number == 1) for number in range(4)]
    store = Store(tmp_path / "jobs")
    assert complete(jobs, store, workers=workers) == [
        "number 1: ValueError: number 1 has no answer"
    ]
    assert [job.key in store for job in jobs] == [True, False, True, True]
    assert len(complete(jobs, store, workers=workers)) == 1
    assert counted(attempts) == {"job-000": 1, "job-001": 2, "job-002": 1, "job-003": 1}


def test_a_process_that_dies_is_told_in_one_line(tmp_path: Path, attempts: Path) -> None:
    jobs = [SmallJob(attempts, 0), SmallJob(attempts, 1, dies=True)]
    with pytest.raises(JobError, match=r"ended abruptly .* goes on from there"):
        complete(jobs, Store(tmp_path / "jobs"), workers=2)


def test_a_damaged_result_names_its_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "half.json").write_text('{"square": ')
    with pytest.raises(JobError, match=r"half\.json: not the JSON of a result"):
        store.read("half")


@dataclass(frozen=True)
class ReturningJob(SmallJob):
    value: object = None

    def run(self) -> dict[str, object]:
        return {"value": self.value}


def test_a_result_that_cannot_be_kept_stops_nothing_else(tmp_path: Path, attempts: Path) -> None:
    values = (np.int64(3), np.float32(0.5), float("nan"), object(), np.True_)
    jobs = [ReturningJob(attempts, number, value=value) for number, value in enumerate(values)]
    store = Store(tmp_path / "jobs")
    failed = complete(jobs, store)
    assert [line.partition(":")[0] for line in failed] == ["number 2", "number 3"]
    kept = [store.read(job.key)["value"] for job in jobs if job.key in store]
    assert kept == [3, 0.5, True]


def test_a_result_may_be_asked_for_again(tmp_path: Path, attempts: Path) -> None:
    jobs = [SmallJob(attempts, number) for number in range(3)]
    store = Store(tmp_path / "jobs")
    complete(jobs, store)
    assert complete(jobs, store, again=lambda result: result["square"] == 4) == []
    assert counted(attempts) == {"job-000": 1, "job-001": 1, "job-002": 2}


def test_results_that_are_no_numbers_are_refused_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        store.write("bad", {"kl": float("nan")})
    assert "bad" not in store


def test_the_estimate_follows_the_groups() -> None:
    remaining = _Remaining({"even": 3, "odd": 2})
    assert remaining.estimate(1) == ""
    remaining.note("even", 120)  # two of these are left, and two of which nothing is known
    assert remaining.estimate(1) == "about 8 min left"
    assert remaining.estimate(4) == "about 2 min left"
    remaining.note("odd", 30)
    assert remaining.estimate(1) == "about 4 min left"


KILLED = """
from pathlib import Path
from small_jobs import SmallJob
from codec.running.jobs import Store, complete

if __name__ == "__main__":
    jobs = [SmallJob(Path({attempts!r}), number, seconds=0.1) for number in range(40)]
    complete(jobs, Store(Path({store!r})), workers={workers})
"""


def environment() -> dict[str, str]:
    paths = (str(ROOT), str(ROOT / "tests"))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def wait_for(condition: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_started_again_nothing_is_lost(
    tmp_path: Path, attempts: Path, workers: int
) -> None:
    folder = tmp_path / "jobs"
    script = tmp_path / "study.py"
    script.write_text(KILLED.format(attempts=str(attempts), store=str(folder), workers=workers))
    run = subprocess.Popen(
        [sys.executable, str(script)],
        env=environment(),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(lambda: folder.exists() and len(list(folder.glob("*.json"))) >= 5)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    kept = sorted(folder.glob("*.json"))
    assert 5 <= len(kept) < 40
    for path in kept:
        assert json.loads(path.read_text()).keys() == {"square"}
    before = counted(attempts)

    jobs = [SmallJob(attempts, number) for number in range(40)]
    assert complete(jobs, Store(folder)) == []
    again = counted(attempts) - before
    assert set(again) == {job.key for job in jobs} - {path.stem for path in kept}
    assert set(again.values()) == {1}


# --- on a cluster -----------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and two workers, each a process of its own; gives its address and the workers."""
    pytest.importorskip("distributed", reason="needs the extra `cluster`")
    contact = tmp_path / "scheduler.json"
    command = [sys.executable, "-m", "dask"]
    common = ["--scheduler-file", str(contact), "--no-dashboard"]
    with ExitStack() as stack:

        def start(*arguments: str) -> subprocess.Popen[bytes]:
            started = subprocess.Popen(
                [*command, *arguments],
                cwd=tmp_path,
                env=environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(started.wait)
            stack.callback(started.kill)
            return started

        start("scheduler", "--host", "127.0.0.1", "--port", "0", *common)
        wait_for(contact.exists)
        workers = [
            start("worker", "--nthreads", "1", "--no-nanny", "--name", name, *common)
            for name in ("first", "second")
        ]
        yield json.loads(contact.read_text())["address"], workers


@pytest.mark.slow
def test_a_cluster_loses_a_worker_and_no_job(
    tmp_path: Path, attempts: Path, cluster: tuple[str, list[subprocess.Popen[bytes]]]
) -> None:
    import threading

    address, workers = cluster
    jobs = [SmallJob(attempts, number, seconds=0.2, fails=number == 7) for number in range(40)]
    store = Store(tmp_path / "jobs")
    victim: list[int] = []

    def kill_one() -> None:
        wait_for(lambda: len(list((tmp_path / "jobs").glob("*.json"))) >= 8)
        workers[0].kill()
        workers[0].wait()
        victim.append(len(list((tmp_path / "jobs").glob("*.json"))))

    killer = threading.Thread(target=kill_one)
    killer.start()
    failed = complete(jobs, store, cluster=address)
    killer.join()
    assert victim[0] < 39, "the worker was killed too late to matter"
    assert failed == ["number 7: ValueError: number 7 has no answer"]
    assert [store.read(job.key)["square"] for job in jobs if job.number != 7] == [
        job.number**2 for job in jobs if job.number != 7
    ]
    # what a worker held when it died was done once more, the rest once
    assert sum(counted(attempts).values()) <= 40 + 1 + 2


def test_no_cluster_there_is_told_in_one_line(tmp_path: Path, attempts: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="needs the extra `cluster`")
    import dask

    del distributed
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(JobError, match=r"no dask scheduler answers at tcp://127\.0\.0\.1:9"),
    ):
        complete([SmallJob(attempts, 0)], Store(tmp_path), cluster="tcp://127.0.0.1:9")
