"""`lmc receive`."""

from __future__ import annotations

import asyncio
import shlex
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from codec.cli.group import main
from codec.cli.parameters import (
    DEVICE,
    FORCE,
    LIMITS,
    MAX_LATENCY,
    PROFILE_APART,
    TOKEN,
    Address,
    FrameSize,
    token_of,
    usable_device,
    weight_file,
)
from codec.cli.terminal import check_files, json_line, progress, say
from codec.files.outputs import STANDARD_OUTPUT, named, open_output, standard_stream
from codec.files.outputs import told_of_signals as told
from codec.limits import Limits

if TYPE_CHECKING:
    from codec.live.receiving import Receiver

__all__ = ["receive"]

ANYWHERE = {"0.0.0.0", "::"}
SECONDS = 0.5
"""Between two looks at how it goes."""


@main.command()
@click.option(
    "--listen",
    "address",
    type=Address(),
    metavar="HOST:PORT",
    default="127.0.0.1:4433",
    show_default=True,
    help="Where to listen; 0.0.0.0 is all of this machine's addresses, port 0 any that is free.",
)
@TOKEN
@click.option(
    "--identity",
    type=click.Path(dir_okay=False, path_type=Path),
    help="PEM file with the receiver's key and certificate, made if there is none, so that senders "
    "know it again; default: a new one every time.",
)
@click.option(
    "--task",
    help="Finish the task and write its results, one JSON object a line, as they come: those of "
    '`lmc decode --task`, with "concealed": true where a frame was made up; - is standard output.',
)
@click.option(
    "--source-size",
    type=FrameSize(),
    metavar="WxH",
    help="Size of the source's upright frames: places in results are in their pixels.",
)
@click.option(
    "--record",
    help="Write what arrives as a stream; of a second sender to NAME-2.lmc, and so on.",
)
@click.option(
    "--senders",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help='Most senders at once; with more than one, results have a "sender", counted from 1 on.',
)
@MAX_LATENCY
@click.option(
    "--every-frame",
    is_flag=True,
    help="Wait for every frame and every result, for `lmc send --every-frame`.",
)
@PROFILE_APART
@click.option("--model", help="File of the network, if senders use one of their own.")
@click.option("--weights", help="Weight file, if senders use one.")
@click.option("--any-weights", is_flag=True, help="Accept other weights than senders use.")
@LIMITS
@click.option("-q", "--quiet", is_flag=True, help="No progress on the terminal.")
@DEVICE
@FORCE
def receive(
    address: tuple[str, int],
    token: str | None,
    identity: Path | None,
    task: str | None,
    source_size: tuple[int, int] | None,
    record: str | None,
    senders: int,
    max_latency: float,
    every_frame: bool,
    profile: Path | None,
    model: str | None,
    weights: str | None,
    any_weights: bool,
    limits: Limits,
    quiet: bool,
    device: str,
    force: bool,
) -> None:
    """Receive what `lmc send` sends, decode it, and finish the task, until ended by a signal.

    Prints on standard error what senders need: the address, the fingerprint of the certificate and
    the token.
    """
    from codec.format.profile import Profile
    from codec.live.identity import Identity, made_token
    from codec.live.receiving import ReceiveOptions, Receiver

    check_files(
        {"--task": task, "--record": record},
        [
            ("--token", token),
            ("--identity", identity),
            ("--profile", profile),
            ("--model", model),
            ("--weights", weight_file(weights)),
        ],
        force=force,
    )
    if record == "-":
        raise click.UsageError("--record names a file")
    secret = made_token() if token is None else token_of(token)
    options = ReceiveOptions(
        address=address,
        token=secret,
        max_latency=max_latency,
        senders=senders,
        every_frame=every_frame,
        finish=task is not None,
        model=model,
        weights=weights,
        any_weights=any_weights,
        profile=None if profile is None else Profile.load(profile),
        source_size=source_size,
        device=usable_device(device),
        limits=limits,
    )
    known = Identity.make() if identity is None else Identity.kept_in(identity)
    with ExitStack() as stack:
        write = None if task is None else stack.enter_context(_rows(task, force=force))
        receiver = Receiver(
            options,
            known,
            write=write,
            record=None if record is None else _recordings(record, force=force),
            tell=lambda line: say(f"lmc: {line}", err=True),
        )
        shown = secret if token is None else token
        asyncio.run(_run(receiver, known.fingerprint, shown, quiet=quiet))


@contextmanager
def _rows(path: str, *, force: bool) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    """Yield what writes results as they come; the file is there from the start, to be followed."""
    lock = threading.Lock()
    with ExitStack() as stack:
        if path == "-":
            file = named(standard_stream("stdout"), STANDARD_OUTPUT)
        else:
            opened: BinaryIO = Path(path).open("wb" if force else "xb")  # noqa: SIM115 - kept open
            file = named(stack.enter_context(opened), path)

        def write(rows: list[dict[str, Any]]) -> None:
            content = b"".join(map(json_line, rows))
            with lock:
                file.write(content)
                file.flush()

        yield write


def _recordings(path: str, *, force: bool) -> Callable[[int], AbstractContextManager[BinaryIO]]:
    """Return what opens the recording of a sender, by its number."""
    name = Path(path)

    def record(number: int) -> AbstractContextManager[BinaryIO]:
        own = name if number == 1 else name.with_stem(f"{name.stem}-{number}")
        return open_output(str(own), force=force)

    return record


async def _run(receiver: Receiver, fingerprint: str, token: str, *, quiet: bool) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    host, port = await receiver.open()
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    reach = f"{socket.gethostname()}:{port}" if host in ANYWHERE else place
    say(f"listening at {place}", err=True)
    say(f"fingerprint  {fingerprint}", err=True)
    say(f"token        {token}", err=True)
    say(
        f"lmc send SOURCE --to {reach} --fingerprint {fingerprint} --token {shlex.quote(token)}",
        err=True,
    )
    sys.stderr.flush()
    with (
        told(lambda: loop.call_soon_threadsafe(stop.set)),
        progress(None, quiet=quiet) as advance,
    ):
        watching = asyncio.create_task(_watch(receiver, advance))
        try:
            await receiver.run(stop)
        finally:
            watching.cancel()


async def _watch(receiver: Receiver, advance: Any) -> None:  # noqa: ANN401 - tqdm's
    seen: dict[int, int] = {}
    while True:
        await asyncio.sleep(SECONDS)
        frames, texts = 0, []
        for channel in list(receiver.channels.values()):
            counts = channel.counts
            now = counts.decoded + counts.concealed
            frames += now - seen.get(channel.number, 0)
            seen[channel.number] = now
            text = f"loss {channel.status.loss:.1%}, concealed {counts.concealed}"
            middle, most = channel.latencies.quantile(0.5), channel.latencies.quantile(0.95)
            if middle is not None and most is not None:
                text += f", {middle * 1e3:.0f}/{most * 1e3:.0f} ms"
            texts.append(text)
        advance("; ".join(texts), frames)
