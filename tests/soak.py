"""A long run of the live link: several senders that come and go, over a network that loses packets
and now and then all of them.

    python tests/soak.py --minutes 30            # prints a line a minute, then what was wrong

Checks that the receiver's memory is flat, that neither end says anything of an exception, that no
process ends by itself in a way that it should not, and that both ends account for every frame.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from live_ends import network_options, read_account, write_inputs
from videos import moving, write_video

LMC = [sys.executable, "-m", "codec"]
HERE = Path(__file__).resolve().parent
LEAST_MINUTES = 5.0
"""Of memory, to be judged."""
SETTLED = 0.25
"""Share of the time after which memory is expected to be flat."""
GROWTH = 8.0
"""MB from then on that are no leak: what is kept of the senders before, and what malloc makes of
threads that come and go.
"""
GROWTH_PER_MINUTE = 0.1
LAST_SECONDS = 60
"""For an end to end, once it is told to."""
EXCEPTION = re.compile(r"Traceback|Exception|Error\b|never retrieved|never awaited|a fault of")
REMARK = re.compile(r"\[[0-9a-f]+\] ")
"""How aioquic's own lines begin: with a connection, of which it remarks what it has dropped."""


class Soak:
    """The processes, and what they say."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._folder, self._options = write_inputs(folder), options
        there = moving(30, (1, 2), 64, 64)
        write_video(folder / "clip.mkv", (there + there[::-1]) * options.rounds)
        self.wrong: list[str] = []
        self.slowest = 0.0
        """Seconds from SIGINT to the end of a sender."""
        self.sessions = self.frames = self.rows = 0
        self.accounts: list[dict[str, int]] = []
        self.memory: list[tuple[float, float]] = []
        self._over = threading.Event()

    def run(self) -> None:
        """Run, and collect what is wrong."""
        options = self._options
        receiver = self._start(
            "receive", "--listen", "127.0.0.1:0", "--model", self._folder / "small.pt2",
            "--senders", options.senders, "--task", "-", "--focus", "-q",
        )  # fmt: skip
        assert receiver.stderr is not None
        assert receiver.stdout is not None
        words: list[str] = []
        while words[:2] != ["lmc", "send"]:
            line = receiver.stderr.readline()
            if not line:
                raise SystemExit("the receiver has ended")
            words = line.split()
        told = words[3:]
        port = told[told.index("--to") + 1].rpartition(":")[2]
        relay = subprocess.Popen(
            [sys.executable, HERE / "live_relay.py", port, "--loss", "0.1", "--burst", "3",
             "--delay", "0.05", "--outage", "60", "8"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert relay.stdout is not None
        told[told.index("--to") + 1] = f"127.0.0.1:{int(relay.stdout.readline())}"
        lines: list[str] = []
        readers = [
            threading.Thread(target=lambda: lines.extend(receiver.stderr), daemon=True),
            threading.Thread(target=self._count_rows, args=(receiver.stdout,), daemon=True),
            threading.Thread(target=lambda: [None for _ in relay.stdout], daemon=True),
        ]
        start = time.monotonic()
        until = start + 60 * options.minutes
        senders = [
            threading.Thread(target=self._send, args=(told, until, number))
            for number in range(options.senders)
        ]
        for thread in (*readers, *senders):
            thread.start()
        said = 0
        while any(thread.is_alive() for thread in senders) and receiver.poll() is None:
            time.sleep(2)
            minutes = (time.monotonic() - start) / 60
            self.memory.append((minutes, _resident(receiver.pid)))
            if minutes >= said:
                print(
                    f"{minutes:5.1f} min  {self.memory[-1][1]:.1f} MB  {self.sessions} sessions  "
                    f"{self.rows} rows",
                    flush=True,
                )
                said += 1
        if receiver.poll() is not None:
            self.wrong.append(f"the receiver has ended by itself: {receiver.returncode}")
        self._over.set()
        for thread in senders:
            thread.join()
        began = time.monotonic()
        receiver.send_signal(signal.SIGTERM)
        try:
            receiver.wait(LAST_SECONDS)
        except subprocess.TimeoutExpired:
            receiver.kill()
            self.wrong.append(f"the receiver did not end within {LAST_SECONDS} s of SIGTERM")
        print(
            f"the receiver ended {time.monotonic() - began:.1f} s after SIGTERM, the slowest "
            f"sender {self.slowest:.1f} s after SIGINT"
        )
        relay.kill()
        for thread in readers:
            thread.join(5)
        if receiver.returncode != 0:
            self.wrong.append(f"the receiver has ended with {receiver.returncode}")
        self._check_lines("receiver", lines)
        self._check_memory()

    def _start(self, *words: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*LMC, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def _count_rows(self, rows: object) -> None:
        for _ in rows:
            self.rows += 1

    def _send(self, told: list[str], until: float, number: int) -> None:
        """Send the clip again and again; of two sessions one is cut short, by turns mildly and
        not.
        """
        session = number
        while (left := until - time.monotonic()) > 5 and not self._over.is_set():
            session += 1
            cut = session % 2 == 0
            seconds = min(left, 45) if cut else left
            sender = self._start(
                "send", self._folder / "clip.mkv", *told, *network_options(self._folder),
                "--fps", self._options.fps, "--bitrate", 200,
            )  # fmt: skip
            killed = False
            try:
                _, text = sender.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                killed = cut and session % 4 == 0
                sender.send_signal(signal.SIGKILL if killed else signal.SIGINT)
                began = time.monotonic()
                try:
                    _, text = sender.communicate(timeout=LAST_SECONDS)
                except subprocess.TimeoutExpired:
                    sender.kill()
                    _, text = sender.communicate()
                    self.wrong.append(f"a sender did not end when it was stopped: {text[-500:]}")
                    continue
                self.slowest = max(self.slowest, time.monotonic() - began)
            self.sessions += 1
            if sender.returncode == 130 and "ended by SIGINT" in text:  # while it opened its source
                continue
            if sender.returncode != (-9 if killed else 0):
                self.wrong.append(f"a sender has ended with {sender.returncode}: {text[-500:]}")
            if not killed:
                self._check_lines("sender", text.splitlines())

    def _check_lines(self, end: str, lines: list[str]) -> None:
        for line in lines:
            if EXCEPTION.search(line) and not REMARK.match(line):
                self.wrong.append(f"{end}: {line.strip()}")
            if " frames " in line and "of " in line:
                account = read_account(line)
                outcomes = ("decoded", "concealed", "skipped", "lost", "given up")
                total = sum(account.get(outcome, 0) for outcome in outcomes)
                if total != account["frames"]:
                    self.wrong.append(f"{end}: {total} frames accounted for: {line.strip()}")
                if end == "sender":
                    self.frames += account["frames"]
                else:
                    self.accounts.append(account)

    def _check_memory(self) -> None:
        settled = [each for each in self.memory if each[0] >= SETTLED * self.memory[-1][0]]
        quarter = max(len(settled) // 4, 1)
        before, after = settled[:quarter], settled[-quarter:]
        growth = _mean(after) - _mean(before)
        minutes = after[0][0] - before[0][0]
        print(
            f"memory grew by {growth:.1f} MB in {minutes:.1f} minutes, from {_mean(before):.1f} MB"
        )
        if minutes >= LEAST_MINUTES and growth > GROWTH + GROWTH_PER_MINUTE * minutes:
            self.wrong.append(f"memory grew by {growth:.1f} MB in {minutes:.1f} minutes")


def _mean(memory: list[tuple[float, float]]) -> float:
    return sum(size for _, size in memory) / len(memory)


def _resident(process: int) -> float:
    """Return the memory of a process in MB, 0 where it has none any more."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1e3
    return 0.0


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--fps", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=15, help="of 60 frames each in the clip")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), options)
        soak.run()
    print(
        f"{soak.sessions} sessions, {soak.frames} frames accounted for by the senders, "
        f"{sum(account['frames'] for account in soak.accounts)} by the receiver in "
        f"{len(soak.accounts)} accounts, {soak.rows} rows"
    )
    for line in soak.wrong:
        print(f"wrong: {line}")
    sys.exit(1 if soak.wrong else 0)


if __name__ == "__main__":
    main()
