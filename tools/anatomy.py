"""Where the bits of streams go: by syntax element, by kind of frame, by mode of block.

    python -m tools.anatomy STREAMS... [-o anatomy.csv]

Payloads are divided by the ideal code lengths of their elements, as `lmc inspect` does.  Of streams
whose profile is not in them, the profile is not counted; of others it stands apart from the frames.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from codec.files.streams import StreamReader
from codec.format.profile import Profile
from codec.inspection import FrameContents, StreamContents, inspected
from tools.running.outputs import guarded

ELEMENTS = ("framing", "motion", "modes", "offsets", "levels")
TITLES = (
    "stream", "frames", "bytes per frame", "key frames", "key", "repeat",
    *ELEMENTS, "levels of key frames", "skip", "inter", "intra",
)  # fmt: skip
"""From `key` on: shares of all bytes of frames; `repeat`: of all frames; `skip`, `inter`, `intra`:
of all blocks of inter frames."""


@click.command()
@click.argument("streams", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--profile", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(streams: tuple[Path, ...], output: Path | None, profile: Path | None) -> None:
    """Say where the bits of STREAMS go; -o writes the table as CSV, in full precision."""
    outputs = {} if output is None else {"-o": str(output)}
    with guarded(outputs, [("STREAMS", stream) for stream in streams]):
        given = None if profile is None else Profile.load(profile)
        rows = [_row(stream, given) for stream in streams]
        if output is not None:
            with output.open("w", newline="") as file:
                table = csv.writer(file)
                table.writerow(TITLES)
                table.writerows(rows)
    click.echo("| " + " | ".join(TITLES) + " |")
    click.echo("|---" + "|---:" * (len(TITLES) - 1) + "|")
    for name, frames, rate, *rest in rows:
        cells = (f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in rest)
        click.echo(f"| {name} | {frames} | {rate:.1f} | " + " | ".join(cells) + " |")


def _row(path: Path, profile: Profile | None) -> Sequence[str | int | float]:
    with path.open("rb") as file:
        found: StreamContents = inspected(StreamReader(file), profile)
    if found.fault is not None:
        raise found.fault
    if not found.frames:
        raise click.ClickException(f"{path}: no frames; there is nothing to divide")
    frames = found.frames
    size = sum(frame.bytes for frame in frames)
    keys = [frame for frame in frames if frame.type == "key"]
    parts = _parts(frames)
    others = [frame for frame in frames if frame.type == "inter"]
    blocks = {mode: sum(frame.blocks[mode] for frame in others) for mode in frames[0].blocks}
    count = max(sum(blocks.values()), 1)
    return (
        path.stem,
        len(frames),
        size / len(frames),
        len(keys),
        sum(frame.bytes for frame in keys) / size,
        sum(frame.type == "repeat" for frame in frames) / len(frames),
        *(parts[element] / size for element in ELEMENTS),
        _parts(keys)["levels"] / size,
        *(blocks[mode] / count for mode in ("skip", "inter", "intra")),
    )


def _parts(frames: Iterable[FrameContents]) -> dict[str, float]:
    """Divide frames among their elements, in bytes."""
    total = dict.fromkeys(ELEMENTS, 0.0)
    for frame in frames:
        total["framing"] += frame.bytes_framing
        payload, bits = frame.bytes - frame.bytes_framing, sum(frame.bits.values())
        for element, length in frame.bits.items():
            total[element.split()[0]] += payload * length / bits
    return total


if __name__ == "__main__":
    main()
