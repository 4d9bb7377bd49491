"""Iterators that run ahead of whoever takes their items."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.pipeline.stages import ahead

CLIP = Path(__file__).resolve().parent.parent / "bitstreams" / "clip" / "car_24.mp4"


def stages() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "stage"]


@settings(max_examples=20)
@given(st.lists(st.integers()), st.integers(1, 4))
def test_items_come_in_order(items, depth):
    with ahead((item for item in items), depth) as taken:
        assert list(taken) == items
    assert stages() == []


def test_what_is_made_ahead_is_bounded():
    made = []

    def counted() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    with ahead(counted(), 3) as taken:
        for number in taken:
            time.sleep(0.002)
            assert len(made) <= number + 1 + 3 + 2  # waiting, being put, being made
            if number == 20:
                break
    assert len(made) < 30
    assert stages() == []


def test_an_error_comes_behind_the_items_before_it():
    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("no third")

    with ahead(failing()) as taken:
        assert [next(taken), next(taken)] == [1, 2]
        with pytest.raises(ValueError, match="no third"):
            next(taken)
    assert stages() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, GeneratorExit])
def test_whoever_leaves_ends_the_stage(error):
    closed = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield len(closed)
        finally:
            closed.append(threading.current_thread().name)

    def leave() -> None:
        with ahead(endless(), 1) as taken:
            next(taken)
            raise error

    with pytest.raises(error):
        leave()
    assert closed == ["stage"]  # by the thread that advanced it
    assert stages() == []


def test_an_abandoned_generator_ends_its_stage():
    def numbers() -> Iterator[int]:
        with ahead(number for number in range(1000)) as taken:
            yield from taken

    some = numbers()
    assert next(some) == 0
    assert len(stages()) == 1
    some.close()
    assert stages() == []


def test_stages_run_side_by_side():
    """Each waits for the other: one thread alone would wait for ever."""
    second, first = threading.Event(), threading.Event()

    def waiting() -> Iterator[int]:
        yield 0
        first.set()
        assert second.wait(10)
        yield 1

    with ahead(waiting()) as taken:
        assert next(taken) == 0
        assert first.wait(10)
        second.set()
        assert list(taken) == [1]


def test_turns_are_short_while_any_stage_runs():
    before = sys.getswitchinterval()
    with ahead(number for number in range(3)) as outer:
        assert sys.getswitchinterval() < before
        with ahead(number for number in range(3)) as inner:
            assert list(inner) == [0, 1, 2]
        assert sys.getswitchinterval() < before
        assert list(outer) == [0, 1, 2]
    assert sys.getswitchinterval() == before


def test_a_switch_interval_that_is_set_meanwhile_stays():
    before = sys.getswitchinterval()
    try:
        with ahead(number for number in range(3)) as taken:
            next(taken)
            sys.setswitchinterval(0.02)
        assert sys.getswitchinterval() == pytest.approx(0.02)
    finally:
        sys.setswitchinterval(before)


@pytest.mark.slow
def test_a_program_may_end_in_the_midst_of_a_video(tmp_path):
    script = (
        "import codec, sys\n"
        "packets = iter(codec.VideoEncoder(sys.argv[1], codec.VideoOptions(weights='random:0')))\n"
        "next(packets)\n"
    )
    for _ in range(3):
        found = subprocess.run(
            [sys.executable, "-c", script, str(CLIP)], capture_output=True, text=True, check=False
        )
        assert (found.returncode, found.stderr) == (0, "")
