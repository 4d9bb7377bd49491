"""`timm:NAME`, the networks of the timm package (the extra `timm`)."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Final

from torch import nn

from codec.errors import ModelError
from codec.models.boundary import as_model_error
from codec.models.weights import load_weights, read_state_dict

__all__ = ["TIMM", "build_timm", "timm_classes", "timm_input"]

TIMM: Final = "timm:"


def build_timm(name: str, file: str = "", *, published: bool = False) -> nn.Module:
    """Build a network of timm.

    Args:
        name: `timm:tf_efficientnet_lite0`.
        file: of its weights, "" for those of its initialisation.
        published: with the weights that timm downloads.

    Raises:
        ModelError: timm is not installed or has no such network, or the weights cannot be had.
    """
    timm = _timm(name)
    short = name.removeprefix(TIMM)
    remedy = "; pass --weights FILE with a local state dict, or --weights random:SEED"
    with as_model_error(f"{name} cannot be built", remedy if published else ""):
        model: nn.Module = timm.create_model(short, pretrained=published, exportable=True)
    if file:
        path = Path(file)
        load_weights(model, read_state_dict(path), name, path)
    return model


def timm_input(name: str) -> dict[str, Any]:
    """Return what a network's weights expect of their input: timm's data config, with `mean`,
    `std` (of samples of 0 to 1), `input_size` (3, H, W), `crop_pct`, `crop_mode`, `interpolation`.
    """
    timm = _timm(name)
    with as_model_error(f"{name} has no data config"):
        config = timm.get_pretrained_cfg(name.removeprefix(TIMM)).to_dict()
        return dict(timm.data.resolve_data_config({}, pretrained_cfg=config))


def timm_classes(name: str) -> int:
    """Return how many classes a network's outputs are the logits of; 0: it ends in features."""
    return int(_timm(name).get_pretrained_cfg(name.removeprefix(TIMM)).num_classes)


def _timm(name: str) -> Any:  # noqa: ANN401 - an optional package
    try:
        import timm  # noqa: PLC0415 - an extra
        import timm.data  # noqa: PLC0415
    except ImportError as error:
        raise ModelError(
            f"model {name!r} needs the package timm; pip install 'latent-motion-codec[timm]'"
        ) from error
    short = name.removeprefix(TIMM)
    if not timm.is_model(short):
        near = difflib.get_close_matches(short, timm.list_models(), n=3)
        hint = f"nearest: {', '.join(TIMM + each for each in near)}" if near else "see timm's list"
        raise ModelError(f"unknown model {name!r}; {hint}")
    return timm
