"""`lmc receive`."""

from __future__ import annotations

import re
import shlex
import socket
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
from codec.files.outputs import (
    STANDARD_OUTPUT,
    named,
    open_output,
    standard_stream,
    told_of_signals,
)
from codec.limits import Limits

if TYPE_CHECKING:
    from codec.live.page import LivePage
    from codec.live.receiving import Receiver

__all__ = ["receive"]

ANYWHERE = {"0.0.0.0", "::"}
SECONDS = 0.25
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
@click.option(
    "--page",
    type=Address("127.0.0.1"),
    metavar="[HOST:]PORT",
    help="Show what comes in on a page at this port, to browsers of this machine unless a host is "
    "named.",
)
@click.option(
    "--focus",
    is_flag=True,
    help="Ask senders to code finer where the latest results have boxes, and coarser elsewhere.",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(128, 1 << 20),
    default=2048,
    show_default=True,
    help="What --focus may ask a sender in a second.",
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
    page: tuple[str, int] | None,
    focus: bool,
    max_bytes: int,
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
    import asyncio

    from codec.format.profile import Profile
    from codec.live.identity import Identity, made_token
    from codec.live.page import LivePage
    from codec.live.receiving import ReceiveOptions, Receiver

    if focus and every_frame:
        raise click.UsageError("--every-frame keeps the quality everywhere; leave --focus out")
    if focus and task is None and page is None:
        raise click.UsageError("--focus goes by results; give --task")
    if record == "-":
        raise click.UsageError("--record names a file")
    later = {} if record is None else _later(Path(record), senders, force=force)
    check_files(
        {"--task": task, "--record": record, **later},
        [
            ("--token", token),
            ("--identity", identity),
            ("--profile", profile),
            ("--model", model),
            ("--weights", weight_file(weights)),
        ],
        force=force,
    )
    secret = made_token() if token is None else token_of(token)
    options = ReceiveOptions(
        address=address,
        token=secret,
        max_latency=max_latency,
        senders=senders,
        every_frame=every_frame,
        finish=task is not None,
        look=page is not None,
        focus=focus,
        max_bytes=max_bytes,
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
        shown = None
        if page is not None:
            shown = stack.enter_context(LivePage(page[1], page[0]))
            say(f"page at {shown.address}", err=True)
        told = secret if token is None else token
        asyncio.run(_run(receiver, known.fingerprint, told, shown, quiet=quiet))


@contextmanager
def _rows(path: str, *, force: bool) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    """Yield what writes results as they come; the file is there from the start, to be followed."""
    lock = threading.Lock()
    with ExitStack() as stack:
        if path == "-":
            file = named(standard_stream("stdout"), STANDARD_OUTPUT)
        else:
            new = not (force or Path(path).exists())  # then it is a device, or it was refused
            opened: BinaryIO = Path(path).open("xb" if new else "wb")  # noqa: SIM115 - kept open
            file = stack.enter_context(named(opened, path))

        def write(rows: list[dict[str, Any]]) -> None:
            content = b"".join(map(json_line, rows))
            with lock:
                file.write(content)
                file.flush()

        yield write


def _later(name: Path, senders: int, *, force: bool) -> dict[str, str]:
    """Return what the recordings of senders behind the first are called, so that they are checked
    before any comes: those of as many as may be here at once, and whatever is there already.
    """
    found = {_numbered(name, number) for number in range(2, senders + 1)}
    if not force and name.parent.is_dir():
        pattern = re.compile(re.escape(name.stem) + r"-[0-9]+" + re.escape(name.suffix))
        found |= {path for path in name.parent.iterdir() if pattern.fullmatch(path.name)}
    return {f"--record of a later sender ({path.name})": str(path) for path in sorted(found)}


def _numbered(name: Path, number: int) -> Path:
    return name if number == 1 else name.with_stem(f"{name.stem}-{number}")


def _recordings(path: str, *, force: bool) -> Callable[[int], AbstractContextManager[BinaryIO]]:
    """Return what opens the recording of a sender, by its number."""
    name = Path(path)

    def record(number: int) -> AbstractContextManager[BinaryIO]:
        return open_output(str(_numbered(name, number)), force=force)

    return record


async def _run(
    receiver: Receiver, fingerprint: str, token: str, page: LivePage | None, *, quiet: bool
) -> None:
    import asyncio

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
    with (
        told_of_signals(lambda: loop.call_soon_threadsafe(stop.set)),
        progress(None, quiet=quiet) as advance,
    ):
        watching = asyncio.create_task(_watch(receiver, advance, page))
        try:
            await receiver.run(stop)
        finally:
            watching.cancel()


async def _watch(receiver: Receiver, advance: Any, page: LivePage | None) -> None:  # noqa: ANN401
    import asyncio

    seen: dict[int, int] = {}
    while True:
        await asyncio.sleep(SECONDS)
        status = receiver.status()
        if page is not None:
            page.update(status)
        frames, texts = 0, []
        for sender in status.senders:
            total = sender.decoded + sender.concealed
            frames += total - seen.get(sender.number, 0)
            seen[sender.number] = total
            if not sender.connected:
                continue
            text = f"{sender.kbit_per_s:.0f} kbit/s, loss {sender.loss:.1%}"
            if sender.latency_p50 is not None and sender.latency_p95 is not None:
                text += f", {sender.latency_p50 * 1e3:.0f}/{sender.latency_p95 * 1e3:.0f} ms"
            texts.append(f"{text}, concealed {sender.concealed}")
        advance("; ".join(texts), frames)
