"""What is said to be missing, against a plain list of all that has not arrived."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from codec.link.arrivals import FIRST_PATIENCE, TOLD, Arrivals
from codec.link.wire import MAX_RUNS, RECENT


def runs(numbers: list[int]) -> list[range]:
    found: list[range] = []
    for number in numbers:
        if found and found[-1].stop == number:
            found[-1] = range(found[-1].start, number + 1)
        else:
            found.append(range(number, number + 1))
    return found


steps = st.one_of(st.integers(-20, 20), st.integers(1, 3), st.integers(900, 1100))


@given(st.lists(steps, max_size=80))
def test_what_is_missing(jumps):
    arrivals = Arrivals(most_patience=FIRST_PATIENCE)
    highest, come = -1, set()
    for jump in jumps:
        sequence = max(highest + jump, 0)
        if arrivals.add(sequence, 0, 1, 0.0) is None:
            come.add(sequence)
            highest = max(highest, sequence)
    missing = [n for n in range(max(highest - RECENT, 0), highest) if n not in come]
    assert list(arrivals.missing(1.0)) == runs(missing)[-MAX_RUNS:]
    assert arrivals.missing(0.0) == ()
    assert arrivals.matures(0.0) == (arrivals.patience if missing else None)


def test_it_is_said_for_a_while_and_until_a_later_one_arrives():
    arrivals = Arrivals(most_patience=FIRST_PATIENCE)
    for sequence, now in ((0, 0.0), (2, 0.0), (4, TOLD)):
        arrivals.add(sequence, 0, 1, now)
    assert arrivals.missing(9 * TOLD) == (range(1, 2), range(3, 4))
    arrivals.add(5, 0, 1, 1.5 * TOLD)
    assert arrivals.missing(9 * TOLD) == (range(3, 4),)


def test_a_leap_takes_no_more_room_than_a_gap():
    arrivals = Arrivals(most_patience=FIRST_PATIENCE)
    for leap in range(100):
        arrivals.add(leap * RECENT, 0, 1, 0.0)
    assert len(arrivals._overtaken) <= 2
