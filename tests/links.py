"""Two ends of a live link joined by a simulated one, for the tests: a source that makes as many
bytes as it is allowed, a decoder that knows which slots it holds.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from codec.link.door import Door
from codec.link.events import Frame, FramePlan, Missing, Opened, Skipped
from codec.link.receiver import ReceiverSession
from codec.link.sender import SenderSession
from tools.link_study.link import Clock, Condition, Path

TOKEN = b"let me in"
HEADER = b"a sequence header"


class Joined:
    """A source of `frame_rate` frames a second, sent over a link both ways."""

    def __init__(
        self,
        condition: Condition,
        *,
        references: int = 8,
        max_latency: float = 0.2,
        bitrate: float | None = 1e6,
        frame_rate: float = 25.0,
        most_bytes: float = 1e9,
        least_bytes: float = 20,
        key_bytes: int = 4000,
        seed: int = 0,
        coding: float = 0.0,
        decoding: float = 0.0,
        back: Condition | None = None,
        offset: float = 1000.0,
        start: float = 0.0,
    ) -> None:
        self.clock = Clock()
        self.most_bytes, self.least_bytes, self.key_bytes = most_bytes, least_bytes, key_bytes
        self.frame_rate, self.offset = frame_rate, offset
        self.coding, self.decoding = coding, decoding
        self.decoder_free_at = 0.0
        self.max_latency, self.seed = max_latency, seed
        self.sender = SenderSession(
            token=TOKEN,
            session=bytes(16),
            header=HEADER,
            references=references,
            max_latency=max_latency,
            bitrate=bitrate,
            frame_rate=frame_rate,
        )
        self.condition, self.back = condition, back or replace(condition, bandwidth=None)
        self.door = Door(TOKEN, max_latency=max_latency)
        self.receiver: ReceiverSession | None = None
        self.plans: dict[int, FramePlan] = {}
        self.packets: dict[int, bytes] = {}
        self.events: list[object] = []
        self.sender_events: list[object] = []
        self.delivered: list[tuple[float, Frame]] = []
        self.slots: dict[int, int] = {}
        self.number = 0
        self.stopped = False
        self.connections = 0
        self._timers: set[tuple[str, float]] = set()
        self.connect()
        self.start = start
        self.clock.at(start, self.capture)

    @property
    def receiver_now(self) -> float:
        return self.clock.now + self.offset

    def drop(self) -> None:
        """Let the connection vanish."""
        self.up.closed = self.down.closed = True
        if self.receiver is not None:
            self.door.left(self.receiver, self.receiver_now)
        self.sender.disconnect()
        self.greeted = False

    def connect(self) -> None:
        self.greeted = False
        self.connections += 1
        seed = self.seed + 1000 * self.connections
        self.up = Path(self.clock, self.condition, self.up_datagram, self.up_message, seed)
        self.down = Path(self.clock, self.back, self.down_datagram, self.down_message, seed + 1)
        self.connection = self.door.knock(self.receiver_now)
        self.sender.connect(self.clock.now)
        self.pull_sender()

    # --- source -----------------------------------------------------------------------------------

    def capture(self) -> None:
        if self.stopped:
            return
        plan = self.sender.next_frame(self.clock.now, self.number)
        if plan is not None:
            self.plans[plan.number] = plan
            size = min(self.most_bytes, max(plan.most_bytes, self.least_bytes))
            size = self.key_bytes if plan.key else int(size)
            packet = plan.number.to_bytes(4, "big") * (size // 4 + 1)
            packet = self.packets[plan.number] = packet[: max(size, 4)]
            self.clock.at(self.clock.now + self.coding, lambda: self.coded(plan, packet))
        self.number += 1
        self.clock.at(self.start + self.number / self.frame_rate, self.capture)

    def coded(self, plan: FramePlan, packet: bytes) -> None:
        self.sender.frame(plan, packet, self.clock.now)
        self.pull_sender()

    def pull_sender(self) -> None:
        out = self.sender.pull(self.clock.now)
        for content in out.messages:
            self.up.send_message(content)
        for content in out.datagrams:
            self.up.send(content)
        self._again("sender", self.sender.next_time(self.clock.now), self.pull_sender)

    def _again(self, name: str, time: float | None, call) -> None:
        if time is None or (name, time) in self._timers:
            return
        self._timers.add((name, time))

        def due() -> None:
            self._timers.discard((name, time))
            call()

        self.clock.at(max(time, self.clock.now + 1e-4), due)

    def down_datagram(self, content: bytes) -> None:
        self.sender_events += self.sender.datagram(content, self.clock.now)
        self.pull_sender()

    def down_message(self, content: bytes) -> None:
        self.sender_events += self.sender.message(content, self.clock.now)
        self.pull_sender()

    # --- receiver ---------------------------------------------------------------------------------

    def up_message(self, content: bytes) -> None:
        if not self.greeted:
            self.greeted = True
            self.receiver, events = self.door.greet(self.connection, content, self.receiver_now)
            self.take(events)
        else:
            self.take(self.receiver.message(content, self.receiver_now))
        self.pull_receiver()

    def up_datagram(self, content: bytes) -> None:
        if self.greeted:
            self.take(self.receiver.datagram(content, self.receiver_now))
            self.pull_receiver()

    def pull_receiver(self) -> None:
        if self.receiver is None or not self.receiver.connected:
            return
        self.take(self.receiver.poll(self.receiver_now))
        out = self.receiver.pull(self.receiver_now)
        for content in out.messages:
            self.down.send_message(content)
        for content in out.datagrams:
            self.down.send(content)
        time = self.receiver.next_time(self.receiver_now)
        self._again("receiver", None if time is None else time - self.offset, self.pull_receiver)

    def take(self, events) -> None:
        events = list(events)
        while events:
            event = events.pop(0)
            self.events.append(event)
            if isinstance(event, Frame):
                self.delivered.append((self.clock.now, event))
                ok = self.decode(event)
                if self.decoding:
                    self.decoder_free_at = max(self.decoder_free_at, self.clock.now) + self.decoding
                    self.clock.at(
                        self.decoder_free_at, partial(self.decoded, self.receiver, event.number, ok)
                    )
                else:
                    events += self.receiver.decoded(event.number, ok, self.receiver_now)

    def decoded(self, receiver: ReceiverSession, number: int, ok: bool) -> None:
        events = receiver.decoded(number, ok, self.receiver_now)
        if receiver is self.receiver:
            self.take(events)
            self.pull_receiver()

    def decode(self, frame: Frame) -> bool:
        """Decode as a codec with slots does; a slot that does not hold what it should is a bug."""
        plan = self.plans[frame.number]
        assert frame.packet == self.packets[frame.number]
        if plan.key:
            self.slots = {0: plan.number}
            return True
        assert self.slots.get(plan.slots[0]) == plan.reference_number, frame.number
        self.slots[plan.slots[1]] = plan.number
        return True

    def run(self, until: float) -> None:
        self.clock.run(until)

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    def outcomes(self) -> dict[int, str]:
        """What became of each number; every one has one outcome."""
        found: dict[int, str] = {}
        for event in self.events:
            if isinstance(event, Skipped):
                numbers, outcome = range(event.first, event.last + 1), "skipped"
            elif isinstance(event, Missing):
                numbers, outcome = [event.number], "missing"
            elif isinstance(event, Frame) and not event.late:
                numbers, outcome = [event.number], "frame"
            else:
                continue
            for number in numbers:
                assert number not in found, number
                found[number] = outcome
        first = min(found, default=0)  # of a receiver that came later, not 0
        assert list(found) == list(range(first, first + len(found)))
        return found


__all__ = ["HEADER", "TOKEN", "Joined", "Opened"]
