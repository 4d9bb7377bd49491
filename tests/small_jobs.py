"""Jobs for the tests of `codec/running/jobs.py`, importable by other processes.

Each leaves a file per attempt in a folder, so that a test can count them.
"""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class SmallJob:
    folder: Path
    number: int
    seconds: float = 0.0
    fails: bool = False
    dies: bool = False

    @property
    def key(self) -> str:
        return f"job-{self.number:03}"

    @property
    def label(self) -> str:
        return f"number {self.number}"

    @property
    def group(self) -> str:
        return "even" if self.number % 2 == 0 else "odd"

    def run(self) -> dict[str, Any]:
        (self.folder / f"{self.key}.{uuid.uuid4().hex}").touch()
        if self.dies:
            os._exit(3)
        time.sleep(self.seconds)
        if self.fails:
            raise ValueError(f"number {self.number} has no answer\nand a second line")
        return {"square": self.number**2}
