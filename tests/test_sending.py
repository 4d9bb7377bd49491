"""The live link from end to end on the loopback: results, refusals, reconnection, recordings."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("aioquic")

from aioquic.quic.connection import QuicConnection
from live_ends import (
    FRAMES,
    TOKEN,
    LossyRelay,
    send,
    sender,
    serving,
    video_options,
    write_inputs,
)

from codec.errors import LinkError
from codec.files.streams import StreamReader, StreamWriter
from codec.link.events import Ended, Missing
from codec.link.receiver import ReceiverSession
from codec.link.sender import SenderSession
from codec.link.upstream import LINK_VERSION, Bye, FrameHead, Header, Hello, WholeFrame
from codec.link.wishes import ImportanceGrid
from codec.live.identity import Identity
from codec.live.receiving import Channel, Counts, _Work
from codec.live.sending import Sender, _Quality
from codec.live.transport import Connection, connect, listen
from codec.normative.decoder import Decoder
from codec.pipeline.decoding import TaskOutput, decode_frames, model_of
from codec.pipeline.edge import EdgeSource
from codec.pipeline.encoding import VideoEncoder

pytestmark = [pytest.mark.video]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("live"))


def decoded(folder: Path, stream: bytes) -> tuple[list[dict[str, object]], list[str]]:
    """The rows and the MD5s of a stream."""
    reader = StreamReader(io.BytesIO(stream))
    split = model_of(
        reader.header,
        model=str(folder / "small.pt2"),
        weights=None,
        any_weights=False,
        device="cpu",
    )
    output = TaskOutput(reader.header, split)
    rows, sums = [], []
    for number, frame in decode_frames(reader):
        result = output.result(output.outputs(frame.features))
        rows += output.rows(number, frame, result)
        sums.append(frame.md5())
    return rows, sums


@pytest.fixture(scope="module")
def expected(folder: Path) -> tuple[list[dict[str, object]], list[str]]:
    """What `lmc encode | lmc decode` makes of the clip."""
    encoder, file = VideoEncoder(folder / "clip.mkv", video_options(folder)), io.BytesIO()
    writer = StreamWriter(file, encoder.header)
    for encoded in encoder:
        writer.write(encoded.packet)
    writer.close()
    return decoded(folder, file.getvalue())


class Recordings:
    """Streams recorded in memory, by the number of their sender."""

    def __init__(self) -> None:
        self.files: dict[int, io.BytesIO] = {}

    def __call__(self, number: int):
        @contextmanager
        def opened():
            yield self.files.setdefault(number, io.BytesIO())

        return opened()


def test_every_frame_gives_the_results_of_files(folder, expected):
    recordings, sent = Recordings(), io.BytesIO()
    with serving(folder, every_frame=True, record=recordings) as served:
        status = send(folder, served, every_frame=True, record=sent).status
    rows, sums = expected
    assert rows
    assert served.rows == rows
    assert (status.frames_sent, status.frames_acked, status.key_frames) == (FRAMES, FRAMES, 1)
    for stream in (sent, recordings.files[1]):
        assert decoded(folder, stream.getvalue()) == (rows, sums)
    assert any(
        "of 12 frames 12 decoded, 0 concealed, 0 skipped, 0 lost" in line for line in served.lines
    )


def test_a_file_at_its_own_pace(folder, expected):
    recordings, sent = Recordings(), io.BytesIO()
    with serving(folder, record=recordings) as served:
        start = time.monotonic()
        made = send(folder, served, frame_rate=10, bitrate=4000, record=sent)
    status = made.status
    assert time.monotonic() - start >= (FRAMES - 2) / 10
    assert status.frames_sent + status.frames_skipped == FRAMES
    assert status.frames_acked == status.frames_sent >= FRAMES / 2
    assert decoded(folder, sent.getvalue())[1] == decoded(folder, recordings.files[1].getvalue())[1]
    assert 0 < made.latencies.quantile(0.5) < 5
    if not status.frames_skipped:  # as on a machine with time to spare
        assert served.rows == expected[0]


def test_wrong_token(folder):
    with (
        serving(folder) as served,
        pytest.raises(LinkError, match=r"^the receiver refuses: wrong token; the receiver prints"),
    ):
        send(folder, served, token="open barley")
    assert any("wrong token" in line for line in served.lines)
    assert served.rows == []


def test_wrong_fingerprint(folder):
    other = Identity.make().fingerprint
    with serving(folder) as served, pytest.raises(LinkError) as caught:
        send(folder, served, fingerprint=other)
    assert served.fingerprint in str(caught.value)
    assert other in str(caught.value)


def test_a_network_that_the_receiver_is_not_given(folder):
    with (
        serving(folder, model=None) as served,
        pytest.raises(
            LinkError, match="the receiver refuses: the stream was made with the network"
        ),
    ):
        send(folder, served)
    assert any("pass it with --model FILE" in line for line in served.lines)


@pytest.mark.slow
def test_one_sender_more_than_there_may_be(folder, monkeypatch):
    monkeypatch.setattr("codec.live.sending.BUSY_SECONDS", 0.3)
    with serving(folder, every_frame=True) as served:
        first = threading.Thread(target=send, args=(folder, served), kwargs={"frame_rate": 3})
        first.start()
        while not served.rows:
            time.sleep(0.01)
        with pytest.raises(LinkError, match="the receiver refuses: 1 senders are connected"):
            send(folder, served, every_frame=True)
        first.join()
    assert not any("sender" in row for row in served.rows)


async def both(*senders: Sender) -> None:
    await asyncio.gather(*(each.run(asyncio.Event()) for each in senders))


def test_several_senders(folder, expected):
    with serving(folder, every_frame=True, senders=2) as served:
        # one after another: torch does not trace in two threads at once
        senders = [sender(folder, served, every_frame=True) for _ in range(2)]
        asyncio.run(both(*senders))
    for number in (1, 2):
        rows = [row for row in served.rows if row["sender"] == number]
        assert [{k: v for k, v in row.items() if k != "sender"} for row in rows] == expected[0]


def test_garbage_at_the_port_changes_nothing(folder, expected):
    with serving(folder, every_frame=True) as served:
        over = threading.Event()

        def disturb() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                while not over.is_set():
                    stranger.sendto(os.urandom(1200), served.address)
                    stranger.sendto(b"\xc3\0\0\0\1\x08" + os.urandom(1300), served.address)
                    time.sleep(0.005)

        disturbing = threading.Thread(target=disturb)
        disturbing.start()
        send(folder, served, every_frame=True)
        over.set()
        disturbing.join()
    assert served.rows == expected[0]


def test_the_receiver_restarts(folder):
    identity, sent = Identity.make(), io.BytesIO()
    with serving(folder, identity) as served:
        address = served.address
        made = sender(folder, served, frame_rate=4, record=sent)
        thread = threading.Thread(target=lambda: asyncio.run(made.run(asyncio.Event())))
        thread.start()
        while not served.rows:
            time.sleep(0.01)
    with serving(folder, identity, address=address) as again:
        thread.join()
    assert again.rows
    assert made.connections >= 2
    assert made.status.key_frames >= 2
    assert made.status.frames_skipped > 0
    decoded(folder, sent.getvalue())


def test_a_picture_that_froze_in_a_squeeze_thaws():
    """So coarse that nothing is left of it, each frame repeats the last; with room again, none."""
    quality = _Quality(SimpleNamespace(qp=lambda number: 16))
    plan = SimpleNamespace(number=1, most_bytes=1000.0)
    squeezed = SimpleNamespace(key=False, repeat=False, qp=49, payload=bytes(900))
    repeated = SimpleNamespace(key=False, repeat=True, qp=49, payload=b"")
    quality.note(plan, squeezed)
    tried = []
    for _ in range(40):
        quality.note(plan, repeated)
        tried.append(quality.next(plan)[0])
    assert tried == [max(qp, 16) for qp in range(48, 8, -1)]


def test_a_stop_ends_both(folder):
    sent, recordings = io.BytesIO(), Recordings()

    async def run() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(made.run(stop))
        while not served.rows:
            await asyncio.sleep(0.01)
        stop.set()
        await running

    with serving(folder, record=recordings) as served:
        made = sender(folder, served, frame_rate=2, record=sent)
        asyncio.run(run())
    assert 0 < made.status.frames_sent < FRAMES
    account, theirs = made.account(), served.account()
    assert account.frames == theirs["frames"] <= FRAMES
    assert account.decoded == theirs["decoded"]
    assert account.decoded + account.lost + account.given_up + account.skipped == account.frames
    assert decoded(folder, sent.getvalue())[1] == decoded(folder, recordings.files[1].getvalue())[1]


def test_lost_frames_are_concealed_and_no_key_frame_comes(folder):
    recordings, sent = Recordings(), io.BytesIO()
    with (
        serving(folder, record=recordings, max_latency=1.0) as served,
        # for longer than anything may be sent again
        LossyRelay(served.address, lambda count: 20 < count <= 60) as relay,
    ):
        made = send(
            folder,
            served,
            clip="long.mkv",
            address=relay.address,
            frame_rate=8,
            record=sent,
            max_latency=1.0,
        )
    status = made.status
    assert status.frames_lost > 0
    assert status.key_frames == 1
    concealed = {row["image_id"] for row in served.rows if "concealed" in row}
    good = {row["image_id"] for row in served.rows if "concealed" not in row}
    assert concealed
    assert not concealed & good
    assert [row["image_id"] for row in served.rows] == sorted(
        row["image_id"] for row in served.rows
    )
    # what has arrived is decoded as it was sent, and nothing else
    theirs = decoded(folder, recordings.files[1].getvalue())[1]
    ours = decoded(folder, sent.getvalue())[1]
    assert len(theirs) == status.frames_acked
    assert set(theirs) <= set(ours)
    # and both ends know of each frame what became of it
    account, theirs = made.account(), served.account()
    assert account.frames == theirs["frames"] == total(theirs) == 4 * FRAMES
    assert account.decoded + account.lost + account.given_up + account.skipped == 4 * FRAMES
    assert theirs["decoded"] + theirs["decoded late"] == account.decoded
    assert theirs["concealed"] >= len(concealed)


def test_nobody_listens(folder, monkeypatch):
    monkeypatch.setattr("codec.live.transport.HANDSHAKE_SECONDS", 0.3)
    monkeypatch.setattr("codec.live.sending.FIRST_SECONDS", 1.0)
    lines: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        start = time.monotonic()
        with pytest.raises(LinkError, match=r"no receiver answers$"):
            send(folder, None, address=silent.getsockname(), fingerprint="0" * 64, tell=lines)
        assert time.monotonic() - start > 1.0
    (line,) = lines
    assert line.endswith("no receiver answers; trying again for 1 seconds")


def test_nobody_listens_and_it_is_stopped(folder):
    async def run(address: tuple[str, int]) -> None:
        stop = asyncio.Event()
        made = sender(folder, None, address=address, fingerprint="0" * 64)
        asyncio.get_running_loop().call_later(0.3, stop.set)
        await made.run(stop)
        assert made.account().frames == made.account().skipped

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        asyncio.run(run(silent.getsockname()))


def test_the_first_attempt_falls_into_an_outage(folder, monkeypatch):
    monkeypatch.setattr("codec.live.transport.HANDSHAKE_SECONDS", 0.3)
    begin, lines = time.monotonic(), []
    with (
        serving(folder, every_frame=True) as served,
        LossyRelay(served.address, lambda _: time.monotonic() - begin < 2) as relay,
    ):
        begin = time.monotonic()
        made = send(folder, served, address=relay.address, every_frame=True, tell=lines)
    assert made.status.frames_acked == FRAMES
    assert len(lines) == 1


def total(account: dict[str, int]) -> int:
    return sum(account[outcome] for outcome in ("decoded", "concealed", "skipped", "lost"))


def test_a_backlog_holds_no_stop_up(folder):
    made = []

    def write(rows: object) -> None:
        made.append(rows)
        time.sleep(0.4)

    with serving(folder, write=write, max_latency=60) as served:
        thread = threading.Thread(target=send, args=(folder, served), kwargs={"frame_rate": 25})
        thread.start()
        while not made:
            time.sleep(0.01)
        time.sleep(1.0)
        start = time.monotonic()
        served.stop()
        assert time.monotonic() - start < 2.5
        thread.join()
    account = served.account()
    assert total(account) == account["frames"]


def test_a_sender_that_vanishes_is_accounted_for(folder):
    async def vanish() -> None:
        running = asyncio.create_task(made.run(asyncio.Event()))
        while len(served.rows) < 2:
            await asyncio.sleep(0.01)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    with serving(folder) as served:
        made = sender(folder, served, frame_rate=5)
        asyncio.run(vanish())
    account, ours = served.account(), made.account()
    assert 0 < total(account) == account["frames"] <= FRAMES
    assert ours.frames == ours.decoded + ours.lost + ours.given_up + ours.skipped


def channel(concealed: object = None) -> Channel:
    """Of a sender that nothing comes from."""
    options = SimpleNamespace(max_bytes=0, every_frame=True, focus=False, max_latency=1.0)
    found = Channel(SimpleNamespace(options=options), SimpleNamespace(), 1)
    found._work = SimpleNamespace(
        counts=Counts(decoded=10),
        conceal=lambda number: concealed,
        finish=lambda shown, frame: ([], ()),
        close=lambda: None,
        header=None,
    )
    return found


def test_what_waits_behind_the_end_when_it_is_stopped_never_was():
    async def run() -> None:
        found = channel()
        found._task.cancel()
        found._waiting.extend([Missing(9), Missing(10), Missing(11), Ended(10)])
        found._forgo()
        assert found.counts == Counts(decoded=10, lost=1)

    asyncio.run(run())


@pytest.mark.parametrize("concealed", [None, "a frame"])
def test_however_much_was_made_up_behind_the_end_never_was(concealed):
    async def run() -> None:
        found = channel(concealed)
        found._waiting.extend([*map(Missing, range(10, 1010)), Ended(12)])
        found._ready.set()
        await until(lambda: found.over)
        found._task.cancel()
        made_up = {"lost": 2} if concealed is None else {"concealed": 2}
        assert found.counts == Counts(decoded=10, **made_up)
        assert [shown.number for shown in found._frames] == []

    asyncio.run(run())


def test_a_recording_whose_end_cannot_be_written_is_closed():
    work, file = _Work(SimpleNamespace(), 1), io.BytesIO()
    work._files.enter_context(file)
    work._writer = SimpleNamespace(close=lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        work.close()
    assert file.closed
    work.close()


def test_the_source_is_closed_though_nobody_lets_it_in(folder, monkeypatch):
    monkeypatch.setattr("codec.live.sending.WELCOME_SECONDS", 0.3)
    monkeypatch.setattr("codec.live.sending.FIRST_SECONDS", 0.1)
    closed = []

    async def silent() -> None:
        identity = Identity.make()
        listener = await listen(("127.0.0.1", 0), identity, lambda _: None, largest=512)
        made = sender(folder, None, address=listener.address, fingerprint=identity.fingerprint)
        monkeypatch.setattr(made._source, "close", lambda: closed.append(True))
        try:
            with pytest.raises(LinkError, match="does not say whether we may send"):
                await made.run(asyncio.Event())
        finally:
            listener.close()

    asyncio.run(silent())
    assert closed == [True]


# --- the back channel -----------------------------------------------------------------------------


def test_wishes_are_granted(folder):
    sent = io.BytesIO()
    with serving(folder) as served:
        with pytest.raises(ValueError, match="qp 52 is outside"):
            served.receiver.request_quality(52, 1)
        made = sender(folder, served, frame_rate=4, record=sent)
        thread = threading.Thread(target=lambda: asyncio.run(made.run(asyncio.Event())))
        thread.start()
        while len(served.rows) < 2:
            time.sleep(0.01)
        served.receiver.request_quality(3, 4)
        grid = ImportanceGrid.of([[2.0**10, 1], [1, 1]])
        served.receiver.importance(grid, sender=1)
        served.receiver.importance(grid, sender=2)  # who is not here
        (channel,) = served.receiver.channels.values()
        served.call(lambda: channel.session.importance(b"none"))
        served.call(channel._pump)
        thread.join()
    assert made.wishes == 2
    assert made.status.refused == {"malformed": 1}
    qps = [packet.qp for packet in StreamReader(io.BytesIO(sent.getvalue()))]
    assert min(qps) <= 3
    assert max(qps) == 16
    errors = corner_and_rest(folder, sent.getvalue())
    assert errors[0] < errors[1] / 3


def corner_and_rest(folder: Path, stream: bytes) -> tuple[float, float]:
    """The mean square errors of a stream's last frame, in its first quarter and elsewhere."""
    reader = StreamReader(io.BytesIO(stream))
    *_, (_, frame) = decode_frames(reader)
    source = EdgeSource(folder / "clip.mkv", video_options(folder))
    for original in source.frames:
        if original.pts == frame.pts:
            (features,) = source.features(original)
    source.close()
    errors = (features - frame.features[0]).square()
    height, width = (side // 2 - 1 for side in errors.shape[-2:])
    corner = errors[:, :height, :width].sum()
    rest = errors[:, height + 2 :, width + 2 :]
    return float(corner / (len(errors) * height * width)), float(rest.mean())


def test_where_every_frame_counts_wishes_change_nothing(folder, expected):
    with serving(folder, every_frame=True, focus=True) as served:
        made = send(folder, served, every_frame=True)
    assert served.rows == expected[0]
    assert made.wishes == 0


# --- strangers ------------------------------------------------------------------------------------


def test_silent_connections_keep_nobody_out(folder):
    async def crowd() -> None:
        async with AsyncExitStack() as stack:
            for _ in range(40):
                await stack.enter_async_context(
                    connect(served.address, served.fingerprint, largest=512)
                )
            await made.run(asyncio.Event())

    with serving(folder, every_frame=True) as served:
        made = sender(folder, served, every_frame=True)
        asyncio.run(crowd())
        assert made.status.frames_acked == FRAMES
        assert served.receiver.refused >= 24


async def until(condition: Callable[[], object], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


class Told:
    """What becomes of a connection."""

    def __init__(self) -> None:
        self.closed_for: str | None = None
        self.messages: list[bytes] = []

    def datagram(self, content: bytes) -> None:
        pass

    def message(self, content: bytes) -> None:
        self.messages.append(content)

    def closed(self, reason: str, *, later: bool) -> None:
        self.closed_for, self.later = reason, later


def test_a_stranger_fills_no_memory_behind_a_gap(folder):
    async def flood() -> None:
        async with connect(served.address, served.fingerprint, largest=512) as connection:
            connection.end = told
            connection._quic.send_stream_data(0, bytes(200_000))
            # the first bytes never come
            connection._quic._streams[0].sender._pending.subtract(0, 8)
            connection.transmit()
            await until(lambda: told.closed_for is not None)

    told = Told()
    with serving(folder) as served:
        asyncio.run(flood())
        assert served.receiver.refused == 1
    assert told.closed_for == "more was sent than is taken"
    assert not told.later


def test_a_fault_of_ours_in_a_timer_ends_one_session(folder, monkeypatch):
    async def run() -> None:
        running = asyncio.create_task(made.run(asyncio.Event()))
        while not served.rows:
            await asyncio.sleep(0.01)
        monkeypatch.setattr(ReceiverSession, "poll", lambda self, now: 1 / 0)
        await running

    with serving(folder) as served:
        made = sender(folder, served, frame_rate=4)
        with pytest.raises(LinkError, match="the receiver refuses: a fault of the receiver"):
            asyncio.run(run())
    assert any("a fault of this program: ZeroDivisionError" in line for line in served.lines)
    account = served.account()
    assert 0 < total(account) == account["frames"]


def test_a_fault_of_ours_at_the_sender_is_raised(folder, monkeypatch):
    async def run() -> None:
        running = asyncio.create_task(made.run(asyncio.Event()))
        while not served.rows:
            await asyncio.sleep(0.01)
        monkeypatch.setattr(SenderSession, "datagram", lambda self, content, now: 1 / 0)
        await running

    with serving(folder) as served:
        made = sender(folder, served, frame_rate=4)
        with pytest.raises(ZeroDivisionError):
            asyncio.run(run())


@pytest.mark.slow
def test_sessions_leave_nothing_behind(folder):
    stream = io.BytesIO()
    with serving(folder, every_frame=True) as served:
        send(folder, served, every_frame=True, record=stream)
    reader = StreamReader(io.BytesIO(stream.getvalue()))
    header, packet = reader.header.to_bytes(), next(iter(reader)).to_bytes(None)
    kinds = {Channel, ReceiverSession, Connection, QuicConnection, Decoder}

    async def session(number: int) -> None:
        async with connect(served.address, served.fingerprint, largest=1024) as connection:
            connection.end = told = Told()
            connection.send(
                [], [Hello(LINK_VERSION, TOKEN.encode(), bytes([number]) * 16, 400, 0).to_bytes()]
            )
            await until(lambda: told.messages)
            frame = WholeFrame(FrameHead(0, None, 0, 0), packet)
            connection.send([], [Header(header).to_bytes(), frame.to_bytes()])
            if number % 2:  # of the others nothing more is heard
                connection.send([], [Bye(1).to_bytes()])
                await until(lambda: told.closed_for is not None)

    def left() -> list[object]:
        gc.collect()
        return [each for each in gc.get_objects() if type(each) in kinds]

    with serving(folder, finish=False, senders=4) as served:
        served.receiver.door._memory = 0.1
        for number in range(20):
            asyncio.run(session(number))
        for _ in range(100):
            if not left():
                break
            time.sleep(0.1)
        assert left() == []
    accounts = [line for line in served.lines if "1 frames 1 decoded" in line]
    assert len(accounts) == 20
