"""`lmc models`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from codec.cli.group import main
from codec.cli.parameters import FrameSize
from codec.cli.terminal import say
from codec.errors import FeatureCodecError
from codec.models import DEFAULT_MODEL

__all__ = ["models"]


@main.command()
@click.argument("model", required=False)
@click.option(
    "--size",
    type=FrameSize(),
    metavar="WxH",
    help="Of its input, where a network in a file takes any size.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def models(model: str | None, size: tuple[int, int] | None, as_json: bool) -> None:
    """List models, or the split points of MODEL, a name or a file: tensors, strides n^k, elements
    per frame, and of one model what both halves compute.
    """
    from codec.format.profile import shipped_profile
    from codec.models.published import input_size_of
    from codec.models.sources import list_models
    from codec.models.split_points import describe_costs, describe_splits

    if size is not None and model is None:
        raise click.UsageError("--size is that of one MODEL; name it")
    if size is not None:
        size = size[1], size[0]  # height first, as tensors have it
    names = [model] if model else [DEFAULT_MODEL, "resnet34", "densenet121"]
    cuts = [
        (name, split, specs, cost)
        for name in names
        for split, specs, cost in (
            describe_costs(name, size)
            if model
            else ((*point, None) for point in describe_splits(name))
        )
    ]
    rows: list[dict[str, Any]] = [
        {
            "model": name,
            "split": split,
            "profile": "shipped" if shipped_profile(f"{name}@{split}") else "measured on the video",
            "elements": sum(spec.elements for spec in specs),
            **({} if cost is None else asdict(cost)),
            "tensors": [
                {
                    "name": s.name,
                    "shape": s.shape,
                    "stride": (s.stride_y, s.stride_x),
                    "offset": (s.offset_y2 / 2, s.offset_x2 / 2),
                }
                for s in specs
            ],
        }
        for name, split, specs, cost in cuts
    ]
    if not rows:
        raise FeatureCodecError(f"{model}: has no split point with tensors of shape (C, H, W)")
    if as_json:
        say(json.dumps(rows, indent=1))
        return
    sides = dict.fromkeys(size or input_size_of(name) for name in names)
    sizes = " and ".join(f"{width}x{height}" for height, width in sides)
    computed = f"{'edge':>7} {'cloud':>7}  " if model else ""
    say(f"{'model':20} {'split':34} {'elements':>9}  {computed}tensors (CxHxW, n^k) at {sizes}")
    for row in rows:
        shapes = [f"{'x'.join(map(str, t['shape']))} /{t['stride'][0]}" for t in row["tensors"]]
        more = f" and {len(shapes) - 3} more" if len(shapes) > 3 else ""
        shown = Path(row["model"]).name
        say(
            f"{shown:20} {row['split']:34} {row['elements']:9}  "
            f"{_macs(row)}{', '.join(shapes[:3])}{more}"
        )
    if model is None:
        say(
            f"\nand {len(list_models()) - len(names)} more: lmc models NAME, "
            "any classifier, detector or segmentation network of torchvision, timm:NAME, or a file "
            "(.pt2, .onnx) of your own"
        )


def _macs(row: dict[str, Any]) -> str:
    """Return what both halves compute, in millions of multiplications."""
    if "edge_macs" not in row:
        return ""
    return f"{row['edge_macs'] / 1e6:6.0f}M {row['cloud_macs'] / 1e6:6.0f}M  "
