"""A bad network between `lmc send` and `lmc receive`, on one machine, by real sockets.

    python tests/live_relay.py TARGET_PORT --port 4500 --loss 0.1 --burst 3 --delay 0.05
    python tests/live_relay.py TARGET_PORT --kbit 800 --halve-at 20

In each direction: losses in bursts (Gilbert-Elliott); outages; and of what senders send, a queue in
front of a rate, without bounds, so that whoever fills it waits.  Every second it prints in JSON
what has passed, and how long packets have waited in that queue.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

Address = tuple[str, int]


@dataclass
class Network:
    """What it does to packets."""

    loss: float = 0.0
    burst: float = 1.0
    delay: float = 0.0
    """Seconds, each way."""
    rate: float | None = None
    """bit/s that pass from all senders together."""
    halve_at: float | None = None
    """Seconds from the first packet on, at which the rate is halved for good."""
    outage: tuple[float, float] | None = None
    """Every so many seconds, nothing passes for so many."""


@dataclass
class Passed:
    """What one second has seen, of senders' packets."""

    packets: int = 0
    lost: int = 0
    size: int = 0
    waited: list[float] = field(default_factory=list)


class _Losses:
    def __init__(self, network: Network, seed: int) -> None:
        self._network, self._random, self._bad = network, random.Random(seed), False

    def __call__(self) -> bool:
        loss, burst = self._network.loss, self._network.burst
        if self._bad:
            self._bad = self._random.random() >= 1 / burst
        else:
            self._bad = self._random.random() < loss / max(1 - loss, 1e-9) / burst
        return self._bad


class _Far(asyncio.DatagramProtocol):
    """The socket that stands for one sender."""

    def __init__(self, back: Callable[[bytes], None]) -> None:
        self._back = back

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, content: bytes, _: Address) -> None:
        self._back(content)


class Relay(asyncio.DatagramProtocol):
    """Stands at a port, for whoever listens at another."""

    def __init__(self, target: Address, network: Network) -> None:
        self._target, self._network = target, network
        self._far: dict[Address, asyncio.Task[_Far]] = {}
        self._lost: dict[tuple[Address, bool], _Losses] = {}
        self._free_at = 0.0
        self._start: float | None = None
        self.second = Passed()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, content: bytes, address: Address) -> None:
        """Take a packet of a sender."""
        now = time.monotonic()
        if self._start is None:
            self._start = now
        self.second.packets += 1
        if self._drops(address, True, now):
            self.second.lost += 1
            return
        leaves = now
        rate = self.rate(now)
        if rate is not None:
            leaves = max(now, self._free_at)
            self.second.waited.append(leaves - now)
            # what waits when the rate falls goes at the new one
            leaves = self._free_at = leaves + (len(content) + 28) * 8 / rate
        asyncio.get_running_loop().call_later(leaves - now, self._leave, content, address)

    def _leave(self, content: bytes, address: Address) -> None:
        """Let a packet out of the queue."""
        self.second.size += len(content) + 28
        later = asyncio.get_running_loop().call_later
        later(self._network.delay, self._forward, content, address)

    def rate(self, now: float) -> float | None:
        network = self._network
        if network.rate is None or network.halve_at is None or self._start is None:
            return network.rate
        return network.rate / (2 if now - self._start >= network.halve_at else 1)

    def _drops(self, address: Address, there: bool, now: float) -> bool:
        if self._network.outage is not None and self._start is not None:
            every, seconds = self._network.outage
            if (now - self._start) % every > every - seconds:
                return True
        key = address, there
        if key not in self._lost:
            self._lost[key] = _Losses(self._network, len(self._lost))
        return self._lost[key]()

    def _forward(self, content: bytes, address: Address) -> None:
        if address not in self._far:
            self._far[address] = asyncio.create_task(self._open(address))
        task = self._far[address]
        if task.done():
            task.result().transport.sendto(content)
        else:
            task.add_done_callback(lambda done: done.result().transport.sendto(content))

    async def _open(self, address: Address) -> _Far:
        loop = asyncio.get_running_loop()

        def back(content: bytes) -> None:
            if not self._drops(address, False, time.monotonic()):
                loop.call_later(self._network.delay, self._transport.sendto, content, address)

        _, far = await loop.create_datagram_endpoint(lambda: _Far(back), remote_addr=self._target)
        return far


async def _main(options: argparse.Namespace) -> None:
    network = Network(
        options.loss,
        options.burst,
        options.delay,
        None if options.kbit is None else options.kbit * 1e3,
        options.halve_at,
        None if options.outage is None else tuple(options.outage),
    )
    loop = asyncio.get_running_loop()
    transport, relay = await loop.create_datagram_endpoint(
        lambda: Relay(("127.0.0.1", options.target), network),
        local_addr=("127.0.0.1", options.port),
    )
    print(transport.get_extra_info("sockname")[1], flush=True)
    while True:
        await asyncio.sleep(1)
        passed, relay.second = relay.second, Passed()
        now, rate = time.monotonic(), relay.rate(time.monotonic())
        shown = {
            "time": round(now - (relay._start or now), 2),
            "capacity_kbit": None if rate is None else rate / 1e3,
            "kbit": round(passed.size * 8e-3, 1),
            "packets": passed.packets,
            "lost": passed.lost,
            "most_waited_ms": round(1e3 * max(passed.waited, default=0.0), 1),
        }
        print(json.dumps(shown), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", type=int)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--burst", type=float, default=1.0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--kbit", type=float)
    parser.add_argument("--halve-at", type=float)
    parser.add_argument("--outage", type=float, nargs=2, metavar=("EVERY", "SECONDS"))
    asyncio.run(_main(parser.parse_args()))
