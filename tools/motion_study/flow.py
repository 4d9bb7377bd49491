"""Fig. 2: block matching in the frame and in channels of the tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from codec.encoding.motion_search import MotionSearch, luma
from codec.format.header import TensorSpec
from codec.normative.motion import latent_displacement
from codec.pages.shell import table
from tools.motion_study.drawing import bare_axis
from tools.motion_study.networks import MAIN_LAYER, load_network
from tools.motion_study.pictures import frames_of
from tools.motion_study.predictions import VECTOR_GRID, frame_header
from tools.motion_study.settings import Row, Settings
from tools.motion_study.verdicts import Finding, Report, fixed, saved_figure
from tools.motion_study.warps import (
    moved,
    positions,
)
from tools.report.figures import MUTED, figure_style

__all__ = ["Flow", "draw", "exhaustive_motion", "measure", "report"]

INPUT_BLOCK, INPUT_REACH = 31, 11
LATENT_BLOCK, LATENT_REACH = 3, 5
SHOWN_CHANNELS = 4


def exhaustive_motion(
    current: Tensor, reference: Tensor, block: int, reach: int
) -> NDArray[np.int64]:
    """Find, at every position, the displacement of least squared difference over a block.

    Blocks end at the edges of the picture, and displacements lead to positions inside it.  Of equal
    ones the shortest is taken.

    Args:
        current: (C, H, W), squared differences are summed over C.
        reference: likewise; the content at x came from x + v in it.
        block: odd side of the block.
        reach: largest displacement in each direction.

    Returns:
        (H, W, 2) int64, v as (y, x).
    """
    height, width = current.shape[-2:]
    vectors = sorted(
        ((y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)),
        key=lambda v: (v[0] ** 2 + v[1] ** 2, v),
    )
    padded = functional.pad(reference[None], (reach,) * 4, mode="replicate")[0]
    best = torch.full((height, width), math.inf, dtype=torch.float64)
    chosen = torch.zeros(height, width, 2, dtype=torch.int64)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    for y, x in vectors:
        source = padded[:, reach + y : reach + y + height, reach + x : reach + x + width]
        squares = (source - current).double().square().sum(0)
        cost = _box(squares, block)
        inside = (rows + y >= 0) & (rows + y < height) & (columns + x >= 0) & (columns + x < width)
        better = inside & (cost < best * (1 - 1e-12))
        best = torch.where(better, cost, best)
        chosen[better] = torch.tensor([y, x])
    return chosen.numpy()


def _box(values: Tensor, block: int) -> Tensor:
    """Average over the block around every position, as much of it as lies inside."""
    half = block // 2
    return functional.avg_pool2d(
        functional.avg_pool2d(
            values[None, None], (block, 1), 1, (half, 0), count_include_pad=False
        ),
        (1, block),
        1,
        (0, half),
        count_include_pad=False,
    )[0, 0]


def texture(plane: Tensor, block: int) -> NDArray[np.float64]:
    """Return how well motion can be told at every position of (H, W): the smaller eigenvalue of
    the structure tensor over the block.
    """
    y, x = torch.gradient(plane.double())
    yy, xx, xy = (_box(product, block) for product in (y * y, x * x, x * y))
    found: NDArray[np.float64] = ((yy + xx - ((yy - xx) ** 2 + 4 * xy**2).sqrt()) / 2).numpy()
    return found


@dataclass(frozen=True)
class Flow:
    """Fig. 2: two frames, the motion between them, and that in channels of their tensors.

    `field` is in pixels, `fields` in samples, one a channel; `joint` matches all channels at once.
    All as the codec counts: the content at x came from x + v.  `allowed`: where blocks of both the
    frame and the channel belong to the more textured half.
    """

    stamp: Row
    caption: str
    spec: TensorSpec
    layer: str
    clip: str
    pair: tuple[int, int]
    frames: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    tensor: NDArray[np.float32]
    field: NDArray[np.int64]
    fields: NDArray[np.int64]
    joint: NDArray[np.int64]
    frame_texture: NDArray[np.float64]
    textures: NDArray[np.float64]
    given: bool = False

    @cached_property
    def at_samples(self) -> NDArray[np.float64]:
        """The motion of the frame at the positions of the samples, (H, W, 2) pixels."""
        return np.asarray(self.field[self._places], np.float64)

    @cached_property
    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns of the pixels that the samples lie at."""
        place = np.rint(positions(self.spec)).astype(np.int64)
        y, x = (np.clip(place[..., axis], 0, self.field.shape[axis] - 1) for axis in (0, 1))
        return y, x

    def allowed(self, channel: int | None = None) -> NDArray[np.bool_]:
        """Tell where texture allows to find motion, in the frame and, if given, in a channel."""
        there = self.frame_texture[self._places]
        good = there >= np.median(there)
        if channel is not None:
            own = self.textures[channel]
            good &= (own >= np.median(own)) & (own > 0)
        return np.asarray(good)

    @cached_property
    def shown(self) -> list[int]:
        """The channels with most texture where the frame moves, relative to their variance."""
        variance = self.tensor.var((1, 2)) + 1e-12
        moving = np.hypot(*np.moveaxis(self.at_samples, -1, 0)) >= self.spec.stride_x / 2
        where = moving if moving.any() else np.ones_like(moving)
        score = np.median(self.textures[:, where], 1) / variance
        return [int(number) for number in np.argsort(-score, kind="stable")[:SHOWN_CHANNELS]]

    def agreement(self) -> list[Row]:
        """Compare the fields: a row for each shown channel, for all, and for all at once."""
        stride = np.array([self.spec.stride_y, self.spec.stride_x])
        scaled = self.at_samples / stride
        cases: list[tuple[str, list[tuple[NDArray[Any], NDArray[np.bool_]]]]] = [
            (f"channel {number}", [(self.fields[number], self.allowed(number))])
            for number in self.shown
        ]
        everywhere = self.allowed()
        channels = [
            (self.fields[number], self.allowed(number)) for number in range(len(self.fields))
        ]
        cases += [
            ("each channel", channels),
            ("all channels at once", [(self.joint, everywhere)]),
            ("whole samples, if perfect", [(np.rint(scaled), everywhere)]),
            ("no motion", [(np.zeros_like(scaled), everywhere)]),
        ]
        return [
            {
                **self.stamp,
                "layer": self.layer,
                "clip": self.clip,
                "frames": f"{self.pair[0]}-{self.pair[1]}",
                "field": label,
                **_agreement(
                    np.concatenate([(own * stride)[mask] for own, mask in pairs]),
                    np.concatenate([self.at_samples[mask] for _, mask in pairs]),
                    float(stride.mean()),
                ),
            }
            for label, pairs in cases
        ]


def _agreement(own: NDArray[np.float64], truth: NDArray[np.float64], stride: float) -> Row:
    """Compare (M, 2) vectors in pixels; angles where there is motion to have one."""
    error = np.hypot(*(own - truth).T)
    length, size = np.hypot(*own.T), np.hypot(*truth.T)
    moving = size >= stride / 2
    found = moving & (length > 0)
    product = (own * truth).sum(1)[found] / (length * size)[found]
    angle = np.degrees(np.arccos(np.clip(product, -1, 1)))
    return {
        "positions": len(error),
        "median_endpoint_px": np.median(error),
        "median_endpoint_samples": np.median(error) / stride,
        "median_endpoint_moving_px": np.median(error[moving]) if moving.any() else math.nan,
        "median_angle_deg": np.median(angle) if len(angle) else math.nan,
        "within_30_deg": (angle <= 30).mean() if len(angle) else math.nan,
        "moving": moving.mean(),
        "found_moving": found.sum() / max(moving.sum(), 1),
    }


def moving_pair(frames: Sequence[NDArray[np.uint8]]) -> tuple[float, tuple[int, int]]:
    """Choose two frames between which much of the picture moves by 4 to 10 pixels, and motion
    explains most of the difference.

    Returns:
        How much that is, to be compared between clips, and the frames.
    """
    height, width = frames[0].shape[:2]
    header = frame_header((height, width), 2 * VECTOR_GRID)
    spec = TensorSpec("luma", 1, height, width, 1, 1)
    best, chosen = -1.0, (0, len(frames) - 1)
    for distance in (1, 2, 3, 4, 6):
        for first in range(0, len(frames) - distance, 4):
            search = MotionSearch(header, qp=24)
            before, after = (luma(frames[number]) for number in (first, first + distance))
            search.estimate(before)
            field = search.estimate(after)
            assert field is not None
            length = np.hypot(field[..., 0], field[..., 1]) / 4
            moving = float(((length >= 4) & (length <= 10)).mean())
            predicted = moved(before[None], latent_displacement(field, 2 * VECTOR_GRID, spec))
            saved = float((before - after).square().sum())
            saved -= float(np.square(predicted[0] - after.numpy()).sum())
            score = moving * saved / after.numel()
            if score > best:
                best, chosen = score, (first, first + distance)
    return best, chosen


FLOW_FRAMES = 64


def measure(settings: Settings, name: str) -> dict[str, Any]:
    """Match blocks in two frames, and in every channel of their tensors: fields of `Flow`."""
    layer = MAIN_LAYER[name]
    network = load_network(name, settings, [layer])
    if settings.pair is None:
        scores = [moving_pair(frames_of(clip, FLOW_FRAMES)) for clip in settings.clips]
        best = max(range(len(scores)), key=lambda number: scores[number][0])
        clip, pair = settings.clips[best], scores[best][1]
    else:
        clip, pair = settings.clips[0], settings.pair
    frames = frames_of(clip, max(pair) + 1)
    if not 0 <= min(pair) <= max(pair) < len(frames):
        raise click.ClickException(f"{clip.name}: has {len(frames)} frames, so no pair {pair}")
    before, after = frames[pair[0]], frames[pair[1]]
    reference, current = network(np.stack([before, after]))[0]
    grey = [luma(rgb)[None] for rgb in (before, after)]
    fields = [
        exhaustive_motion(current[k : k + 1], reference[k : k + 1], LATENT_BLOCK, LATENT_REACH)
        for k in settings.bar(range(len(current)), "flow")
    ]
    found = Flow(
        network.stamp,
        network.caption,
        network.layers[layer],
        layer,
        clip.name,
        pair,
        (before, after),
        current.numpy(),
        exhaustive_motion(grey[1], grey[0], INPUT_BLOCK, INPUT_REACH),
        np.stack(fields),
        exhaustive_motion(current, reference, LATENT_BLOCK, LATENT_REACH),
        texture(grey[1][0], INPUT_BLOCK),
        np.stack([texture(plane, LATENT_BLOCK) for plane in current]),
        settings.pair is not None,
    )
    return asdict(found)


ARROWS = "#ff3d71"


def _wheel_colours(motion: NDArray[np.float64], largest: float) -> NDArray[np.float64]:
    """Colour (H, W, 2) motion: hue by direction, saturation by length."""
    length = np.hypot(motion[..., 0], motion[..., 1])
    hue = (np.arctan2(motion[..., 0], motion[..., 1]) / (2 * math.pi)) % 1.0
    saturation = np.clip(length / largest, 0, 1)
    colours: NDArray[np.float64] = hsv_to_rgb(
        np.stack([hue, saturation, np.full_like(hue, 0.97)], -1)
    )
    return colours


def draw(flow: Flow) -> Figure:
    """Draw the motion of the frame and of channels, as arrows and by colours."""
    stride = flow.spec.stride_x
    motion = -flow.field.astype(np.float64)
    largest = max(float(np.percentile(np.hypot(motion[..., 0], motion[..., 1]), 98)), float(stride))
    with figure_style():
        figure, axes = plt.subplots(
            2, len(flow.shown) + 2, figsize=(2.1 * (len(flow.shown) + 2), 4.7)
        )
        height, width = flow.field.shape[:2]
        axes[0, 0].imshow(flow.frames[1])
        step = 2 * stride
        _arrows(axes[0, 0], motion, step, step // 2, largest)
        axes[0, 0].set_title(f"frame {flow.pair[1]}")
        axes[1, 0].imshow(_wheel_colours(motion, largest))
        columns: list[tuple[str, NDArray[np.int64], int | None]] = [
            (f"channel {number}", flow.fields[number], number) for number in flow.shown
        ]
        columns.append(("all channels at once", flow.joint, None))
        for place, (title, field, channel) in enumerate(columns, 1):
            own = -field.astype(np.float64)
            above, below = axes[:, place]
            plane = flow.tensor.std(0) if channel is None else flow.tensor[channel]
            above.imshow(plane, cmap="gray")
            _arrows(above, own, 2, 1, largest / stride)
            above.set_title(title)
            below.imshow(_wheel_colours(own * stride, largest))
        for axis in axes.flat:
            bare_axis(axis)
        wheel = axes[1, 0].inset_axes((0.02, 0.02, 0.26, 0.26 * width / height))
        grid = np.linspace(-1, 1, 81)
        disc = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1)
        colours = _wheel_colours(disc, 1.0)
        inside = (np.hypot(disc[..., 0], disc[..., 1]) <= 1).astype(float)
        wheel.imshow(np.dstack([colours, inside]))
        bare_axis(wheel)
        axes[0, 0].set_ylabel("arrows")
        axes[1, 0].set_ylabel("direction, length")
        for axis in axes[1]:
            axis.set_xlabel("")
        axes[1, 0].set_xlabel(f"rim of the wheel: {largest:.0f} px", fontsize=7.5, color=MUTED)
        axes[1, 1].set_xlabel(f"the same in samples × {stride}", fontsize=7.5, color=MUTED)
        figure.suptitle(
            f"{flow.caption}, {flow.layer}; {flow.clip}, frames {flow.pair[0]} and {flow.pair[1]}",
            fontsize=9,
            color=MUTED,
        )
        return figure


def _arrows(axis: Axes, motion: NDArray[np.float64], step: int, first: int, longest: float) -> None:
    """Draw every step-th arrow, dots where nothing moves.

    The longest arrows, of motion `longest` and beyond, reach from one place to the next.
    """
    y, x = np.mgrid[first : motion.shape[0] : step, first : motion.shape[1] : step]
    own = motion[y, x]
    length = np.hypot(own[..., 0], own[..., 1])
    moving = length > 0
    drawn = own[moving] / np.maximum(length[moving], longest)[:, None] * step
    axis.plot(x[~moving], y[~moving], ".", color=ARROWS, markersize=2)
    axis.quiver(
        x[moving],
        y[moving],
        drawn[:, 1],
        drawn[:, 0],
        color=ARROWS,
        angles="xy",
        scale_units="xy",
        scale=1.1,
        pivot="mid",
        width=0.011,
        headwidth=3.4,
        headlength=3.6,
        headaxislength=3.2,
        minlength=0.1,
    )


ENOUGH_MOTION = 0.25
"""Share of a frame that has to move for a verdict about motion."""
ALIKE_DEGREES = 45
"""A random direction is 90° off in the median."""


def report(results: Sequence[dict[str, Any]], output: Path) -> Report:
    """Draw and judge what `measure` found."""
    (found,) = results
    flow = Flow(**{**found, "spec": TensorSpec(**found["spec"])})
    rows = flow.agreement()
    by_name = {row["field"]: row for row in rows}
    perfect, still = by_name["whole samples, if perfect"], by_name["no motion"]
    moves = still["moving"] >= ENOUGH_MOTION
    each, joint = by_name["each channel"], by_name["all channels at once"]
    return Report(
        "flow",
        "Flow (Fig. 2)",
        "Motion of a frame and of channels of its tensor: exhaustive block matching at every "
        "position by squared differences: 31×31 blocks and ±11 px in the frame, 3×3 and ±5 "
        "samples in channels. Vectors of channels times n^k against those of the frame, where "
        "both belong to the more textured half; angles where the frame moves by half a sample or "
        "more and the channel at all. "
        + (
            "The pair was given."
            if flow.given
            else "The pair is the one, of all clips, whose difference block motion explains best:"
            " a favourable case, as the paper's moving car is. Agreement means a median "
            "angle below "
            f"{ALIKE_DEGREES}°."
        ),
        {"motion-flow": rows},
        [
            saved_figure(
                draw(flow),
                output,
                "flow",
                "Motion of the content, as arrows and as colours (hue: direction, saturation: "
                "length). Channels: those with most texture where the frame moves.",
            )
        ],
        [
            Finding(
                "Motion of channels resembles that of the input",
                "“somewhat noisy, the similarity is evident”",
                f"each channel: median endpoint error {each['median_endpoint_px']:.1f} px, "
                f"median angle {each['median_angle_deg']:.0f}°, {each['within_30_deg']:.0%} within "
                f"30°; no motion assumed: {still['median_endpoint_px']:.1f} px",
                bool(each["median_angle_deg"] < ALIKE_DEGREES) if moves else None,
                f"{1 - each['within_30_deg']:.0%} of the vectors are more than 30° off: noisy, too"
                if moves
                else f"only {still['moving']:.0%} of the frame moves by half a sample or more, so "
                "this pair cannot tell; give a --clip or --pair that moves",
            ),
            Finding(
                "The same, all channels matched at once",
                "–",
                f"{joint['median_endpoint_px']:.1f} px, {joint['median_angle_deg']:.0f}°, "
                f"{joint['within_30_deg']:.0%} within 30°; whole samples can do no better than "
                f"{perfect['median_endpoint_px']:.1f} px",
                None,
                "one vector for all channels is all there is to know",
            ),
        ],
        [
            table(
                (
                    "vectors of", "positions", "endpoint error, px", "in samples", "angle, °",
                    "within 30°", "moving, found",
                ),
                [
                    (
                        row["field"],
                        row["positions"],
                        fixed(row["median_endpoint_px"], 2),
                        fixed(row["median_endpoint_samples"], 3),
                        fixed(row["median_angle_deg"], 1),
                        fixed(row["within_30_deg"], 2),
                        fixed(row["found_moving"], 2),
                    )
                    for row in rows
                ],
                f"{flow.caption}, {flow.layer}; {flow.clip}, frames {flow.pair[0]} and "
                f"{flow.pair[1]}; medians",
            )
        ],
    )  # fmt: skip
