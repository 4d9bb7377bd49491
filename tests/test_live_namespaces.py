"""The live link between two network namespaces: two machines, as far as the kernel is concerned."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

pytest.importorskip("aioquic")

from live_ends import network_options, write_inputs

LMC = [sys.executable, "-m", "codec"]
RECEIVER, SENDER = "10.231.77.1", "10.231.77.2"


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """Two, joined by a pair of virtual network cards; receiver's, sender's."""
    if shutil.which("ip") is None or os.geteuid():
        pytest.skip("needs root, and the program ip, to make network namespaces")
    names = [f"lmc{os.getpid()}{end}" for end in "rs"]
    cards = [f"v{os.getpid()}{end}" for end in "rs"]
    script = [f"netns add {name}" for name in names]
    script.append(f"link add {cards[0]} type veth peer name {cards[1]}")
    for name, card, address in zip(names, cards, (RECEIVER, SENDER), strict=True):
        script += [
            f"link set {card} netns {name}",
            f"-n {name} addr add {address}/24 dev {card}",
            f"-n {name} link set {card} up",
        ]
    try:
        for words in script:
            made = subprocess.run(
                ["ip", *words.split()], check=False, capture_output=True, text=True
            )
            if made.returncode:
                pytest.skip(f"ip {words}: {made.stderr.strip()}")
        yield names[0], names[1]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def within(name: str, *words: object) -> list[str]:
    return ["ip", "netns", "exec", name, *LMC, *map(str, words)]


@pytest.mark.slow
@pytest.mark.video
def test_two_machines(namespaces, tmp_path):
    folder = write_inputs(tmp_path)
    receives, sends = namespaces
    token = tmp_path / "token"
    token.write_text("something that nobody guesses\n")
    out, recorded = tmp_path / "out.jsonl", tmp_path / "recorded.lmc"
    words: list[object] = ["receive", "--listen", f"{RECEIVER}:4433", "--token", token]
    words += ["--task", out, "--record", recorded, "--every-frame"]
    receiver = subprocess.Popen(
        within(receives, *words, "--model", folder / "small.pt2"),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert receiver.stderr is not None
        line = ""
        while not line.startswith("lmc send"):
            line = receiver.stderr.readline()
            assert line
        told = line.split()[3:]
        clip, options = folder / "clip.mkv", network_options(folder)
        subprocess.run(
            within(sends, "send", clip, *told, *options, "--every-frame", "-q"), check=True
        )
        receiver.terminate()
        receiver.communicate(timeout=30)
        assert receiver.returncode == 0
    finally:
        receiver.kill()
        receiver.communicate()
    stream = tmp_path / "file.lmc"
    encode = ["encode", clip, "-o", stream, *options, "--no-scene-cut", "-q"]
    decode = ["decode", stream, "--model", folder / "small.pt2", "--task", "-", "-q"]
    subprocess.run([*LMC, *map(str, encode)], check=True)
    found = subprocess.run([*LMC, *map(str, decode)], check=True, capture_output=True).stdout
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows == json.loads(found)
    sums = [
        subprocess.run([*LMC, "decode", str(path), "--md5"], check=True, capture_output=True).stdout
        for path in (stream, recorded)
    ]
    assert sums[0] == sums[1]
