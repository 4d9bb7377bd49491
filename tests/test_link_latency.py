"""Latency in times of one frame's computing."""

from __future__ import annotations

import pytest

from tools.link_study.latency import Times, multiples

TIMES = Times(edge=0.01, coding=0.02, decoding=0.005, cloud=0.015)


def of(latencies: dict[int, float], times: Times = TIMES) -> list[float] | None:
    return multiples(latencies, times, delay=0.05, frame_rate=25.0)


def test_frames_that_do_not_wait_take_one():
    assert of(dict.fromkeys(range(5), 0.05)) == [pytest.approx(1.0)] * 5


def test_what_waits_counts_and_so_do_frames_that_wait_for_one_another():
    # 0 is sent again; 1 and 2 come with it, and the cloud takes one after another
    found = of({0: 0.15, 1: 0.11, 2: 0.07, 3: 0.05})
    assert found == [
        pytest.approx((0.05 + wait) / 0.05) for wait in (0.1, 0.06 + 0.015, 0.02 + 0.03, 0.025)
    ]


def test_a_stage_that_is_slower_than_the_source_has_no_multiple():
    assert of({0: 0.05}, Times(0.05, 0.01, 0.01, 0.01)) is None
