"""Every example in a docstring runs, and shows what it says.

Examples find `codec`, `numpy` and `torch`, the tensors `features` (8, 16, 28, 28) with a `header`
for them, and in the folder they run in `clip.lmc`, the same as a stream, and `clip.mp4`.
"""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

import codec

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    path
    for folder in ("codec", "tools")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


def panned() -> torch.Tensor:
    """A picture of noise that moves by one sample, eight pixels, a frame."""
    noise = torch.randn(16, 40, 40, generator=torch.Generator().manual_seed(0))
    still = torch.nn.functional.avg_pool2d(noise, 5, 1, 2)
    return torch.stack([still.roll(number, 2)[:, :28, :28] for number in range(8)])


@pytest.fixture
def names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    features = panned()
    field = np.zeros((8, 7, 7, 2), np.float32)
    field[..., 1] = -8
    codec.encode(features, "clip.lmc", stride=8, motion=field)
    Path("clip.mp4").symlink_to(ROOT / "bitstreams" / "clip" / "car_24.mp4")
    with codec.open("clip.lmc") as clip:
        header = clip.header
    return {
        "codec": codec,
        "numpy": np,
        "torch": torch,
        "features": features,
        "header": header,
    }


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_show_what_they_say(path, names):
    pytest.importorskip(
        "scipy", reason="needs the extra `study`"
    ) if "tools" in path.parts else None
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    examples = [found for found in doctest.DocTestFinder().find(module) if found.examples]
    assert examples
    runner = doctest.DocTestRunner()
    for found in examples:
        assert not any(doctest.SKIP in example.options for example in found.examples), found.name
        found.globs = names | ({} if "codec" in path.parts else vars(module))
        report: list[str] = []
        runner.run(found, out=report.append)
        assert not runner.summarize(verbose=False).failed, "".join(report)


def test_no_example_is_left_out():
    assert len(SOURCES) > 4
    for path in (ROOT / "codec").rglob("*.py"):
        assert "doctest: +SKIP" not in path.read_text(encoding="utf-8"), path
