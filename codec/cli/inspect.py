"""`lmc inspect`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from codec.cli.group import main
from codec.cli.parameters import LIMITS, PROFILE_APART
from codec.cli.streams import open_stream
from codec.cli.terminal import check_files, say
from codec.files.outputs import one_line
from codec.limits import Limits

if TYPE_CHECKING:
    from codec.inspection import FrameContents, StreamContents

__all__ = ["inspect"]

MOST_SHOWN = 1000
"""Characters of a value: a task may have thousands of labels.  --json has all of them."""


@main.command()
@click.argument("stream")
@PROFILE_APART
@click.option("--json", "as_json", is_flag=True, help="Everything, frame by frame, as JSON.")
@LIMITS
def inspect(stream: str, profile: Path | None, as_json: bool, limits: Limits) -> None:
    """Say what is in STREAM: header, and bits per frame and per syntax element.

    Of a stream that is cut, still being written, or damaged, the frames before that; then the error
    is told, the exit code is 1, and --json has it as `error`.
    """
    from codec.format.profile import Profile
    from codec.inspection import inspected

    check_files({}, [("STREAM", stream), ("--profile", profile)], force=False)
    given = None if profile is None else Profile.load(profile)
    with open_stream(stream, limits) as reader:
        found = inspected(reader, given)
    if as_json:
        content = asdict(found)
        del content["fault"]
        if found.fault is not None:
            content["error"] = one_line(found.fault)
        say(json.dumps(content, indent=1))
    else:
        _print_stream(found)
    if found.fault is not None:
        raise found.fault


def _print_stream(found: StreamContents) -> None:
    for key, value in found.header.items():
        text = str(value)
        say(f"{key:16} {text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + '…'}")
    say(f"{'bytes':16} {found.bytes}: header {found.bytes_header}, end packet {found.bytes_end}")
    elements = sorted({element for frame in found.frames for element in frame.bits})
    titles = ("frame", "type", "pts", "qp", "bytes", "framing")
    slots = found.header["references"] != 1
    say("\n" + " ".join(f"{title:>9}" for title in titles) + "  slots" * slots, nl=False)
    say("".join(f"  {element}" for element in elements) + "   [bits]")
    for frame in found.frames:
        cells = (frame.frame, frame.type, frame.pts, frame.qp, frame.bytes, 8 * frame.bytes_framing)
        say(" ".join(f"{cell:>9}" for cell in cells), nl=False)
        if slots:
            say(f"  {'' if frame.slots is None else '{}>{}'.format(*frame.slots):>5}", nl=False)
        say("".join(f"  {frame.bits.get(e, 0):>{len(e)}.1f}" for e in elements))
    for kind in ("key", "inter", "repeat"):
        chosen = [frame for frame in found.frames if frame.type == kind]
        if chosen:
            say(f"{kind} frames: {len(chosen)}, on average {_average(chosen)}")


def _average(frames: Sequence[FrameContents]) -> str:
    total: dict[str, float] = defaultdict(float)
    for frame in frames:
        for element, bits in frame.bits.items():
            total[element] += bits / 8
    parts = {"framing": sum(frame.bytes_framing for frame in frames), **total}
    size = sum(frame.bytes for frame in frames) / len(frames)
    rest = size - sum(parts.values()) / len(frames)
    listed = ", ".join(f"{name} {value / len(frames):.1f}" for name, value in parts.items())
    return f"{size:.1f} bytes: {listed}, rounding up to bytes {rest:.1f}"
