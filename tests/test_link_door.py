"""Who is let in, and how many wait in front of the door."""

from __future__ import annotations

import pytest

from codec.errors import LinkError
from codec.link.door import PATIENCE, PLACE, Door, FullError
from codec.link.downstream import Refusal, Welcome, read_from_receiver
from codec.link.events import Refused, Skipped, Welcomed
from codec.link.sender import SenderSession
from codec.link.upstream import Bye, Header, Hello
from codec.link.wire import LINK_VERSION, MAX_HELLO_BYTES

TOKEN = b"let me in"


def hello(name: int = 0, *, token: bytes = TOKEN, first: int = 0) -> bytes:
    return Hello(LINK_VERSION, token, bytes([name]) * 16, 400, first).to_bytes()


def enter(door: Door, content: bytes, now: float = 0.0):
    return door.greet(door.knock(now), content, now)


def sender() -> SenderSession:
    return SenderSession(
        token=TOKEN,
        session=bytes(16),
        header=b"header",
        references=4,
        max_latency=0.2,
        bitrate=None,
        frame_rate=25,
    )


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (hello(token=b"let me inn"), "token", "wrong token"),
        (hello(token=b""), "token", "wrong token"),
        (b"\x01\x01" + hello()[2:], "version", "link version 1, this receiver speaks 2"),
        (hello()[:-1], "malformed", "no hello"),
        (hello() + b"x", "malformed", "no hello"),
        (b"", "malformed", "no hello"),
        (Header(b"header").to_bytes(), "malformed", "no hello"),
        (b"GET / HTTP/1.1\r\n\r\n", "malformed", "no hello"),
        (bytes(MAX_HELLO_BYTES + 1), "oversize", "a hello of 513 bytes"),
    ],
)
def test_refused_and_counted(content, kind, message):
    door = Door(TOKEN, max_latency=0.2)
    with pytest.raises(LinkError, match=message) as refused:
        enter(door, content)
    assert door.refused == {kind: 1}
    assert not door.sessions
    told = sender()
    told.connect(0.0)
    assert told.message(Door.refusal(refused.value), 0.1) == [Refused(str(refused.value))]


def test_a_refusal_of_any_length_can_be_told():
    content = Door.refusal(LinkError("ü" * 300))
    assert read_from_receiver(content, datagram=False) == Refusal("ü" * 127)


def test_half_open_connections_are_few_and_brief():
    door = Door(TOKEN, max_latency=0.2, waiting=3)
    waiting = [door.knock(0.0) for _ in range(3)]
    door.gone(waiting[0])
    waiting.append(door.knock(1.0))
    assert door.poll(1.0) == []
    newest = door.knock(2.0)  # in place of the oldest
    assert door.poll(2.0) == [waiting[1]]
    assert door.poll(PATIENCE) == []
    assert door.poll(PATIENCE + 0.5) == [waiting[2]]
    with pytest.raises(LinkError, match="no hello in time"):
        door.greet(waiting[1], hello(), PATIENCE + 0.6)
    door.greet(newest, hello(), PATIENCE + 0.6)
    assert door.refused == {"silent": 2, "late": 1}


def test_as_many_senders_as_are_allowed():
    door = Door(TOKEN, max_latency=0.2, senders=2)
    first, _ = enter(door, hello(1))
    enter(door, hello(2))
    with pytest.raises(LinkError, match="2 senders are connected"):
        enter(door, hello(3))
    door.left(first, 1.0)
    with pytest.raises(FullError):
        enter(door, hello(3), 2.0)  # in an outage nobody loses his place
    assert enter(door, hello(1), 2.5)[0] is first
    door.left(first, 3.0)
    enter(door, hello(3), 3.0 + PLACE)  # in place of the one that is away
    assert set(door.sessions) == {bytes([2]) * 16, bytes([3]) * 16}


def test_a_session_is_remembered_for_a_while():
    door = Door(TOKEN, max_latency=0.2, memory=60)
    session, _ = enter(door, hello(1))
    session.message(Header(b"header").to_bytes(), 0.0)
    door.left(session, 10.0)
    again, events = enter(door, hello(1, first=7), 69.0)
    assert again is session
    assert events == [Skipped(0, 6)]
    welcome = read_from_receiver(session.pull(69.0).messages[0], datagram=False)
    assert isinstance(welcome, Welcome)
    assert welcome.resumed
    door.left(session, 70.0)
    assert enter(door, hello(1), 140.0)[0] is not session


def test_a_session_taken_over_while_its_old_connection_lingers():
    door = Door(TOKEN, max_latency=0.2)
    session, _ = enter(door, hello(1))
    assert enter(door, hello(1), 1.0)[0] is session
    assert session.connected


def test_a_session_that_has_ended_begins_anew():
    door = Door(TOKEN, max_latency=0.2)
    session, _ = enter(door, hello(1))
    session.message(Header(b"header").to_bytes(), 0.0)
    session.message(Bye(0).to_bytes(), 0.0)
    assert session.ended
    assert enter(door, hello(1), 1.0)[0] is not session


def test_nothing_is_sent_before_the_welcome():
    told = sender()
    told.connect(0.0)
    out = told.pull(0.0)
    assert [content[0] for content in out.messages] == [0x01]
    assert told.next_frame(0.1, 0) is None
    assert told.status.frames_skipped == 1
    door = Door(TOKEN, max_latency=0.2)
    session, _ = enter(door, out.messages[0])
    events = [
        event for content in session.pull(0.1).messages for event in told.message(content, 0.2)
    ]
    assert events == [Welcomed(resumed=False)]
    plan = told.next_frame(0.2, 1)
    assert plan is not None
    assert plan.key


def test_callers_mistakes():
    with pytest.raises(ValueError, match="a session is named by 16 bytes, found 3"):
        SenderSession(
            token=b"",
            session=b"abc",
            header=b"",
            references=4,
            max_latency=0.2,
            bitrate=None,
            frame_rate=25,
        )
    told = sender()
    told.next_frame(0.0, 5)
    with pytest.raises(ValueError, match="frame 5 follows frame 5"):
        told.next_frame(0.0, 5)
    session, _ = enter(Door(TOKEN, max_latency=0.2), hello())
    with pytest.raises(ValueError, match="a request of 0 bytes"):
        session.importance(b"")
