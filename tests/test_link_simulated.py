"""The simulated link itself: what it loses, delays and queues is what was asked for."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tools.link_study.link import Clock, Condition, Path


def carried(condition: Condition, count: int = 2000, gap: float = 0.01, seed: int = 0):
    """Send datagrams evenly; return the path and when each arrived, by number."""
    clock, arrived = Clock(), []
    path = Path(
        clock,
        condition,
        lambda content: arrived.append((int.from_bytes(content, "big"), clock.now)),
        lambda content: arrived.append((content, clock.now)),
        seed,
    )
    for number in range(count):
        clock.at(number * gap, lambda number=number: path.send(number.to_bytes(40, "big")))
    clock.run(count * gap + 10)
    return path, arrived


def test_delay_alone():
    _, arrived = carried(Condition(delay=0.05), 10)
    assert arrived == [(number, pytest.approx(number * 0.01 + 0.05)) for number in range(10)]


@pytest.mark.slow
@pytest.mark.parametrize("loss", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("burst", [1, 3, 8])
def test_losses_come_in_bursts(loss, burst):
    path, arrived = carried(Condition(loss=loss, burst=burst), 40_000)
    numbers = [number for number, _ in arrived]
    gaps = [later - earlier - 1 for earlier, later in pairwise(numbers) if later > earlier + 1]
    assert path.lost / path.sent == pytest.approx(loss, rel=0.3)
    assert sum(gaps) / len(gaps) == pytest.approx(burst, rel=0.25)


def test_jitter_reorders_and_duplicates_come_twice():
    _, arrived = carried(Condition(jitter=0.05, duplicated=0.2))
    numbers = [number for number, _ in arrived]
    assert numbers != sorted(numbers)
    assert len(numbers) - len(set(numbers)) == pytest.approx(0.2 * 2000, rel=0.2)
    assert set(numbers) == set(range(2000))


def test_a_queue_in_front_of_the_bandwidth():
    # 100 bytes with overhead every 10 ms are 80 kbit/s
    path, arrived = carried(Condition(bandwidth=40e3, queue_bytes=2000))
    assert max(delay for _, delay in path.queue_delays) == pytest.approx(0.4, abs=0.02)
    assert len(arrived) == pytest.approx(1000, rel=0.05)
    times = [at for _, at in arrived]
    assert all(later - earlier >= 0.0199 for earlier, later in pairwise(times))


def test_messages_are_whole_and_in_order_whatever_is_lost():
    clock, arrived = Clock(), []
    path = Path(clock, Condition(loss=0.4, burst=2), arrived.append, arrived.append)
    sent = [bytes([number]) * size for number, size in enumerate((5000, 1, 20_000, 0, 300))]
    for content in sent:
        path.send_message(content)
    clock.run(60)
    assert arrived == sent


def test_one_seed_one_course():
    rough = Condition(loss=0.1, burst=2, jitter=0.01)
    assert carried(rough, seed=3)[1] == carried(rough, seed=3)[1]
    assert carried(rough, seed=3)[1] != carried(rough, seed=4)[1]


def test_what_waits_has_not_been_carried():
    clock = Clock()
    path = Path(clock, Condition(bandwidth=8000), lambda _: None, lambda _: None)
    for _ in range(10):
        path.send(bytes(940))
    left = []
    for second in range(12):
        clock.run(second + 0.5)
        left.append(path.carried_bytes)
    assert left == [1000 * min(second, 10) for second in range(12)]
