"""The long run of the live link sees what it is there to see."""

from __future__ import annotations

import argparse
import subprocess
import time
from pathlib import Path

import pytest
import soak

pytest.importorskip("aioquic")


class Hanging:
    """A sender that ends by nothing but a kill."""

    returncode = None
    killed = False

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        if not self.killed:
            raise subprocess.TimeoutExpired("lmc send", timeout)
        return "", "still here"

    def send_signal(self, number: int) -> None:
        pass

    def kill(self) -> None:
        self.killed = True


@pytest.fixture
def run(tmp_path: Path) -> soak.Soak:
    return soak.Soak(tmp_path, argparse.Namespace(rounds=1, fps=8))


@pytest.mark.video
def test_a_sender_that_hangs_is_wrong(run, monkeypatch):
    monkeypatch.setattr(run, "_start", lambda *words: run._over.set() or Hanging())
    run._send([], time.monotonic() + 6, 0)
    assert run.wrong == ["a sender did not end when it was stopped: still here"]


@pytest.mark.video
def test_remarks_of_the_transport_are_no_exceptions(run):
    run._check_lines("sender", ["[5f3a09c1] Packet decryption Error", "lmc: done"])
    assert run.wrong == []
    run._check_lines("sender", ["Traceback (most recent call last):", "[1, 2]", "ValueError: no"])
    assert len(run.wrong) == 2
