"""Is the network, cut in two, still the network?  Every named one, at a few cuts, random weights.

    python -m tools.sweep -o sweep.csv [NAME...]        (of timm's networks: needs the extra `timm`)

A row per network and cut: what crosses, and the largest difference between edge + cloud and the
whole network over two images of noise, zero where the halves equal it bit for bit; or, in one line,
why there is none.  Frames are small where the network takes any size, and of its own size where it
does not.  Rows that the file already has are not made again.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, cast

import click
import torch
from torch import nn
from torch.utils._pytree import tree_flatten
from torchvision import models

from codec.errors import ModelError
from codec.format.header import TensorSpec
from codec.models import DEFAULT_MODEL
from codec.models.published import input_size_of
from codec.models.sources import detectors, load_model
from codec.models.split_points import describe_splits
from codec.models.submodels import split_model
from tools.running.outputs import guarded, write_text

SMALL: Final = (96, 128)
WEIGHTS: Final = "random:0"
NATURAL: Final = ("laterals", "pyramid")
"""Cuts of detectors, beside those of their backbones."""
FIELDS: Final = (
    *("network", "input", "split", "tensors", "strides", "elements"),
    *("max_difference", "refused"),
)
Row = dict[str, Any]

# fmt: off
TIMM: Final = tuple(f"timm:{name}" for name in (
    "tf_efficientnet_lite0", "resnet18", "mobilenetv3_large_100", "mobilenetv4_conv_small",
    "regnety_004", "convnext_atto", "densenet121", "dla34", "hrnet_w18_small", "repvgg_a0",
    "ghostnet_100", "edgenext_xx_small", "fastvit_t8", "efficientvit_b0", "mobilevit_xxs",
    "vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "deit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256",
    "pvt_v2_b0", "poolformer_s12", "levit_128s", "mixer_s16_224", "maxvit_rmlp_pico_rw_256",
))
# fmt: on


def rows_of(name: str) -> Iterator[Row]:
    """Cut a network at a few places and compare it with itself."""
    try:
        splits, size = _splits(name)
        model = load_model(name, WEIGHTS)
    except ModelError as error:
        yield {"network": name, "refused": str(error)}
        return
    if not splits:
        yield {"network": name, "refused": "no cut is listed"}
        return
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        _enliven(model, images)
        whole = model(images)
        if not difference(model(images.flip(0)), whole):
            yield {"network": name, "refused": "other images have the same output"}
            return
        for split in splits:
            yield {"network": name, "input": f"{size[1]}x{size[0]}", "split": split} | _compared(
                model, split, images, whole
            )


def _enliven(model: nn.Module, images: torch.Tensor) -> None:
    """Keep a network of random weights from giving the same whatever it sees: signals die without
    norms that fit them, some begin with a last layer of zeros, and no detector is sure of anything.
    """
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        if weight.ndim > 1 and not weight.any():
            weight.normal_(0, 0.02, generator=generator)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.train()
    model(images)
    model.eval()
    for module in model.modules():
        if hasattr(module, "score_thresh"):
            module.score_thresh = cast("Any", 0.0)


def _splits(name: str) -> tuple[list[str], tuple[int, int]]:
    """Choose the first, the middle and the last cut, and the size of the images."""
    try:
        listed, size = describe_splits(name, SMALL), SMALL
    except ModelError:
        listed = []
    if not listed:
        listed, size = describe_splits(name), input_size_of(name)
    names = [split for split, _ in listed]
    natural = [split for split in NATURAL if name in detectors() and split in names]
    stages = [split for split in names if "." in split] if natural else names
    chosen = [stages[place] for place in (0, (len(stages) - 1) // 2, -1)] if stages else []
    return list(dict.fromkeys([*chosen, *natural])), size


def _compared(model: nn.Module, split: str, images: torch.Tensor, whole: object) -> Row:
    try:
        halves = split_model(model, split, (images.shape[2], images.shape[3]))
        found = halves.cloud(halves.edge(images))
    except ModelError as error:
        return {"refused": str(error)}
    return _described(halves.tensors) | {"max_difference": difference(found, whole)}


def _described(tensors: Sequence[TensorSpec]) -> Row:
    return {
        "tensors": " ".join("x".join(map(str, spec.shape)) for spec in tensors),
        "strides": " ".join(
            str(spec.stride_y)
            if spec.stride_y == spec.stride_x
            else f"{spec.stride_y}:{spec.stride_x}"
            for spec in tensors
        ),
        "elements": sum(spec.elements for spec in tensors),
    }


def difference(found: object, expected: object) -> float:
    """Return the largest difference between two outputs: infinite, where they differ in shape."""
    pairs = list(zip(tree_flatten(found)[0], tree_flatten(expected)[0], strict=True))
    if any(ours.shape != theirs.shape for ours, theirs in pairs):
        return float("inf")
    return max(
        0.0 if torch.equal(ours, theirs) else float((ours - theirs).abs().max())
        for ours, theirs in pairs
    )


@click.command()
@click.argument("names", nargs=-1)
@click.option("-o", "--output", required=True, help="CSV, which is added to.")
def main(names: tuple[str, ...], output: str) -> None:
    """Cut NAMES, by default every network of torchvision and some of timm's."""
    path = Path(output)
    with guarded():
        rows: list[Row] = []
        if path.exists():
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
        done = {row["network"] for row in rows}
        for name in names or (DEFAULT_MODEL, *models.list_models(), *TIMM):
            if name in done:
                continue
            for row in rows_of(name):
                rows.append(row)
                click.echo(" ".join(str(row[field]) for field in FIELDS if field in row))
            write_text(path, _as_csv(rows))


def _as_csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


if __name__ == "__main__":
    main()
