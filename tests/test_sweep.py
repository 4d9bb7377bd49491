"""Edge and cloud equal the whole network: one of each kind here, all of them by `tools.sweep`."""

from __future__ import annotations

import csv

import pytest
import torch
from click.testing import CliRunner

from tools.sweep import difference, main, rows_of

KINDS = [
    *("resnet18", "densenet121", "googlenet", "mobilenet_v3_small", "regnet_y_400mf"),
    *("shufflenet_v2_x0_5", "squeezenet1_1", "convnext_tiny", "vit_b_32", "swin_t"),
    *("lraspp_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large"),
    "fasterrcnn_mobilenet_v3_large_320_fpn",
]
OF_TIMM = ["tf_efficientnet_lite0", "deit_tiny_distilled_patch16_224", "mobilevit_xxs"]


def check(name):
    rows = list(rows_of(name))
    assert len(rows) >= 3
    for row in rows:
        assert row.get("max_difference") == 0.0, row


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_halves_of_torchvision(name):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_TIMM)
def test_halves_of_timm(name):
    pytest.importorskip("timm")
    check(f"timm:{name}")


def test_a_refusal_is_a_row_of_one_line(tmp_path):
    path = tmp_path / "sweep.csv"
    for _ in range(2):  # the second time nothing is left to do
        done = CliRunner().invoke(main, ["raft_small", "r3d_18", "nothing", "-o", str(path)])
        assert done.exit_code == 0, done.output
    assert not done.output
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["network"] for row in rows] == ["raft_small", "r3d_18", "nothing"]
    assert "optical_flow" in rows[0]["refused"]
    assert "video networks" in rows[1]["refused"]
    assert not any("\n" in row["refused"] for row in rows)


def test_difference():
    ones, two = torch.ones(2), torch.tensor([1.0, 2.0])
    assert difference([{"a": ones}], [{"a": ones}]) == 0
    assert difference((ones, two), (ones, ones)) == 1
    assert difference(ones, torch.ones(3)) == float("inf")
