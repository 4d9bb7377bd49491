"""Files of weights, and the hash of what was read."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from codec.errors import ModelError
from codec.models.sources import load_model
from codec.models.weights import weights_hash


def test_hash_depends_on_weights_not_on_order():
    layer = nn.Linear(2, 1)
    layer.weight.data = torch.tensor([[1.0, -2.0]])
    layer.bias.data = torch.tensor([0.5])
    # SHA-256 of "bias\0float32\0001\0" 0000003f "weight\0float32\0001,2\0" 0000803f 000000c0
    assert weights_hash(layer).hex() == "ab70dffb01fe726d"


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file(tmp_path, suffix, half):
    model = load_model("squeezenet1_1", "random:4")
    saved = {key: t.half() if half else t for key, t in model.state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    torch.save(saved, path) if suffix == ".pth" else save_file(saved, path)
    loaded = load_model("squeezenet1_1", str(path))
    for key, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, saved[key].float())


def test_weights_that_do_not_fit(tmp_path):
    saved = load_model("squeezenet1_1", "random:4").state_dict()
    path = tmp_path / "weights.pth"
    torch.save({**saved, "extra": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match=r"1 unexpected \(extra\)"):
        load_model("squeezenet1_1", str(path))
    torch.save({key: tensor for key, tensor in saved.items() if "features.0" not in key}, path)
    with pytest.raises(ModelError, match=r"2 missing \(features\.0\.weight, features\.0\.bias\)"):
        load_model("squeezenet1_1", str(path))
    torch.save({**saved, "features.0.bias": torch.zeros(5)}, path)
    with pytest.raises(ModelError, match=r"features\.0\.bias has shape \(5,\), not \(64,\)"):
        load_model("squeezenet1_1", str(path))
    torch.save([1, 2], path)
    with pytest.raises(ModelError, match="not a state dict"):
        load_model("squeezenet1_1", str(path))
    torch.save({"epoch": 3, "state_dict": saved}, path)
    with pytest.raises(ModelError, match="checkpoint with one under 'state_dict'"):
        load_model("squeezenet1_1", str(path))
    for wrapper in ("module.", "_orig_mod.", "module._orig_mod."):
        torch.save({f"{wrapper}{key}": tensor for key, tensor in saved.items()}, path)
        loaded = load_model("squeezenet1_1", str(path)).state_dict()
        assert all(torch.equal(tensor, saved[key]) for key, tensor in loaded.items())
    first = saved["features.0.bias"]
    for dtype in (torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn):
        torch.save({**saved, "features.0.bias": first.to(dtype)}, path)
        with pytest.raises(ModelError, match=rf"features\.0\.bias is {str(dtype)[6:]}, expected"):
            load_model("squeezenet1_1", str(path))
    for value in (float("nan"), float("inf")):
        torch.save({**saved, "features.0.bias": first + value}, path)
        with pytest.raises(ModelError, match=r"features\.0\.bias holds NaN or infinity"):
            load_model("squeezenet1_1", str(path))
    for name in ("broken.pth", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"no weights at all")
        with pytest.raises(ModelError, match="cannot be read as a state dict"):
            load_model("squeezenet1_1", str(tmp_path / name))
