"""Rate and latency over a simulated link: a source that makes as many bytes as it is allowed."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from links import Joined

from codec.link.events import FramePlan
from codec.link.least import Least
from codec.link.rate import FIRST_RATE, RateControl
from codec.link.upstream import read_from_sender
from codec.link.wire import DATAGRAM_OVERHEAD, Kind
from tools.link_study.link import Condition, Path

MEGABIT = Condition(delay=0.05, bandwidth=1e6)


def rate(link: Joined, since: float, until: float) -> float:
    """What the link carried, in bit/s."""
    link.run(since)
    before = link.up.carried_bytes
    link.run(until)
    return (link.up.carried_bytes - before) * 8 / (until - since)


def longest(link: Joined, since: float) -> float:
    return max(delay for at, delay in link.up.queue_delays if at >= since)


class Watched(Path):
    """Remembers how long frames waited: their first datagrams did, behind frames before."""

    def send(self, content: bytes) -> None:
        before = len(self.queue_delays)
        super().send(content)
        read = read_from_sender(content, datagram=True) if content[0] == Kind.FRAGMENT else None
        if read is not None and read.index == 0 and len(self.queue_delays) > before:
            self.__dict__.setdefault("waits", []).append(self.queue_delays[-1])


@pytest.mark.parametrize("phase", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("bandwidth", [2e5, 1e6])
def test_a_link_that_is_halved(bandwidth, phase, monkeypatch):
    monkeypatch.setattr("links.Path", Watched)
    link = Joined(replace(MEGABIT, bandwidth=bandwidth), bitrate=None, start=0.3)
    halved = 8 + phase
    link.run(halved)
    link.up.condition = replace(MEGABIT, bandwidth=bandwidth / 2)
    settled = rate(link, halved + 2, halved + 6)
    assert settled == pytest.approx(bandwidth / 2, rel=0.1)
    waits = [wait for at, wait in link.up.waits if at >= halved]
    assert max(waits) <= link.max_latency + 1 / link.frame_rate
    # what is behind in its own frame waits for that as well, twice as long on the link as it is now
    assert longest(link, halved) <= link.max_latency + 2 / link.frame_rate
    assert longest(link, halved + 2) < 0.7 * link.max_latency
    assert link.sender.status.key_frames == 1


class Codec(Joined):
    """A source that fills what it is allowed as a codec does: not quite, now more, now less."""

    def coded(self, plan: FramePlan, packet: bytes) -> None:
        if not plan.key:
            packet = packet[: max(int(len(packet) * self.fill.uniform(0.6, 1.0)), 20)]
            self.packets[plan.number] = packet
        super().coded(plan, packet)


@pytest.mark.parametrize(("bandwidth", "share"), [(2e5, 0.93), (8e5, 0.87)])
def test_a_codec_at_a_low_frame_rate_fills_a_link_that_is_halved(bandwidth, share):
    condition = Condition(delay=0.025, bandwidth=bandwidth)
    link = Codec(condition, bitrate=None, start=0.3, frame_rate=10)
    link.fill = random.Random(1)
    link.run(20)
    link.up.condition = replace(condition, bandwidth=bandwidth / 2)
    assert rate(link, 24, 40) > share * bandwidth / 2
    assert longest(link, 20) <= link.max_latency + 2 / link.frame_rate
    assert longest(link, 24) <= link.max_latency + 1 / link.frame_rate


def test_a_link_that_is_doubled():
    link = Joined(MEGABIT, bitrate=None, start=0.3)
    link.run(8)
    link.up.condition = replace(MEGABIT, bandwidth=2e6)
    assert rate(link, 10, 14) == pytest.approx(2e6, rel=0.1)


@pytest.mark.parametrize("loss", [0.1, 0.3])
def test_random_loss_without_delay_starves_nothing(loss):
    link = Joined(Condition(loss=loss, burst=3), bitrate=None, start=0.3, most_bytes=3000, seed=2)
    assert rate(link, 10, 20) > 0.9 * 3000 * 8 * 25
    assert link.sender.status.frames_skipped < 30
    assert link.sender.status.loss == pytest.approx(loss, abs=0.15)


def test_losses_behind_a_full_link_leave_its_rate():
    link = Joined(replace(MEGABIT, loss=0.1, burst=3), bitrate=None, start=0.3)
    assert rate(link, 8, 20) == pytest.approx(1e6, rel=0.15)
    assert longest(link, 8) <= link.max_latency


def test_jitter_is_no_queue():
    link = Joined(Condition(jitter=0.03), bitrate=None, start=0.3, most_bytes=3000)
    assert rate(link, 10, 20) > 0.9 * 3000 * 8 * 25


def test_the_ceiling_holds():
    link = Joined(Condition(), bitrate=2e5, start=0.3)
    assert rate(link, 2, 12) == pytest.approx(2e5, rel=0.05)
    assert longest(link, 2) < 0.01


class Acknowledging(Joined):
    """Over a transport that acknowledges every report."""

    acknowledgement = bytes(3)

    def down_datagram(self, content: bytes) -> None:
        self.up.send(self.acknowledgement)
        self.sender.sent_beside(len(self.acknowledgement) + DATAGRAM_OVERHEAD, self.clock.now)
        super().down_datagram(content)


@pytest.mark.parametrize("frame_rate", [10, 25])
def test_the_ceiling_holds_whatever_the_transport_adds(frame_rate):
    link = Acknowledging(Condition(), bitrate=5e4, start=0.3, frame_rate=frame_rate)
    assert rate(link, 2, 12) == pytest.approx(5e4, rel=0.05)


@pytest.mark.parametrize("bandwidth", [20e3, 60e3])
def test_what_the_transport_adds_starves_nothing(bandwidth):
    link = Acknowledging(replace(MEGABIT, bandwidth=bandwidth), bitrate=None, start=0.3)
    link.run(40)  # what the key frame queued has gone
    sent = link.sender.status.frames_sent
    link.run(60)
    assert link.sender.status.frames_sent - sent > 250
    assert longest(link, 40) < 2 * link.max_latency


def test_quality_falls_first_then_frames_are_skipped():
    """What cannot be made smaller is sent less often; nothing queues for it."""
    small = Joined(replace(MEGABIT, bandwidth=60e3), bitrate=None, start=0.3, least_bytes=100)
    large = Joined(replace(MEGABIT, bandwidth=60e3), bitrate=None, start=0.3, least_bytes=1000)
    for link in (small, large):
        link.run(30)
        assert longest(link, 10) <= link.max_latency
    sent = [link.sender.status.frames_sent for link in (small, large)]
    assert sent[0] > 0.8 * small.number
    assert 0.1 < sent[1] / large.number < 0.35
    outcomes = list(large.outcomes().values())
    assert outcomes[300:].count("skipped") + outcomes[300:].count("missing") > 0.6 * 440
    assert large.sender.status.frames_dropped == 0


def test_a_live_source_skips_before_anything_is_computed():
    link = Joined(MEGABIT, start=0.3)
    link.run(3)
    link.up.condition = replace(MEGABIT, bandwidth=2e3)
    planned = len(link.plans)
    link.run(5)
    # what had been planned was sent; hardly anything more is
    assert len(link.plans) - planned < 0.35 * 50
    assert link.sender.status.frames_skipped > 30


def test_a_stall_is_survived():
    link = Joined(MEGABIT, bitrate=None, start=0.3)
    link.run(8)
    link.up.condition = replace(MEGABIT, bandwidth=100)
    link.run(8.6)
    link.up._free_at = link.clock.now
    link.up._leaving.clear()
    link.up.condition = MEGABIT
    assert rate(link, 13, 17) == pytest.approx(1e6, rel=0.15)


def test_a_longer_route_is_taken_for_one():
    link = Joined(MEGABIT, bitrate=None, start=0.3)
    link.run(8)
    link.up.condition = replace(MEGABIT, delay=0.12)
    link.back = link.down.condition
    assert rate(link, 16, 24) > 0.65e6


@pytest.mark.parametrize("bandwidth", [None, 1e6])
def test_a_much_longer_route_starves_nothing(bandwidth):
    """Longer than all that was waited for: reports of what was given up tell of it."""
    condition = Condition(delay=0.025, bandwidth=bandwidth)
    link = Joined(condition, start=0.3, max_latency=0.1, most_bytes=1000)
    link.run(8)
    link.up.condition = replace(condition, delay=0.3)
    link.down.condition = Condition(delay=0.3)
    link.run(20)
    sent = link.sender.status.frames_sent
    link.run(40)
    assert link.sender.status.frames_sent - sent > 0.9 * 20 * link.frame_rate
    assert link.sender.status.rtt == pytest.approx(0.6, abs=0.05)


def test_a_queue_that_was_there_from_the_start_is_noticed_as_it_shrinks():
    """A key frame fills a slow link before anything is known of its delay."""
    link = Joined(replace(MEGABIT, bandwidth=60e3), bitrate=None, start=0.3, key_bytes=6000)
    assert rate(link, 10, 20) > 0.85 * 60e3
    assert longest(link, 10) < 0.6 * link.max_latency


def test_low_frame_rates():
    link = Joined(MEGABIT, bitrate=None, start=0.3, frame_rate=5)
    assert rate(link, 15, 30) > 0.6e6
    assert longest(link, 5) <= link.max_latency + 0.2


def test_the_first_rate():
    free = RateControl(bitrate=None, max_latency=0.2, frame_rate=25)
    bound = RateControl(bitrate=1e5, max_latency=0.2, frame_rate=25)
    assert (free.rate, bound.rate) == (FIRST_RATE, 1e5)


def test_the_least_of_the_recent_past():
    least = Least(10)
    assert least.value == float("inf")
    for now, value in [(0, 5.0), (3, 4.0), (9, 6.0), (12, 7.0)]:
        least.add(value, now)
    assert least.value == 4.0
    least.add(8.0, 23)
    assert least.value == 7.0
    least.add(9.0, 60)
    assert least.value == 9.0
    least.reset()
    assert least.value == float("inf")
