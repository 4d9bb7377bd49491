"""What becomes of a damaged video, and what it has lost so far: values, without a decoder.

Damage has one policy: a frame that the decoder or the container calls damaged, or that was
predicted from one, is never given.  Either reading stops there, with the number of the frame
("stop"), or it goes on at the next key frame and counts what was lost ("skip").  What is in front
of the first frame that can be decoded is passed over and counted in both: recordings often start
inside a GOP.  Who would rather see painted-over damage than none of it asks for "conceal".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

__all__ = ["DAMAGE_POLICIES", "Damage", "DamagePolicy"]

DamagePolicy = Literal["stop", "skip", "conceal"]
DAMAGE_POLICIES: Final[tuple[DamagePolicy, ...]] = get_args(DamagePolicy)


@dataclass(slots=True)
class Damage:
    """What a video has lost so far.

    `places` counts damaged places, one that lies in front of the first frame included; `frames` the
    frames that are missing there, by their packets or, where those are gone too, by the time that
    passed.
    """

    places: int = 0
    frames: int = 0
