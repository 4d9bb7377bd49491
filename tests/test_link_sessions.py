"""Sender and receiver over a simulated link, in virtual time: what arrives, what is concealed, and
how a broken chain, a vanished sender and a restarted receiver are mended.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from links import HEADER, TOKEN, Joined

from codec.link.door import Door
from codec.link.downstream import FrameReport, read_from_receiver
from codec.link.events import Acked, Ended, Frame, Lost, Missing, Opened, Skipped, Welcomed
from codec.link.mending import KEPT
from codec.link.receiver import HELD_BYTES, HELD_FRAMES, ReceiverSession
from codec.link.sender import SILENCE, SenderSession
from codec.link.upstream import Bye, Fragment, FrameHead, Header, Hello, WholeFrame
from codec.link.wire import LINK_VERSION
from tools.link_study.link import Condition

QUIET = Condition(delay=0.05)


def test_no_loss_every_frame_in_order_from_the_frame_before():
    link = Joined(QUIET, start=0.5)
    link.run(10)
    outcomes = link.outcomes()
    assert set(outcomes.values()) == {"frame"}
    assert len(outcomes) > 230
    assert [frame.number for _, frame in link.delivered] == list(outcomes)
    for number in outcomes:
        assert link.plans[number].reference_number == (number - 1 if number else None)
    assert link.events[0] == Opened(HEADER)
    assert link.sender.status.key_frames == 1
    assert link.sender.status.rtt == pytest.approx(0.1, abs=0.002)


def test_clocks_need_not_agree():
    links = [Joined(replace(QUIET, jitter=0.01), offset=offset) for offset in (0.0, 1e6)]
    for link in links:
        link.run(5)
    assert links[0].outcomes() == links[1].outcomes()
    first, second = (link.sender.status for link in links)
    assert first.rtt == pytest.approx(second.rtt)
    assert first.frames_acked == second.frames_acked


def test_a_frame_is_told_when_it_was_captured_on_the_receivers_clock():
    link = Joined(QUIET, start=0.5, coding=0.03)
    link.run(3)
    for at, frame in link.delivered[5:]:
        captured = link.plans[frame.number].captured
        assert frame.captured_at == pytest.approx(captured + 0.05 + link.offset, abs=0.002)
        assert at == pytest.approx(captured + 0.08, abs=0.01)


def test_what_is_being_decoded_is_not_given_up():
    link = Joined(QUIET, start=0.5, coding=0.02, decoding=0.035)
    link.run(10)
    assert set(link.outcomes().values()) == {"frame"}
    assert link.sender.status.frames_lost == 0
    for plan in link.plans.values():
        assert plan.reference_number == (plan.number - 1 if plan.number else None)


GONE = replace(QUIET, loss=1 - 1e-9, burst=1e9)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("lost", [1, 3])
def test_what_is_lost_is_sent_again_in_time(lost, parts):
    link = Joined(QUIET, start=0.5, most_bytes=1000 * parts)
    link.run(4)
    link.up.condition = GONE
    link.run(4 + lost / 25)
    link.up.condition = QUIET
    link.run(6)
    assert set(link.outcomes().values()) == {"frame"}
    assert link.sender.status.datagrams_again == link.up.lost == lost * parts
    assert link.receiver.status.refused == {}
    for plan in link.plans.values():
        assert plan.reference_number == (plan.number - 1 if plan.number else None)


def test_what_was_on_its_way_after_all_is_not_sent_again():
    link = Joined(QUIET, start=0.5, most_bytes=400)
    link.run(4.01)
    link.stopped = True
    now, feedback = link.clock.now, link.receiver._feedback(link.receiver_now)
    newest = feedback.report.decoded
    parts = {n: k.parts.values() for n, k in link.sender._mending._frames.items() if n > newest}
    under_way = [part for each in parts.values() for part in each]
    assert under_way
    link.sender._pacer.again(under_way, now)
    link.sender._references.reported(FrameReport(newest + 9, newest + len(parts), (1 << 30) - 1))
    assert not link.sender.pull(now).datagrams
    assert link.sender.status.frames_dropped == 0


def test_nothing_is_waited_for_but_what_a_later_frame_needs():
    receiver = said()
    deliver(receiver, [])
    _, *rest = datagrams(3, 1)
    assert not [event for content in rest for event in receiver.datagram(content, 0.12)]
    assert not receiver.poll(0.23)
    free = Fragment(9, 0, FrameHead(4, 0, 0, 0), 0, 1, b"predicted from the key frame").to_bytes()
    events = [*receiver.datagram(free, 0.23), *receiver.poll(0.255)]  # patience
    assert [*map(type, events)] == [Missing, Missing, Missing, Frame]
    assert receiver.status.undecodable == 2


def test_too_long_a_gap_is_given_up_for_an_older_reference():
    """Half a second: what comes then is predicted from what is known to be there."""
    link = Joined(QUIET, start=0.5, most_bytes=400)
    link.run(4)
    link.up.condition = GONE
    link.run(4.8)
    link.up.condition = QUIET
    link.run(7)
    outcomes = link.outcomes()
    first = next(number for number, outcome in outcomes.items() if outcome != "frame")
    back = next(n for n, outcome in outcomes.items() if n > first and outcome == "frame")
    assert (back - first) / 25 < 0.8 + SILENCE + 0.1
    assert link.plans[back].reference_number == first - 1
    assert {outcomes[number] for number in range(back + 5, max(outcomes))} == {"frame"}
    assert link.sender.status.key_frames == 1
    assert link.sender.status.datagrams_again < 25  # where nothing arrives, nothing is repeated


@pytest.mark.parametrize(
    ("loss", "delay", "acknowledged_only", "least"),
    [(0.1, 0.05, False, 0.93), (0.3, 0.05, False, 0.7), (0.1, 0.2, True, 0.83)],
)
def test_losses_in_bursts_never_take_a_key_frame(loss, delay, acknowledged_only, least):
    """Where what is sent again comes too late, frames are predicted from acknowledged ones."""
    condition = Condition(delay=delay, loss=loss, burst=3)
    link = Joined(condition, start=0.5, most_bytes=900, seed=1)
    link.run(60)
    outcomes = list(link.outcomes().values())
    status = link.sender.status
    assert status.key_frames == 1
    assert status.acknowledged_only == acknowledged_only
    assert outcomes.count("frame") / len(outcomes) > least
    assert outcomes.count("skipped") < 0.05 * len(outcomes)
    assert status.datagrams_again <= link.up.lost  # nothing but what was lost
    assert link.receiver.status.refused.keys() <= {"outdated"}
    known = status.frames_acked + status.frames_lost
    assert known >= status.frames_sent - 20


def test_a_few_losses_leave_prediction_from_the_frame_before():
    link = Joined(replace(QUIET, loss=0.002), start=0.5, most_bytes=900, seed=1)
    link.run(40)
    assert not link.sender.status.acknowledged_only
    ages = [p.number - p.reference_number for p in link.plans.values() if not p.key]
    assert ages.count(1) > 0.98 * len(ages)


def test_events_of_the_sender_tell_each_frame_once():
    link = Joined(replace(QUIET, loss=0.05, burst=2), start=0.5)
    link.run(20)
    told = [event.number for event in link.sender_events if isinstance(event, Acked)]
    assert len(set(told)) == len(told) == link.sender.status.frames_acked
    assert {event.number for event in link.sender_events if isinstance(event, Lost)}
    assert set(told) == {frame.number for _, frame in link.delivered if frame.number <= max(told)}


def test_a_source_that_ends_is_told_whole():
    link = Joined(replace(QUIET, loss=0.1), start=0.5)
    link.run(3)
    link.stopped = True
    link.sender.finish()
    link.pull_sender()
    link.run(5)
    assert isinstance(link.events[-1], Ended)
    end = link.events[-1].end
    assert end == link.sender.status.frames_sent
    assert set(range(end)) <= set(link.outcomes())


class EveryFrame(Joined):
    """Of a source that waits until the link and the other end take another frame."""

    window, count = 8, 100

    def capture(self) -> None:
        now, sender = self.clock.now, self.sender
        if self.number < self.count and sender.under_way < self.window and sender.room(now):
            super().capture()
        else:
            self.clock.at(now + 0.005, self.capture)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("loss", "burst"), [(0.1, 3), (0.3, 1), (0.3, 3)])
def test_where_every_frame_counts_all_arrive_however_many_are_lost(loss, burst, seed):
    condition = Condition(delay=0.025, loss=loss, burst=burst)
    link = EveryFrame(condition, bitrate=None, max_latency=60.0, most_bytes=1000, seed=seed)
    link.run(60)
    assert link.sender.status.frames_acked == link.count


# --- connections that break -----------------------------------------------------------------------


def test_a_sender_that_vanishes_resumes_without_a_key_frame():
    link = Joined(replace(QUIET, loss=0.05), start=0.5)
    link.run(3)
    session = link.receiver
    link.drop()
    link.run(5)
    link.connect()
    link.run(8)
    assert link.receiver is session
    assert Welcomed(resumed=True) in link.sender_events
    assert link.sender.status.key_frames == 1
    assert len(link.of(Opened)) == 1
    outcomes = link.outcomes()
    away = [outcomes[number] for number in range(80, 110)]
    assert set(away) == {"skipped"}
    assert [outcomes[number] for number in range(125, 180)].count("frame") > 20


def test_a_connection_that_goes_before_the_header_came_begins_anew():
    receiver = ReceiverSession(Hello(LINK_VERSION, TOKEN, bytes(16), 400, 0), 0.0, max_latency=0.2)
    receiver.disconnect()
    receiver.resume(Hello(LINK_VERSION, TOKEN, bytes(16), 400, 3), 1.0)
    (welcome,) = receiver.pull(1.0).messages
    assert not read_from_receiver(welcome, datagram=False).resumed
    assert receiver.message(Header(HEADER).to_bytes(), 1.1) == [Opened(HEADER)]


def test_a_restarted_receiver_gets_the_header_and_a_key_frame():
    link = Joined(QUIET, start=0.5)
    link.run(3)
    link.drop()
    link.door = Door(TOKEN, max_latency=0.2)
    link.receiver, link.events, link.slots = None, [], {}
    link.connect()
    link.run(5)
    assert link.events[0] == Opened(HEADER)
    assert link.delivered[-1][1].number > 105
    keys = [plan.number for plan in link.plans.values() if plan.key]
    assert len(keys) == 2
    assert keys[1] > 60


def test_what_was_coded_for_a_connection_that_is_gone_is_not_sent_on_the_next():
    link = Joined(QUIET, start=0.5)
    link.run(2)
    plan = link.sender.next_frame(link.clock.now, 10_000)
    link.drop()
    link.door = Door(TOKEN, max_latency=0.2)
    link.receiver, link.events, link.slots, link.stopped = None, [], {}, True
    link.connect()
    link.run(3)
    link.sender.frame(plan, b"predicted from what nobody has", 3)
    assert not link.sender.pull(3).datagrams
    assert link.sender.status.frames_dropped == 1


def test_a_decoder_that_lost_everything_is_given_a_key_frame():
    link = Joined(QUIET, start=0.5)
    link.run(3)
    link.receiver.need_key()
    link.run(5)
    keys = [plan.number for plan in link.plans.values() if plan.key]
    assert len(keys) == 2
    assert link.delivered[-1][1].number > 105


class Undecodable(Joined):
    """To a decoder that fails at key frames, up to a number."""

    last = 60

    def take(self, events) -> None:
        for event in events:
            if isinstance(event, Frame) and event.key and event.number < self.last:
                self.events.append(event)
                self.receiver.need_key()
                self.take(self.receiver.decoded(event.number, False, self.receiver_now))
            else:
                super().take([event])


def test_a_key_frame_that_cannot_be_decoded_is_followed_by_another():
    link = Undecodable(QUIET, start=0.5)
    link.run(8)
    keys = [plan.number for plan in link.plans.values() if plan.key]
    assert 2 <= len(keys) <= 4
    assert link.sender.status.frames_acked > 90
    assert not link.receiver._wants_key


def test_a_key_frame_that_takes_long_is_waited_for():
    link = Joined(replace(QUIET, bandwidth=30e3), bitrate=30e3, start=0.5)
    link.run(5)
    link.key_bytes = 12_000
    link.receiver.need_key()
    link.run(9.5)
    assert link.sender.status.key_frames == 2
    assert not link.receiver._wants_key


def test_a_silent_receiver_is_only_probed():
    link = Joined(QUIET, start=0.5)
    link.run(3)
    link.down.closed = True
    sent = link.sender.status.frames_sent
    link.run(13)
    assert link.sender.status.frames_sent - sent < 60


# --- datagrams in any order -----------------------------------------------------------------------


def said(*, first: int = 0, interval: int = 400) -> ReceiverSession:
    hello = Hello(LINK_VERSION, TOKEN, bytes(16), interval, first)
    receiver = ReceiverSession(hello, 0.0, max_latency=0.2)
    receiver.message(Header(HEADER).to_bytes(), 0.0)
    receiver.pull(0.0)
    return receiver


def datagrams(count: int, parts: int = 2) -> list[bytes]:
    """Frames 1 … count, each predicted from the one before, in `parts` parts."""
    out = []
    for number in range(1, count + 1):
        head = FrameHead(number, number - 1, 0, 0)
        for index in range(parts):
            part = Fragment(len(out), 0, head, index, parts, bytes([number, index, 1]))
            out.append(part.to_bytes())
    return out


def deliver(receiver: ReceiverSession, contents: list[bytes]) -> list[object]:
    events: list[object] = []
    key = WholeFrame(FrameHead(0, None, 0, 0), b"key").to_bytes()
    for content, datagram in [(key, False)] + [(content, True) for content in contents]:
        take = receiver.datagram if datagram else receiver.message
        for event in take(content, 0.1):
            events.append(event)
            if isinstance(event, Frame):
                events += receiver.decoded(event.number, True, 0.1)
    return events


@given(st.data())
def test_order_and_repetition_change_nothing(data):
    contents = datagrams(12)
    order = data.draw(st.permutations(contents))
    again = data.draw(st.lists(st.sampled_from(contents), max_size=20))
    for content in again:
        order.insert(data.draw(st.integers(0, len(order))), content)
    receiver = said(interval=1)
    events = deliver(receiver, order)
    assert [event.number for event in events] == list(range(13))
    assert [event.packet for event in events] == [
        event.packet for event in deliver(said(), contents)
    ]
    assert receiver.status.refused == ({"repeated": len(again)} if again else {})


@pytest.mark.parametrize("seed", range(3))
def test_jitter_duplicates_and_reordering_lose_nothing(seed):
    rough = Condition(delay=0.05, jitter=0.015, duplicated=0.3)
    link = Joined(rough, start=0.5, frame_rate=100, bitrate=3e6, seed=seed)
    link.run(10)
    outcomes = list(link.outcomes().values())
    assert outcomes.count("missing") <= 2  # before it is known how late datagrams come
    assert link.sender.status.datagrams_again <= 5  # likewise
    assert link.receiver.status.refused["repeated"] > 100


# --- hostile peers --------------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=40)), max_size=30), st.integers(0, 1))
def test_any_bytes_are_events_or_counted_refusals(pieces, side):
    receiver, link = said(), Joined(QUIET)
    link.run(0.4)
    sender: SenderSession = link.sender
    for number, (datagram, piece) in enumerate(pieces):
        now = 0.5 + 0.01 * number
        session = receiver if side else sender
        before = session.status.refused.total()
        kinds = b"\x41\xc1\x03\x04\x81\x83"
        content = kinds[number % 6 :][:1] + piece if number % 2 else piece
        events = (session.datagram if datagram else session.message)(content, now)
        assert events or session.status.refused.total() in (before, before + 1)
        session.pull(now)
        time = session.next_time(now)
        assert time is None or time >= now
    assert receiver._held.size <= HELD_BYTES


def flood(receiver: ReceiverSession, count: int, make) -> None:
    for number in range(count):
        receiver.datagram(make(number), 0.1 + number * 1e-5)


def test_a_flood_is_held_in_bounded_memory():
    receiver = said()
    flood(
        receiver,
        20_000,
        lambda n: Fragment(n, 1000, FrameHead(n + 1, n, 0, 0), 0, 255, bytes(1100)).to_bytes(),
    )
    assert len(receiver._held._partial) <= HELD_FRAMES
    assert receiver._held.size <= HELD_BYTES
    assert len(receiver._arrivals._known) <= 4096
    assert len(receiver._heard) <= 256


def test_a_key_frame_finds_room_among_what_waits_for_it():
    receiver = said()
    for content in datagrams(HELD_FRAMES + 10, 1):
        receiver.datagram(content, 0.1)
    events = receiver.message(WholeFrame(FrameHead(0, None, 0, 0), b"key").to_bytes(), 0.2)
    assert isinstance(events[0], Frame)
    assert events[0].key
    assert len(receiver._held.whole) <= HELD_FRAMES


def test_claims_of_any_size_are_refused():
    receiver = said()
    far = FrameHead(1 << 40, None, 0, 0)
    receiver.datagram(Fragment(0, 0, far, 0, 1, b"x").to_bytes(), 0.1)
    receiver.message(WholeFrame(far, b"x").to_bytes(), 0.1)
    receiver.message(Bye(1 << 40).to_bytes(), 0.1)
    assert receiver.status.refused == {"out of range": 3}
    receiver.message(WholeFrame(FrameHead(0, None, 0, 0), bytes(2 << 20)).to_bytes(), 0.1)
    receiver.message(bytes(1 << 25), 0.1)
    assert receiver.status.refused["oversize"] == 2


def test_a_leap_of_numbers_is_no_loop():
    receiver = said()
    deliver(receiver, [])
    leap = Fragment(0, 0, FrameHead(900_000, 0, 0, 0), 0, 1, b"x").to_bytes()
    events = [*receiver.datagram(leap, 0.2), *receiver.poll(1.0)]
    assert len(events) < 100
    assert any(isinstance(event, Skipped) for event in events)
    assert any(isinstance(event, Frame) and event.number == 900_000 for event in events)


def test_contradictions_and_second_greetings_are_refused():
    receiver = said()
    head = FrameHead(1, 0, 0, 0)
    receiver.datagram(Fragment(0, 0, head, 0, 2, b"a").to_bytes(), 0.1)
    receiver.datagram(Fragment(1, 0, head, 1, 3, b"b").to_bytes(), 0.1)
    receiver.datagram(Fragment(1, 0, head, 1, 2, b"b").to_bytes(), 0.1)
    receiver.message(Header(HEADER).to_bytes(), 0.1)
    receiver.message(Hello(LINK_VERSION, TOKEN, bytes(16), 400, 0).to_bytes(), 0.1)
    assert receiver.status.refused == {
        "contradictory": 1,
        "repeated": 1,
        "a second header": 1,
        "a second hello": 1,
    }


def test_a_receiver_that_claims_what_was_never_sent_is_not_believed():
    link = Joined(QUIET, start=0.5)
    link.run(3)
    rate = link.sender.status.rate
    feedback = link.receiver._feedback(link.receiver_now + 1)
    lies = [
        replace(feedback, sequence=1 << 30),
        replace(feedback, report=replace(feedback.report, decoded=1 << 30)),
        replace(feedback, time=feedback.time - 20_000, arrived=0),
    ]
    for lie in lies:
        assert not link.sender.datagram(lie.to_bytes(), 3.0)
    assert link.sender.status.refused == {"frames never sent": 2, "outdated": 1}
    assert link.sender.status.rate == rate


def test_late_frames_mend_the_chain():
    receiver = said()
    deliver(receiver, datagrams(3, 1))
    late, *rest = datagrams(6, 1)[3:]
    events = [event for content in rest for event in receiver.datagram(content, 0.2)]
    assert not events
    assert receiver.poll(0.4)[:3] == [Missing(4), Missing(5), Missing(6)]
    events = [event for event in receiver.datagram(late, 0.45) if isinstance(event, Frame)]
    assert [(event.number, event.late) for event in events] == [(4, True), (5, True), (6, True)]
    assert receiver.status.late == 3


def test_random_bytes_in_great_number_stop_nothing():
    receiver, noise = said(), random.Random(0)
    for number in range(20_000):
        content = bytes([0x41]) + noise.randbytes(noise.randrange(24))
        receiver.datagram(content, 0.1 + number * 1e-4)
    assert receiver._held.size <= HELD_BYTES


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_every_frame_has_one_outcome(seed):
    """Links that change, connections that vanish, receivers that restart; the decoder of `Joined`
    checks that each delivered frame finds its reference in its slot."""
    chance = random.Random(seed)
    link = Joined(
        QUIET,
        start=0.5,
        references=chance.choice((2, 3, 4, 16)),
        decoding=chance.choice((0.0, 0.03)),
        seed=seed,
    )
    restarts = heard = 0
    for second in range(1, 41):
        link.up.condition = Condition(
            delay=chance.choice((0.005, 0.05, 0.2)),
            bandwidth=chance.choice((None, 5e4, 5e5, 5e6)),
            queue_bytes=chance.choice((5_000, 1 << 20)),
            loss=chance.choice((0.0, 0.05, 0.3)),
            burst=chance.choice((1, 3, 8)),
            jitter=chance.choice((0.0, 0.03)),
            duplicated=chance.choice((0.0, 0.1)),
        )
        link.down.condition = replace(link.up.condition, bandwidth=None)
        link.run(second)
        heard = max(heard, link.delivered[-1][0]) if link.delivered else 0
        assert second - heard < 8  # nothing keeps a sender from trying again
        if chance.random() < 0.15:
            link.drop()
            link.run(second + 0.3)
            if chance.random() < 0.3:
                link.outcomes()
                restarts += 1
                link.door = Door(TOKEN, max_latency=0.2)
                link.receiver, link.events, link.slots = None, [], {}
            link.connect()
    assert link.outcomes()
    assert len(link.delivered) > 100
    status = link.sender.status
    assert status.frames_sent + status.frames_skipped == link.number
    assert status.key_frames <= 1 + restarts + link.connections
    assert len(link.sender._references._sent) <= 512 + 16
    assert link.sender.status.refused.keys() <= {"outdated", "before the welcome"}
    assert link.receiver.status.refused.keys() <= {"repeated", "outdated"}
    assert len(link.sender._mending._number_of) <= KEPT


def test_what_was_given_up_is_not_under_way():
    """A sender that counts it would stop in the end."""
    sender = SenderSession(
        token=b"t",
        session=bytes(16),
        header=b"h",
        references=4,
        max_latency=0.1,
        bitrate=1e6,
        frame_rate=25,
    )
    door = Door(b"t", max_latency=0.1)
    for round_trip in range(12):
        now = 10.0 * round_trip
        sender.connect(now)
        receiver, _ = door.greet(door.knock(now), sender.pull(now).messages[0], now)
        for message in receiver.pull(now).messages:
            sender.message(message, now)
        for number in range(4 * round_trip, 4 * round_trip + 4):
            plan = sender.next_frame(now, number)
            if plan is not None:
                sender.frame(plan, bytes(50), now)
            sender.pull(now)
            now += 0.04
        door.left(receiver, now)
        sender.disconnect()
        assert sender.under_way <= 4
    assert sender.status.frames_sent > 12
