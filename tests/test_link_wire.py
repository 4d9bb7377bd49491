"""The wire of the link: both directions round trip, and any bytes give a message or our error."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from codec.errors import BitstreamError, UnsupportedBitstreamError
from codec.link import downstream, upstream
from codec.link.wire import LINK_VERSION, MAX_COUNT, MAX_FRAGMENTS, MAX_RUNS, RECENT, REPORTED

counts = st.one_of(st.integers(0, 300), st.integers(0, MAX_COUNT))
contents = st.binary(min_size=1, max_size=40)


@st.composite
def heads(draw):
    number = draw(counts)
    reference = draw(st.none() | st.integers(0, number - 1)) if number else None
    return upstream.FrameHead(number, reference, draw(st.integers(0, number)), draw(counts))


@st.composite
def fragments(draw):
    head = draw(heads())
    count = draw(st.integers(1, MAX_FRAGMENTS))
    sent = draw(st.integers(head.captured, MAX_COUNT))
    index = draw(st.integers(0, count - 1))
    return upstream.Fragment(draw(counts), sent, head, index, count, draw(contents))


@st.composite
def reports(draw):
    decoded = draw(st.none() | counts.filter(lambda count: count < MAX_COUNT))
    before = draw(st.integers(0, (1 << min(decoded or 0, REPORTED)) - 1))
    return downstream.FrameReport(draw(counts), decoded, before)


@st.composite
def runs(draw, sequence):
    """Runs of datagrams below the highest, none of them next to another."""
    if not sequence:
        return ()
    ages = st.integers(0, min(sequence, RECENT))
    bounds = sorted(draw(st.lists(ages, unique=True, max_size=2 * MAX_RUNS)))
    pairs = zip(bounds[::2], bounds[1::2], strict=False)
    return tuple(reversed([range(sequence - old, sequence - new) for new, old in pairs]))


@st.composite
def feedbacks(draw):
    sequence = draw(st.none() | st.integers(0, MAX_COUNT - 1))
    time = draw(counts)
    return downstream.Feedback(
        time,
        sequence,
        draw(st.integers(0, time)),
        draw(st.integers(0, 0 if sequence is None else sequence + 1)),
        draw(counts),
        draw(runs(sequence)),
        draw(st.booleans()),
        draw(reports()),
    )


hellos = st.builds(
    upstream.Hello,
    st.just(LINK_VERSION),
    st.binary(max_size=128),
    st.binary(min_size=16, max_size=16),
    st.integers(1, 36_000_000),
    counts,
)
sent = st.one_of(
    hellos,
    heads().flatmap(lambda head: st.builds(upstream.WholeFrame, st.just(head), contents)),
    fragments(),
    st.builds(upstream.Header, contents),
    st.builds(upstream.Bye, counts),
)
returned = st.one_of(
    st.builds(downstream.Welcome, st.booleans(), reports()),
    st.builds(downstream.Refusal, st.text(max_size=60)),
    st.builds(downstream.Importance, contents),
    st.builds(downstream.Quality, contents),
    feedbacks(),
)


@given(sent)
def test_what_a_sender_sends_round_trips(message):
    datagram = isinstance(message, upstream.Fragment)
    content = message.to_bytes()
    assert upstream.read_from_sender(content, datagram=datagram) == message
    with pytest.raises(BitstreamError, match="came as a"):
        upstream.read_from_sender(content, datagram=not datagram)


@given(returned)
def test_what_a_receiver_sends_round_trips(message):
    datagram = isinstance(message, downstream.Feedback)
    content = message.to_bytes()
    assert downstream.read_from_receiver(content, datagram=datagram) == message


@given(st.binary(max_size=60), st.booleans())
@example(b"", True)
@example(b"\x41" + b"\xff" * 20, True)
@example(b"\x03\x00\x00\x00\x00", False)
def test_any_bytes_are_a_message_or_our_error(content, datagram):
    for read in (upstream.read_from_sender, downstream.read_from_receiver):
        try:
            message = read(content, datagram=datagram)
        except BitstreamError:
            continue
        assert message.to_bytes() == content


@given(st.one_of(sent, returned), st.data())
def test_a_changed_or_cut_message_is_a_message_or_our_error(message, data):
    content = bytearray(message.to_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    test_any_bytes_are_a_message_or_our_error.hypothesis.inner_test(bytes(content), True)
    test_any_bytes_are_a_message_or_our_error.hypothesis.inner_test(bytes(content), False)


def test_another_version_is_named():
    hello = upstream.Hello(LINK_VERSION, b"", bytes(16), 400, 0).to_bytes()
    with pytest.raises(UnsupportedBitstreamError, match="link version 7, this receiver speaks 2"):
        upstream.read_from_sender(hello[:1] + b"\x07" + hello[2:], datagram=False)


@pytest.mark.parametrize(("highest", "runs"), [(5000, [(3975, 3976)]), (0, [(-1, 0)])])
def test_no_run_reaches_too_far_down(highest, runs):
    missing = tuple(range(*run) for run in runs)
    report = downstream.Feedback(5, highest, 5, 1, 1, missing, False, downstream.FrameReport())
    with pytest.raises(BitstreamError, match="missing datagrams"):
        downstream.read_from_receiver(report.to_bytes(), datagram=True)
    nearer = tuple(range(run.start + 1, run.stop + 1) for run in missing) if highest else ()
    content = replace(report, missing=nearer).to_bytes()
    assert downstream.read_from_receiver(content, datagram=True).missing == nearer


def test_a_report_tells_of_the_frames_before_the_newest():
    report = downstream.FrameReport(10, 9, 0b101)
    assert [number for number in range(-70, 20) if report.has(number)] == [6, 8, 9]
    assert not downstream.FrameReport(3).has(0)
