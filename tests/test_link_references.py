"""Which frame is predicted from, and which slot is given up for the next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.link.downstream import FrameReport
from codec.link.references import References


def report(due: int, decoded: list[int]) -> FrameReport:
    newest = max(decoded, default=None)
    before = sum(1 << newest - 1 - number for number in decoded if number != newest)
    return FrameReport(due, newest, before)


def send(references: References, *numbers: int, **options) -> list[int | None]:
    chosen = []
    for number in numbers:
        choice = references.choose(**({"acknowledged_only": False} | options))
        references.sent(number, choice, reliable=choice.slots is None)
        chosen.append(choice.reference)
    return chosen


def test_the_frame_before_while_nothing_is_lost():
    references = References(4)
    assert send(references, *range(8)) == [None, *range(7)]


def test_the_newest_decoded_frame_after_a_loss():
    references = References(8)
    send(references, *range(6))
    assert references.reported(report(4, [0, 1, 2])) == ([0, 1, 2], [3])
    assert send(references, 6) == [5]  # it may come late
    references.given_up(3)
    assert send(references, 7, 8) == [2, 7]


def test_what_was_reported_lost_may_come_late():
    references = References(8)
    send(references, *range(4))
    assert references.reported(report(3, [0])) == ([0], [1, 2])
    references.given_up(1)
    assert not references.alive(3)
    assert references.reported(report(4, [0, 1, 2, 3])) == ([1, 2, 3], [])
    assert send(references, 4) == [3]


def test_a_frame_is_needed_by_what_is_predicted_from_it():
    references = References(8)
    send(references, *range(4))
    references.reported(report(2, [0, 1]))
    assert all(references.needed(number) for number in range(4))
    send(references, 4, acknowledged_only=True)
    assert [number for number in range(5) if references.needed(number)] == [0, 1, 4]


def test_what_was_planned_and_abandoned_needs_nothing():
    references = References(8)
    send(references, *range(4))
    references.reported(report(1, [0]))
    send(references, 4, acknowledged_only=True)
    references.abandoned(4)
    assert all(references.needed(number) for number in range(4))


def test_what_was_never_sent_is_not_told_to_be_late():
    references = References(8)
    send(references, *range(3))
    references.abandoned(1)
    references.given_up(2)
    assert references.reported(report(0, [0])) == ([0], [2])
    assert references.reported(report(3, [0])) == ([], [])


def test_acknowledged_only():
    references = References(8)
    send(references, *range(5))
    references.reported(report(2, [0, 1]))
    assert send(references, 5, 6, acknowledged_only=True) == [1, 1]


def test_a_key_frame_in_transit_is_not_lost_for_being_late():
    references = References(4)
    send(references, 0, 1)
    assert references.reported(report(2, [])) == ([], [1])
    references.given_up(1)
    assert send(references, 2) == [0]
    assert references.reported(report(4, [3])) == ([], [0, 2])


def test_nothing_left_is_a_key_frame():
    references = References(4)
    send(references, 0, 1, 2)
    references.forgotten()
    assert send(references, 3, 4) == [None, 3]


@pytest.mark.parametrize("count", [3, 4, 8, 16])
@pytest.mark.parametrize("trip", [1, 5, 30])
def test_references_stay_young_on_links_of_any_length(count, trip):
    references = References(count)
    ages = []
    for number in range(400):
        if number >= trip:
            references.reported(
                report(
                    number - trip + 1, list(range(max(0, number - trip - 60), number - trip + 1))
                )
            )
        send(references, number)
        ages.append(number - (references.choose(acknowledged_only=True).reference or 0))
    # never older than two round trips and what thinning leaves out
    assert max(ages[200:]) <= 2 * trip + 2


@given(
    st.integers(2, 16),
    st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=80),
)
def test_slots_hold_what_a_receiver_has(count, steps):
    """Whatever is lost and reported, a frame that arrives finds its reference in its slot if that
    was decoded, and the newest acknowledged one is never overwritten."""
    references = References(count)
    sender: dict[int, int] = {}
    decoded: list[int] = []
    acknowledged: set[int] = set()
    for number, (arrives, reports, acknowledged_only) in enumerate(steps):
        choice = references.choose(acknowledged_only=acknowledged_only)
        held = acknowledged & set(sender.values())
        if choice.slots is None:
            assert not held
            sender = {0: number}
        else:
            assert sender[choice.slots[0]] == choice.reference
            if held and count > 1:
                assert sender.get(choice.slots[1]) != max(held)
            sender[choice.slots[1]] = number
        references.sent(number, choice, reliable=choice.slots is None)
        if choice.reference is None or (arrives and choice.reference in decoded):
            decoded.append(number)
        if reports:
            recent = [other for other in decoded if other >= decoded[-1] - 64]
            acked, lost = references.reported(report(number + 1, recent))
            acknowledged |= set(acked)
            assert not set(lost) & set(decoded)


@pytest.mark.parametrize("count", [1, 17])
def test_a_link_has_two_to_sixteen_references(count):
    with pytest.raises(ValueError, match=f"{count} references: a link needs 2 … 16"):
        References(count)
