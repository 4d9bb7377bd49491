"""What people watch of a link: quantiles of latencies, speeds of totals."""

from __future__ import annotations

import pytest

pytest.importorskip("aioquic")

from codec.live.figures import Latencies, Speed


def test_quantiles_of_the_newest():
    latencies = Latencies()
    assert latencies.quantile(0.5) is None
    for number in range(1, 101):
        latencies.add(number)
    assert latencies.quantile(0.5) == 51
    assert latencies.quantile(0.95) == 96
    assert latencies.quantile(1) == 100
    for _ in range(300):
        latencies.add(7)
    assert latencies.quantile(0.95) == 7


def test_a_speed_follows_what_changes():
    speed = Speed()
    assert speed.of(0, 10.0) == 0
    for step in range(1, 41):
        found = speed.of(100 * step, 10.0 + step / 4)
    assert found == pytest.approx(400)
    for step in range(41, 52):
        found = speed.of(4000, 10.0 + step / 4)
    assert found == 0
