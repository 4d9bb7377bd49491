"""FILE.onnx, converted to a module of torch by onnx2torch (the extra `onnx`)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from torch import nn

from codec.errors import ModelError
from codec.models.boundary import as_model_error, quiet

__all__ = ["ONNX_FILE", "load_onnx"]

ONNX_FILE: Final = ".onnx"


def load_onnx(path: Path) -> nn.Module:
    """Read a network.  The file holds no code; its operators become modules of torch.

    Raises:
        ModelError: the converter is not installed, or the file cannot be read or converted.
    """
    try:
        from onnx2torch import convert  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ModelError(
            f"model {str(path)!r} needs the package onnx2torch; "
            "pip install 'latent-motion-codec[onnx]'"
        ) from error
    if not path.is_file():
        raise ModelError(f"model {str(path)!r}: there is no such file")
    with (
        quiet(),
        as_model_error(
            f"{path.name}: cannot be converted to a network of torch",
            "; export it with an older opset (13 is well supported), or from torch as a .pt2",
        ),
    ):
        model: nn.Module = convert(str(path))
    return model.float().eval()
