"""A bounded run of every fuzz target of `fuzz.py`; LMC_FUZZ_SECONDS says how long each takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = int(os.environ.get("LMC_FUZZ_SECONDS", "12"))


@pytest.mark.fuzz
@pytest.mark.parametrize("target", ["header", "packet", "profile", "stream", "differential"])
def test_nothing_is_found(target, tmp_path):
    pytest.importorskip("atheris", reason="atheris has no wheel here: pip install -e '.[fuzz]'")
    script = Path(__file__).with_name("fuzz.py")
    finished = subprocess.run(
        [sys.executable, str(script), target, f"-max_total_time={SECONDS}", "-print_final_stats=1"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60 + 3 * SECONDS,
    )
    findings = [path.read_bytes().hex() for path in tmp_path.iterdir()]
    assert finished.returncode == 0, (findings, finished.stdout + finished.stderr[-5000:])
    assert not findings
    executed = finished.stderr.partition("stat::number_of_executed_units:")[2].split()
    assert int(executed[0]) > 20  # the seeds at least
