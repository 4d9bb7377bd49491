"""Where the bits of streams go: shares that add up, of all that is in them."""

import csv
from pathlib import Path

import pytest
from click.testing import CliRunner

from tools.anatomy import ELEMENTS, TITLES, main

STREAMS = sorted((Path(__file__).resolve().parent.parent / "bitstreams" / "valid").glob("*.lmc"))


def test_shares_add_up(tmp_path):
    some = [str(path) for path in STREAMS if path.stem.startswith(("keyint", "repeats", "multi"))]
    found = CliRunner().invoke(main, [*some, "-o", str(tmp_path / "bits.csv")])
    assert found.exit_code == 0, found.output
    with (tmp_path / "bits.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(some)
    assert tuple(rows[0]) == TITLES
    for row in rows:
        assert sum(float(row[element]) for element in ELEMENTS) == pytest.approx(1)
        assert float(row["levels of key frames"]) <= min(float(row["levels"]), float(row["key"]))
        assert sum(float(row[mode]) for mode in ("skip", "inter", "intra")) == pytest.approx(1)
    repeats = next(row for row in rows if row["stream"].startswith("repeats"))
    assert float(repeats["repeat"]) == pytest.approx(8 / 15, abs=1e-3)


def test_what_cannot_be_divided_is_told_in_one_line(tmp_path):
    empty = next(path for path in STREAMS if path.stem.startswith("no_frames"))
    (tmp_path / "cut.lmc").write_bytes(STREAMS[0].read_bytes()[:-20])
    for path in (empty, tmp_path / "cut.lmc"):
        found = CliRunner().invoke(main, [str(path)])
        assert found.exit_code == 1
        assert found.output.startswith("Error: ")
        assert found.output.count("\n") == 1
