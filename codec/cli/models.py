"""`lmc models`."""

from __future__ import annotations

import json
from typing import Any

import click

from codec.cli.group import main
from codec.cli.terminal import say
from codec.errors import FeatureCodecError
from codec.models import DEFAULT_MODEL

__all__ = ["models"]


@main.command()
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def models(model: str | None, as_json: bool) -> None:
    """List models, or the split points of MODEL: tensors, strides n^k, elements per frame."""
    from codec.format.profile import shipped_profile
    from codec.models.preprocessing import default_preprocessing
    from codec.models.sources import list_models
    from codec.models.split_points import describe_splits

    names = [model] if model else [DEFAULT_MODEL, "resnet34", "densenet121"]
    rows: list[dict[str, Any]] = [
        {
            "model": name,
            "split": split,
            "profile": "shipped" if shipped_profile(f"{name}@{split}") else "measured on the video",
            "elements": sum(spec.elements for spec in specs),
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
        for name in names
        for split, specs in describe_splits(name)
    ]
    if not rows:
        raise FeatureCodecError(f"{model}: has no split point with tensors of shape (C, H, W)")
    if as_json:
        say(json.dumps(rows, indent=1))
        return
    sides = dict.fromkeys(default_preprocessing(name, native=False).crop for name in names)
    sizes = " and ".join(f"{side}x{side}" for side in sides)
    say(f"{'model':20} {'split':34} {'elements':>9}  tensors (CxHxW, n^k) at {sizes}")
    for row in rows:
        shapes = [f"{'x'.join(map(str, t['shape']))} /{t['stride'][0]}" for t in row["tensors"]]
        more = f" and {len(shapes) - 3} more" if len(shapes) > 3 else ""
        say(
            f"{row['model']:20} {row['split']:34} {row['elements']:9}  "
            f"{', '.join(shapes[:3])}{more}"
        )
    if model is None:
        say(
            f"\nand {len(list_models()) - len(names)} more: lmc models NAME, "
            "any classifier of torchvision"
        )
