"""What the commands write."""

from __future__ import annotations

import json
import math

from codec.cli.terminal import write_json


def test_json_has_no_numbers_that_json_has_not(tmp_path):
    path = tmp_path / "report.json"
    content = {"error": math.nan, "rows": [{"mean": -math.inf, "count": 3, "of": (1.5, "x", None)}]}
    write_json(str(path), content, force=False)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    found = json.loads(path.read_text(), parse_constant=refuse)
    assert found == {"error": None, "rows": [{"mean": None, "count": 3, "of": [1.5, "x", None]}]}
