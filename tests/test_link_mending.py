"""Which parts are sent again: each lost datagram once, whatever is said; memory is bounded."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from codec.link.mending import KEPT, Mending
from codec.link.pacing import Pacer, Part
from codec.link.upstream import FrameHead


def part(number: int, index: int = 0, *, count: int = 1, queued: float = 0.0) -> Part:
    return Part(FrameHead(number, None, 0, 0), index, count, b"part", queued)


def test_what_is_lost_is_told_once_by_frame():
    mending = Mending()
    for sequence in range(6):
        mending.sent(sequence, part(sequence // 2, 1 - sequence % 2, count=2), 0.1)
    lost = mending.lost([5, 2, 3], [4], 0.2)
    assert {number: [p.index for p in parts] for number, parts in lost.items()} == {
        1: [0, 1],
        2: [0, 1],
    }
    assert list(lost) == [1, 2]
    assert mending.lost([5, 2, 3], [4], 0.2) == {}
    mending.forget(0)
    assert mending.lost([0, 1], [], 0.2) == {}


def test_what_is_only_overdue_is_sent_again_ever_more_seldom():
    pacer, mending = Pacer(100, 0.04), Mending()
    pacer.add(FrameHead(7, None, 0, 0), b"x", 0.0)
    times, sequence = [], 0
    for step in range(1000):
        now = step / 100
        for sent in pacer.take(now, 1e6, lambda _: True):
            mending.sent(sequence, sent, now)
            sequence += 1
        again = mending.lost([], range(sequence), now)
        pacer.again(again.get(7, []), now)
        times += [now] * len(again)
    gaps = [round(after - before, 1) for before, after in pairwise(times[1:])]
    assert gaps == [0.4, 0.8, 1.6, 1.6, 1.6, 1.6, 1.6]


def test_again_goes_first_and_in_order():
    pacer = Pacer(100, 0.04)
    pacer.add(FrameHead(2, None, 0, 0), bytes(300), 0.0)
    pacer.again([part(1, 0, count=2), part(1, 1, count=2)], 0.1)
    waiting = pacer.waiting
    sent = list(pacer.take(1.0, 1e9, lambda _: True))
    assert [(p.head.number, p.index) for p in sent] == [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    assert [p.before for p in sent] == [1, 1, 0, 0, 0]
    assert sent[0].queued == 0.1
    assert (waiting, pacer.waiting) == (sum(p.size for p in sent), 0)


def test_frames_of_which_nothing_is_sent_any_more():
    mending = Mending()
    mending.sent(0, part(0), 0.0)
    mending.sent(1, part(1), 0.5)
    mending.sent(2, part(0), 1.0)
    assert mending.before(0.8) == [1]
    assert mending.queued(0) == 0.0


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("sent"), st.integers(0, 8)),
            st.tuples(st.just("lost"), st.lists(st.integers(0, 60), max_size=8)),
            st.tuples(st.just("forget"), st.integers(0, 8)),
        ),
        max_size=60,
    )
)
def test_no_datagram_is_lost_twice_or_after_its_frame_is_let_go(steps):
    mending, sequence = Mending(), 0
    there: dict[int, int] = {}
    for kind, value in steps:
        if kind == "sent":
            mending.sent(sequence, part(value, sequence), 0.0)
            there[sequence] = value
            sequence += 1
        elif kind == "forget":
            mending.forget(value)
            there = {key: number for key, number in there.items() if number != value}
        else:
            lost = mending.lost(value, [], 0.0)
            found = sorted(p.index for parts in lost.values() for p in parts)
            assert found == sorted(set(value) & set(there))
            assert all(p.head.number == number for number, parts in lost.items() for p in parts)
            there = {key: number for key, number in there.items() if key not in value}


def test_memory_is_bounded():
    mending = Mending()
    for sequence in range(KEPT + 1000):
        mending.sent(sequence, part(sequence), float(sequence))
    assert len(mending._number_of) == len(mending._frames) == KEPT
    assert mending.lost(range(1000), [], 0.0) == {}
    mending.clear()
    assert not mending._number_of
    assert not mending._frames
