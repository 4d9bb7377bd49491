"""What forward error correction would be worth: an estimate, nothing is coded.

Of `data` frames, a datagram each, `parity` more are made (Reed-Solomon, as `zfec` does): any
`data` of all these give all.  What such a code restores depends on the losses alone:

    0 1 2 3 P P │ 4 5 6 7 P P │        parity together with the last frame of its group

A frame that is lost is restored when enough of its group is there, in time only if that is within
the latency allowed: so groups are short, while losses come in bursts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tools.link_study.link import Clock, Condition, Path

__all__ = ["GROUPS", "Parity"]

TRIALS: Final = 3000
"""Groups sent."""


@dataclass(frozen=True, slots=True)
class Parity:
    """So many datagrams of parity for so many of frames."""

    data: int
    parity: int

    @property
    def name(self) -> str:
        """Of its row."""
        return f"parity {self.data}+{self.parity}"

    @property
    def factor(self) -> float:
        """By how much it raises the rate."""
        return (self.data + self.parity) / self.data

    def fits(self, max_latency: float, frame_rate: float) -> bool:
        """Tell whether the first frame of a group, lost, is restored in time: with the last."""
        return (self.data - 1) / frame_rate <= max_latency

    def residual(self, condition: Condition, seed: int = 0) -> float:
        """Return the share of frames that stay lost; all parity is sent with the last frame."""
        clock = Clock()
        there: set[int] = set()
        path = Path(
            clock,
            Condition(delay=0.0, loss=condition.loss, burst=condition.burst),
            lambda content: there.add(int.from_bytes(content, "big")),
            lambda content: None,
            seed,
        )
        size = self.data + self.parity
        for number in range(TRIALS * size):
            path.send(number.to_bytes(4, "big"))
        clock.run(1.0)
        lost = 0
        for first in range(0, TRIALS * size, size):
            found = [number in there for number in range(first, first + size)]
            if sum(found) < self.data:
                lost += self.data - sum(found[: self.data])
        return lost / (TRIALS * self.data)


GROUPS = (Parity(1, 1), Parity(2, 1), Parity(3, 1), Parity(3, 2), Parity(4, 2), Parity(5, 1))
