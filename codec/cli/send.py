"""`lmc send`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codec.cli.group import main
from codec.cli.parameters import (
    DEVICE,
    EFFORT,
    FORCE,
    LIMITS,
    MAX_LATENCY,
    MODEL,
    NATIVE,
    PREPROCESSING,
    PROFILE,
    QP,
    QUALITY,
    SPLIT,
    TASK,
    TOKEN,
    WEIGHTS,
    Address,
    Fingerprint,
    FiniteRange,
    Target,
    own_files,
    split_or_default,
    token_of,
    usable_device,
    weight_file,
)
from codec.cli.terminal import check_files, progress, refuse_terminal, say
from codec.encoding.config import DEFAULT_QUALITY, QUALITIES, EncoderConfig
from codec.files.outputs import open_output, standard_stream, told_of_signals
from codec.format.constants import MAX_REFERENCES
from codec.limits import Limits
from codec.pipeline.options import VideoOptions

if TYPE_CHECKING:
    from codec.live.sending import Sender

__all__ = ["send"]

SECONDS = 0.5
"""Between two looks at how it goes."""


@main.command()
@click.argument("source")
@click.option(
    "--to",
    "address",
    type=Address(),
    metavar="HOST:PORT",
    required=True,
    help="Where `lmc receive` listens.",
)
@click.option(
    "--fingerprint",
    type=Fingerprint(),
    required=True,
    metavar="HEX",
    help="Of the receiver's certificate, as it prints it; nothing is sent to another one.",
)
@TOKEN
@MODEL
@SPLIT
@WEIGHTS
@PROFILE
@PREPROCESSING
@TASK
@NATIVE
@QUALITY
@QP
@click.option(
    "--bitrate",
    type=Target("bitrate"),
    metavar="KBIT",
    help="Most kbit/s; the link may carry less. Quality falls first, then frames are left out.",
)
@EFFORT
@MAX_LATENCY
@click.option(
    "--references",
    type=click.IntRange(2, MAX_REFERENCES),
    default=8,
    show_default=True,
    help="Frames that both ends keep: behind a loss, the next one is predicted from any of them "
    "that has arrived.",
)
@click.option(
    "--fps",
    type=FiniteRange(0.01, 1000),
    help="Read a file at this rate in place of its own.",
)
@click.option(
    "--every-frame",
    is_flag=True,
    help="Send all frames of a file, at the quality asked for, as fast as they are taken. Say so "
    "to `lmc receive` too.",
)
@click.option("--record", help="Also write the stream to this file, whatever becomes of it.")
@LIMITS
@click.option("-q", "--quiet", is_flag=True, help="No progress, no account on the terminal.")
@DEVICE
@FORCE
def send(
    source: str,
    address: tuple[str, int],
    fingerprint: str,
    token: str | None,
    model: str,
    split: str | None,
    weights: str,
    profile: Path | None,
    preprocessing: Path | None,
    task: str | None,
    native: bool,
    quality: str | None,
    qp: int | None,
    bitrate: float | None,
    effort: int,
    max_latency: float,
    references: int,
    fps: float | None,
    every_frame: bool,
    record: str | None,
    limits: Limits,
    quiet: bool,
    device: str,
    force: bool,
) -> None:
    """Send SOURCE (a file, a URL, a device, or - for standard input) to `lmc receive`, live.

    Of a source that gives frames faster than they can be sent, the newest is sent next. A file is
    read as a camera would be, at its own frame rate. The receiver says with which --fingerprint
    and --token.
    """
    import asyncio

    from codec.files.containers import is_live
    from codec.live.sending import Sender, SendOptions
    from codec.pipeline.edge import EdgeSource

    split = split_or_default(model, split)
    if quality is not None and qp is not None:
        raise click.UsageError("--quality and --qp exclude each other; give one of them")
    if token is None:
        raise click.UsageError("--token is needed; `lmc receive` prints it")
    live = is_live(source)
    if fps is not None and (live or every_frame):
        raise click.UsageError("--fps is of files that are read as a camera would be")
    if every_frame and bitrate is not None:
        raise click.UsageError("--every-frame keeps the quality; leave --bitrate out")
    check_files(
        {"--record": record},
        [
            ("SOURCE", source),
            *own_files(model, task),
            ("--profile", profile),
            ("--preprocessing", preprocessing),
            ("--weights", weight_file(weights)),
            ("--token", token),
        ],
        force=force,
    )
    if source == "-":
        refuse_terminal("stdin")
        standard_stream("stdin")
    config = EncoderConfig(
        qp=QUALITIES[quality or DEFAULT_QUALITY] if qp is None else qp, effort=effort
    )
    options = VideoOptions(
        model=model,
        split=split,
        weights=weights,
        profile=profile,
        preprocessing=preprocessing,
        task=task,
        native=native,
        damaged="conceal",  # a camera goes on
        device=usable_device(device),
        config=config,  # whose effort may ask for a classifier
        limits=limits,
    )
    sending = SendOptions(
        address=address,
        fingerprint=fingerprint,
        token=token_of(token),
        max_latency=max_latency,
        bitrate=bitrate,
        references=references,
        every_frame=every_frame,
        frame_rate=fps,
        live=live,
    )
    with ExitStack() as stack:
        opened = EdgeSource(source, options, live=live, references=references)
        file = None
        if record is not None:
            file = stack.enter_context(open_output(record, force=force))
        sender = Sender(
            opened,
            config,
            sending,
            record=file,
            limits=limits,
            tell=lambda line: None if quiet else say(f"lmc: {line}", err=True),
        )
        try:
            asyncio.run(_run(sender, opened.reader.frame_count_hint, quiet=quiet))
        finally:
            if not quiet and sender.account().frames:
                _tell(sender)


def _tell(sender: Sender) -> None:
    """Say what became of all frames, and how long one took."""
    from codec.live.figures import in_words

    account = sender.account()
    say(
        f"of {account.frames} frames {account.decoded} decoded, {account.lost} lost, "
        f"{account.given_up} given up, {account.skipped} skipped; "
        f"{sender.status.key_frames} key frames"
        + (f"; {sender.wishes} wishes granted" if sender.wishes else "")
        + in_words("latency", sender.latencies)
        + in_words("edge", sender.edge)
        + in_words("coding", sender.coding),
        err=True,
    )


async def _run(sender: Sender, frames: int | None, *, quiet: bool) -> None:
    import asyncio

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    with (
        told_of_signals(lambda: loop.call_soon_threadsafe(stop.set)),
        progress(frames, quiet=quiet) as advance,
    ):
        watching = asyncio.create_task(_watch(sender, advance))
        try:
            await sender.run(stop)
        finally:
            watching.cancel()


async def _watch(sender: Sender, advance: Any) -> None:  # noqa: ANN401 - tqdm's
    import asyncio

    seen = 0
    while True:
        await asyncio.sleep(SECONDS)
        status, latencies = sender.status, sender.latencies
        gone_by = status.frames_sent + status.frames_skipped
        text = f"{status.goodput * 1e-3:.0f} kbit/s, loss {status.loss:.1%}"
        middle, most = latencies.quantile(0.5), latencies.quantile(0.95)
        if middle is not None and most is not None:
            text += f", {middle * 1e3:.0f}/{most * 1e3:.0f} ms"
        advance(f"{text}, skipped {status.frames_skipped}", gone_by - seen)
        seen = gone_by
