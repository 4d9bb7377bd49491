"""The live link measured: two processes on the loopback, a source paced by the wall clock.

    python tests/live_runs.py paced CLIP --fps 25          # no loss: what arrives is what was sent
    python tests/live_runs.py halving CLIP --fps 10        # a link that loses half its rate midway
    python tests/live_runs.py paced CLIP -- --model nanodet.pt2 --split add_11+add_18+add_27 ...

`paced` fails where the recordings of the two ends, or the results and those of `lmc decode`, are
not equal bit for bit.  Times are as good as the machine is idle: latencies are also stated in times
of what one frame takes, edge, coding, decoding and cloud, in the same run.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from live_ends import read_account

LMC = [sys.executable, "-m", "codec"]
HERE = Path(__file__).resolve().parent
SETTLED = 5.0
"""Seconds from the first packet on, of a key frame and a rate that is not known yet."""


def lmc(*words: object) -> str:
    return subprocess.run(
        [*LMC, *map(str, words)], check=True, capture_output=True, text=True
    ).stdout


class Run:
    """A receiver, a sender, and a relay in between if there is a network to play."""

    def __init__(self, clip: str, receive: list[object], send: list[object], relay: list[object]):
        words = ["receive", "--listen", "127.0.0.1:0", *receive]
        receiver = subprocess.Popen([*LMC, *map(str, words)], stderr=subprocess.PIPE, text=True)
        assert receiver.stderr is not None
        self.seconds: list[dict[str, Any]] = []
        between = None
        try:
            line = ""
            while not line.startswith("lmc send"):
                line = receiver.stderr.readline()
                assert line
            told = line.split()[3:]
            if relay:
                place = told.index("--to") + 1
                between = subprocess.Popen(
                    [
                        *(sys.executable, HERE / "live_relay.py", told[place].split(":")[1]),
                        *map(str, relay),
                    ],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                assert between.stdout is not None
                told[place] = f"127.0.0.1:{int(between.stdout.readline())}"
                threading.Thread(target=self._follow, args=(between.stdout,), daemon=True).start()
            sent = subprocess.run(
                [*LMC, "send", clip, *told, *map(str, send)],
                check=False,
                capture_output=True,
                text=True,
            )
            receiver.send_signal(signal.SIGTERM)
            _, self.received = receiver.communicate(timeout=60)
        finally:
            receiver.kill()
            if between is not None:
                between.kill()
        self.sent = sent.stderr
        if sent.returncode:
            sys.exit(self.sent)

    def _follow(self, lines: Any) -> None:
        for line in lines:
            self.seconds.append(json.loads(line))
            print(line, end="", flush=True)

    def times(self) -> dict[str, tuple[float, float]]:
        """Median and 95 % of what either end has timed, ms; the receiver's latency."""
        found = re.findall(
            r"; (\w+) ([\d.]+) ms, of 95 % at most ([\d.]+) ms", self.sent + self.received
        )
        return {name: (float(middle), float(most)) for name, middle, most in found}

    def tell(self) -> None:
        print(f"sender    {self.sent.strip()}")
        print(f"receiver  {self.received.strip().splitlines()[-1]}")
        times = self.times()
        frame = sum(times[stage][0] for stage in ("edge", "coding", "decoding", "cloud"))
        middle, most = times["latency"]
        print(
            f"one frame {frame:.1f} ms; latency p50 {middle:.1f} ms = {middle / frame:.2f}, "
            f"p95 {most:.1f} ms = {most / frame:.2f} of it"
        )


def paced(options: argparse.Namespace, folder: Path) -> int:
    """Two processes, no loss; return how many comparisons fail."""
    ours, theirs, out = folder / "sent.lmc", folder / "received.lmc", folder / "out.jsonl"
    latency = ["--max-latency", options.max_latency]
    run = Run(
        options.clip,
        ["--task", out, "--record", theirs, *latency, *options.network],
        ["--fps", options.fps, "--record", ours, *latency, *options.more],
        [],
    )
    run.tell()
    account = read_account(run.sent)
    print(f"skipped before inference: {account['skipped']} of {account['frames']}")
    sums = [lmc("decode", path, "--md5", "-q") for path in (ours, theirs)]
    wrong = sums[0] != sums[1]
    print(f"recordings: {sums[0].count(chr(10))} lines of MD5s, {'other' if wrong else 'equal'}")
    found = json.loads(lmc("decode", theirs, "--task", "-", "-q", *options.network))
    live = [json.loads(line) for line in out.read_text().splitlines()]
    live = [row for row in live if not row.pop("concealed", False)]
    numbered = ("frame", "image_id")  # frames of the camera, or of the recording
    plain = [
        [json.dumps({k: v for k, v in row.items() if k not in numbered}) for row in rows]
        for rows in (found, live)
    ]
    missing = [row for row in plain[1] if row not in set(plain[0])]
    print(f"results: {len(plain[1])} rows, {len(plain[0])} of the recording, {len(missing)} other")
    return wrong + len(missing)


def halving(options: argparse.Namespace, folder: Path) -> int:
    """A link that loses half its rate; return 0."""
    del folder
    relay = ["--kbit", options.kbit, "--halve-at", options.at, "--delay", 0.025]
    latency = ["--max-latency", options.max_latency]
    run = Run(
        options.clip,
        ["--task", "/dev/null", *latency, *options.network],
        ["--fps", options.fps, *latency, *options.more],
        relay,
    )
    run.tell()
    for name, capacity, first, last in (
        ("before", options.kbit, SETTLED, options.at),
        ("in the 2 s after", options.kbit / 2, options.at, options.at + 2),
        ("then", options.kbit / 2, options.at + 2, float("inf")),
    ):
        seconds = [each for each in run.seconds[:-3] if first < each["time"] - 0.5 <= last]
        if seconds:
            rate = sum(each["kbit"] for each in seconds) / len(seconds)
            waited = max(each["most_waited_ms"] for each in seconds)
            print(
                f"{name:17} {rate:7.1f} kbit/s = {rate / capacity:.2f} of the capacity, "
                f"queue at most {waited:.0f} ms"
            )
    return 0


def main() -> None:
    """Run one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["paced", "halving"])
    parser.add_argument("clip")
    parser.add_argument("--fps", type=float, default=25)
    parser.add_argument("--max-latency", default="500ms")
    parser.add_argument("--kbit", type=float, default=200, help="what the link carries at first")
    parser.add_argument("--at", type=float, default=20, help="seconds after which it is halved")
    words = sys.argv[1:]
    behind = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:behind])
    options.more = more = words[behind + 1 :]  # of lmc send
    options.network = []  # the receiver's, if it is in a file
    if "--model" in more and Path(more[more.index("--model") + 1]).is_file():
        options.network = ["--model", more[more.index("--model") + 1]]
    with tempfile.TemporaryDirectory() as folder:
        found = {"paced": paced, "halving": halving}[options.what](options, Path(folder))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
