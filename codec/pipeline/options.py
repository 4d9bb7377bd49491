"""What `lmc encode` is asked for, as a value, with its defaults and its bounds.

Light: the command line shows them in its help.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from codec.encoding.config import DEFAULT_SEARCH_RANGE, EncoderConfig, whole_number
from codec.encoding.rate_control import TARGET_RANGES
from codec.files.damage import DamagePolicy
from codec.format.constants import DEFAULT_GRID
from codec.limits import DEFAULT_LIMITS, Limits
from codec.models import DEFAULT_MODEL

__all__ = [
    "DEFAULT_SPLIT",
    "MOTION_SOURCES",
    "VideoOptions",
]

DEFAULT_SPLIT = "blocks.7"
MOTION_SOURCES = ("search", "zero", "none", "bitstream")


@dataclass(frozen=True, slots=True)
class VideoOptions:
    """What `lmc encode` is asked for; `frames` is half-open.

    `profile` is a file of `lmc calibrate`; without one, the shipped profile is used, or, where the
    model, the split or the weights are others, one measured on the first frames of the video.
    `profile_apart`: the stream has the hash of that file's profile only, and decoders are given it.
    `limits` are those of the decoders that the stream is for.
    `bitrate` (kbit/s, of the whole file) or `target_nrmse` (of the whole clip) is kept by choosing
    the qp of every frame, in place of `config.qp`; for an NRMSE, which counts errors everywhere
    alike, the importance that a profile predicts is left out.  `damaged` is what becomes of a
    damaged video: "stop" at the first damage, "skip" to the next key frame and count what was lost,
    or "conceal": take what a lenient decoder makes of it.  `preprocessing` is a TOML file that says
    how frames become the input of a network of one's own (`read_preprocessing`); `task` is what its
    outputs stand for: a name, or a TOML file (`tasks.description`); known of classifiers.
    `batch` frames go through the edge sub-model at once; the first of them waits for the last.
    `measure`: report NRMSE, the MD5 of every frame and what each syntax element costs; `evaluate`:
    finish the task on both sides as well, and compare both with `truth`, a file of annotations, if
    one is given; `truth_frames` says which frames they are of (`Truth.from_file`).
    """

    model: str = DEFAULT_MODEL
    split: str = DEFAULT_SPLIT
    weights: str = "default"
    native: bool = False
    frames: tuple[int, int | None] | None = None
    damaged: DamagePolicy = "stop"
    motion: str = MOTION_SOURCES[0]
    grid: int = DEFAULT_GRID
    search_range: int = DEFAULT_SEARCH_RANGE
    measure: bool = False
    evaluate: bool = False
    truth: Path | None = None
    truth_frames: int | Literal["order"] | None = None
    device: str = "cpu"
    batch: int = 1
    profile: Path | None = None
    profile_apart: bool = False
    preprocessing: Path | None = None
    task: str | None = None
    config: EncoderConfig = field(default_factory=EncoderConfig)
    bitrate: float | None = None
    target_nrmse: float | None = None
    limits: Limits = DEFAULT_LIMITS

    def __post_init__(self) -> None:
        """Refuse an unknown source of motion, targets that are none, a profile that nobody has."""
        if self.motion not in MOTION_SOURCES:
            raise ValueError(f"motion {self.motion!r} is none of {', '.join(MOTION_SOURCES)}")
        if whole_number("batch", self.batch) < 1:
            raise ValueError(f"batch {self.batch}, expected at least one frame")
        if self.truth is not None and not self.evaluate:
            raise ValueError("truth is given, and nothing that is compared with it; set evaluate")
        if self.bitrate is not None and self.target_nrmse is not None:
            raise ValueError("bitrate and target_nrmse are both given; one of them can be kept")
        if self.profile_apart and self.profile is None:
            raise ValueError("profile_apart without a profile: decoders could be given none")
        for name, (least, largest) in TARGET_RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= largest:
                raise ValueError(f"{name} {value} is not from {least:g} to {largest:g}")
