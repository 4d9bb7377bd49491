"""Who is let in: tokens, versions, how many at once, and sessions that come back."""

from __future__ import annotations

import hmac
from collections import Counter
from typing import Final

from codec.errors import BitstreamError, LinkError, UnsupportedBitstreamError
from codec.limits import DEFAULT_LIMITS, Limits
from codec.link.downstream import Refusal
from codec.link.events import ReceiverEvent
from codec.link.receiver import ReceiverSession
from codec.link.upstream import Hello, read_from_sender
from codec.link.wire import MAX_HELLO_BYTES

__all__ = ["Door", "FullError"]

PATIENCE: Final = 3.0
"""Seconds in which a connection has to say hello."""
PLACE: Final = 5.0
"""Seconds for which a sender that is away keeps its place where others wait for one: most outages
are shorter.
"""


class FullError(LinkError):
    """As many senders are here as may be; one of them may have gone, and not be missed yet."""


class Door:
    """The receiving end before and between sessions.

    A connection is `knocked`, then says hello in its first message: `greet`.  One that is refused,
    or that `poll` names, is to be closed.

    Args:
        token: what a sender has to show.
        max_latency: of the sessions, in seconds.
        limits: what a stream may ask for.
        senders: most sessions, present and away; with one more, the one that is away for longest
            goes, if that is long enough.
        waiting: most connections that have not said hello; with one more, the oldest is to go.
        memory: seconds for which a sender that has vanished may come back.
    """

    def __init__(
        self,
        token: bytes,
        *,
        max_latency: float,
        limits: Limits = DEFAULT_LIMITS,
        senders: int = 16,
        waiting: int = 32,
        memory: float = 60.0,
    ) -> None:
        self.refused: Counter[str] = Counter()
        self.sessions: dict[bytes, ReceiverSession] = {}
        self._token = token
        self._max_latency, self._limits = max_latency, limits
        self._senders, self._waiting, self._memory = senders, waiting, memory
        self._knocked: dict[int, float] = {}
        self._count = 0
        self._away: dict[bytes, float] = {}
        self._silent: list[int] = []

    def knock(self, now: float) -> int:
        """Note a connection; return its number for `greet`.  One that has waited for longest may
        have to go: `poll`.
        """
        self._expire(now)
        if len(self._knocked) >= self._waiting:
            self._give_up(min(self._knocked))
        self._count += 1
        self._knocked[self._count] = now
        return self._count

    def gone(self, connection: int) -> None:
        """Note that a connection was closed before it said hello."""
        self._knocked.pop(connection, None)

    def greet(
        self, connection: int, content: bytes, now: float
    ) -> tuple[ReceiverSession, list[ReceiverEvent]]:
        """Take the first message of a connection; return its session, new or resumed, with what
        has become due in it.  A connection that the session had before is void.

        Raises:
            FullError: not let in now; close, and let it try again.
            LinkError: not let in; send `refusal` of it, and close.
        """
        self._expire(now)
        if self._knocked.pop(connection, None) is None:
            raise self._refusal("late", "no hello in time")
        hello = self._hello(content)
        known = self.sessions.get(hello.session)
        if known is not None and known.ended:
            self.forget(hello.session)
            known = None
        if known is not None:
            self._away.pop(hello.session, None)
            return known, known.resume(hello, now)
        if len(self.sessions) >= self._senders:
            longest = min(self._away, key=lambda session: self._away[session], default=None)
            if longest is None or now - self._away[longest] < PLACE:
                self.refused["full"] += 1
                raise FullError(f"{self._senders} senders are connected")
            self.forget(longest)
        session = ReceiverSession(hello, now, max_latency=self._max_latency, limits=self._limits)
        self.sessions[hello.session] = session
        return session, []

    def _hello(self, content: bytes) -> Hello:
        if len(content) > MAX_HELLO_BYTES:
            raise self._refusal("oversize", f"a hello of {len(content)} bytes")
        try:
            hello = read_from_sender(content, datagram=False)
        except UnsupportedBitstreamError as error:
            raise self._refusal("version", str(error)) from error
        except BitstreamError as error:
            raise self._refusal("malformed", f"no hello: {error}") from error
        if not isinstance(hello, Hello):
            raise self._refusal("malformed", "no hello: a connection begins with one")
        if not hmac.compare_digest(hello.token, self._token):
            raise self._refusal("token", "wrong token; the receiver prints the right one")
        return hello

    def _refusal(self, kind: str, message: str) -> LinkError:
        self.refused[kind] += 1
        return LinkError(message)

    @staticmethod
    def refusal(error: LinkError) -> bytes:
        """Return the message that tells a sender why it is not let in."""
        return Refusal(str(error)[:255].encode()[:255].decode(errors="ignore")).to_bytes()

    def left(self, session: ReceiverSession, now: float) -> None:
        """Note that the connection of a session is gone; it may come back."""
        session.disconnect()
        if self.sessions.get(session.session) is session:
            self._away[session.session] = now

    def forget(self, session: bytes) -> None:
        """Let go of a session."""
        self.sessions.pop(session, None)
        self._away.pop(session, None)

    def poll(self, now: float) -> list[int]:
        """Let go of sessions that stayed away too long; return the connections that said nothing
        in time, to be closed.
        """
        self._expire(now)
        silent, self._silent = self._silent, []
        return silent

    def _expire(self, now: float) -> None:
        for session in [kept for kept, since in self._away.items() if now - since > self._memory]:
            self.forget(session)
        for number in [kept for kept, since in self._knocked.items() if now - since > PATIENCE]:
            self._give_up(number)

    def _give_up(self, number: int) -> None:
        del self._knocked[number]
        self._silent.append(number)
        self.refused["silent"] += 1
