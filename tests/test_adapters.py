"""This codec in CompressAI-Vision, against a small stand-in of the framework's registry.

The framework itself wants an older Python; what its pipelines do with a codec is done here.
"""

from __future__ import annotations

import ast
import importlib
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
ADAPTER = ROOT / "tools" / "adapters" / "compressai_vision.py"
CODECS: dict[str, Any] = {}


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`create_codec` of the framework: from a configuration, by name."""

    def register_codec(name: str) -> Any:
        def decorator(registered: type) -> type:
            CODECS[name] = registered
            return registered

        return decorator

    stand_in = types.ModuleType("compressai_vision")
    registry = types.ModuleType("compressai_vision.registry")
    registry.register_codec = register_codec  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "compressai_vision", stand_in)
    monkeypatch.setitem(sys.modules, "compressai_vision.registry", registry)
    monkeypatch.delitem(sys.modules, "tools.adapters.compressai_vision", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the other Python, which is this one
    monkeypatch.setenv("LMC_PYTHON", sys.executable)
    importlib.import_module("tools.adapters.compressai_vision")

    def create_codec(**config: Any) -> Any:
        given = {"device": "cpu", "eval_encode": "bitrate", "vision_model": None, "dataset": None}
        return CODECS["lmc"](**given, encoder_config={"qp": 20} | config)

    return create_codec


def pyramid(frames: int, tags: tuple[str | int, ...] = ("p2", "p3")) -> dict[str, Any]:
    """What a pipeline hands over: two levels of an input of 94×128, which the network padded."""
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randn(1, 6, side, side * 4 // 3, generator=generator) for side in (24, 12)]
    still = {
        tag: torch.nn.functional.avg_pool2d(level, 3, 1, 1).expand(frames, -1, -1, -1)
        for tag, level in zip(tags, levels, strict=True)
    }
    size = {"height": 188, "width": 256}
    return {"data": still, "org_input_size": size, "input_size": [(94, 128)]}


@pytest.mark.slow
def test_a_video_is_one_call(make: Any, tmp_path: Path) -> None:
    coder, given = make(), pyramid(3)
    result, seconds, operations = coder.encode(
        given, str(tmp_path / "codec_output"), "street_qp20", "", remote_inference=False
    )
    stream = Path(result["bitstream"])
    assert stream == tmp_path / "codec_output" / "street_qp20.bin"
    assert result["bytes"] == [stream.stat().st_size / 3] * 3
    assert seconds["lmc"] > 0
    assert operations is None
    options = {"org_img_size": None, "remote_inference": False, "vcm_mode": False}
    found, _, _ = coder.decode(result["bitstream"], "", "", **options, output10b=False)
    assert found["org_input_size"] == {"height": 188, "width": 256}
    assert found["input_size"] == [(94, 128)]
    assert list(found["data"]) == ["p2", "p3"]
    for tag, wanted in given["data"].items():
        assert found["data"][tag].shape == wanted.shape
        assert found["data"][tag].dtype == torch.float32
        assert (found["data"][tag] - wanted).square().mean() < 0.05 * wanted.square().mean()


@pytest.mark.slow
def test_images_are_a_call_each_and_may_be_decoded_later(make: Any, tmp_path: Path) -> None:
    given = pyramid(1, (105, 90))  # layers of JDE
    given["data"] = {tag: value.half() for tag, value in given["data"].items()}
    coder = make()
    result, _, _ = coder.encode(given, str(tmp_path), "default.bin", "img_id_7")
    # where the framework looks when it only decodes: one such file
    (stream,) = [path for path in tmp_path.glob("default-img_id_7*") if path.suffix == ".bin"]
    assert str(stream) == result["bitstream"]
    found, _, _ = coder.decode(stream)
    assert {tag: value.dtype for tag, value in found["data"].items()} == {
        105: torch.float16,
        90: torch.float16,
    }
    later, _, _ = make().decode(stream)
    assert set(later) == {"data"}  # the framework asks its images for the sizes
    assert all(torch.equal(later["data"][tag].half(), found["data"][tag]) for tag in (105, 90))


@pytest.mark.parametrize(
    "size", [(94, 128), [94, 128], [(94, 128)], [(94, 128), (94, 128)], torch.tensor([94, 128])]
)
@pytest.mark.usefixtures("make")
def test_sizes_are_a_pair_or_pairs(size: Any) -> None:
    adapter = sys.modules["tools.adapters.compressai_vision"]
    assert adapter._height_and_width(size) == (94, 128)


@pytest.mark.slow
def test_the_qp_is_a_property_and_counts(make: Any, tmp_path: Path) -> None:
    sizes = []
    for qp in (12, 36):
        coder = make(qp=qp)
        assert coder.qp_value == qp
        assert coder.eval_encode_type == "bitrate"
        sizes.append(coder.encode(pyramid(2), tmp_path, f"qp{qp}")[0]["bytes"][0])
    assert sizes[0] > 2 * sizes[1]


@pytest.mark.slow
def test_what_goes_wrong_is_told_by_the_program(make: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.bin").write_bytes(b"no stream")
    with pytest.raises(RuntimeError, match=r"^lmc: magic number"):
        make().decode(tmp_path / "broken.bin")
    with pytest.raises(NotImplementedError, match="for features"):
        make().encode(pyramid(1), tmp_path, "x", remote_inference=True)


def test_nothing_of_ours_is_imported_and_an_older_python_can_read_it() -> None:
    tree = ast.parse(ADAPTER.read_text(encoding="utf-8"), feature_version=(3, 8))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.partition(".")[0] for name in names} & {"codec", "tools"}
    assert os.access(ADAPTER.with_name("tensor_file.py"), os.R_OK)
