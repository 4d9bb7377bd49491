"""Carried further: bits that motion saves in the codec, on clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from codec.encoding.config import EncoderConfig
from codec.encoding.encoder import Encoder
from codec.encoding.motion_search import MotionSearch, luma
from codec.format.header import SequenceHeader
from codec.profiling.simple import simple_header
from tools.motion_study.bits import CODED_ELEMENTS, CODED_QP
from tools.motion_study.drawing import COLOURS, short, title_weights, values_of
from tools.motion_study.networks import MAIN_LAYERS, load_network
from tools.motion_study.pictures import frames_of
from tools.motion_study.settings import NETWORKS, SIZE, Row, Settings
from tools.motion_study.verdicts import Finding, Report, all_rows, saved_figure
from tools.report.figures import MUTED, PALETTE, figure_style

__all__ = ["draw", "measure", "report"]


def measure(settings: Settings, name: str) -> list[Row]:
    """Code the tensors of clips intra, without motion and with it: bits per element, from the
    second frame on, vectors included.
    """
    network = load_network(name, settings, MAIN_LAYERS[name])
    rows = []
    for clip in settings.clips:
        frames = frames_of(clip, settings.frames)
        tensors = network(np.stack(frames))
        for place, (layer, spec) in enumerate(network.layers.items()):
            step = -(-spec.elements // CODED_ELEMENTS)
            features = list(tensors[place][:, ::step])
            own = replace(spec, channels=len(features[0]))
            header = simple_header([own], [[one] for one in features[:8]], *SIZE)
            search = MotionSearch(header, qp=CODED_QP)
            fields = [search.estimate(luma(rgb)) for rgb in frames]
            bits = {
                kind: _clip_bits(header, features, used, intra=kind == "intra")
                for kind, used in settings.bar(
                    (("intra", None), ("zero", None), ("motion", fields)),
                    f"coded, {clip.name}, {layer}",
                )
            }
            rows.append(
                {
                    **network.stamp,
                    "clip": clip.name,
                    "layer": layer,
                    "frames": len(frames),
                    **{f"bits_{kind}": value for kind, value in bits.items()},
                    "saved_against_zero": 1 - bits["motion"] / bits["zero"],
                    "saved_against_intra": 1 - bits["motion"] / bits["intra"],
                }
            )
    return rows


def _clip_bits(
    header: SequenceHeader,
    features: Sequence[Tensor],
    fields: Sequence[NDArray[np.int32] | None] | None,
    *,
    intra: bool,
) -> float:
    encoder = Encoder(header, EncoderConfig(qp=CODED_QP, scene_cut=False))
    previous, size = None, 0
    for number, tensor in enumerate(features):
        field = None if fields is None else fields[number]
        packet = encoder.encode([tensor], field, intra=intra).packet
        if previous is not None:
            size += len(packet.to_bytes(previous))
        previous = packet
    return 8 * size / (header.tensors[0].elements * (len(features) - 1))


def draw(rows: Sequence[Row]) -> Figure:
    """Draw what share of the bits motion saves: a dot for each clip."""
    layers = list(dict.fromkeys((row["network"], row["layer"]) for row in rows))
    clips = values_of(rows, "clip")
    with figure_style():
        figure, axes = plt.subplots(
            1, 2, figsize=(9.6, 0.36 * len(layers) + 1.5), sharey=True, sharex=True
        )
        for axis, key in zip(axes, ("saved_against_zero", "saved_against_intra"), strict=True):
            for number, clip in enumerate(clips):
                found = {
                    (row["network"], row["layer"]): row[key] for row in rows if row["clip"] == clip
                }
                axis.plot(
                    [found[layer] * 100 for layer in layers],
                    np.arange(len(layers)),
                    linestyle="none",
                    marker="os^Dv"[number % 5],
                    color=[*COLOURS, PALETTE["grey"], PALETTE["pink"]][number % 9],
                    label=clip,
                )
            axis.axvline(0, color=MUTED, linewidth=0.9)
            axis.set_title(key.replace("_", " ").replace("zero", "zero motion"))
            axis.set_xlabel("bits saved, %")
        axes[0].set_yticks(
            range(len(layers)),
            [f"{NETWORKS.get(name, name)} {short(layer)}" for name, layer in layers],
        )
        axes[0].set_ylim(len(layers) - 0.5, -0.5)
        title_weights(figure, rows)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center")
        return figure


def report(results: Sequence[list[Row]], output: Path) -> Report:
    """Draw and judge: one result for each network."""
    rows = all_rows(results)
    findings = []
    for clip in dict.fromkeys(row["clip"] for row in rows):
        own = [row for row in rows if row["clip"] == clip]
        saved = [row["saved_against_zero"] for row in own]
        findings.append(
            Finding(
                f"{clip}: bits saved by motion",
                "–",
                f"{min(saved):.0%} to {max(saved):.0%} against zero motion, "
                f"{min(row['saved_against_intra'] for row in own):.0%} to "
                f"{max(row['saved_against_intra'] for row in own):.0%} against intra",
                None,
            )
        )
    return Report(
        "coded",
        "Real bits",
        "Carried further: the codec on the clips' tensors at qp 24, profile measured on the first"
        " eight frames, vectors by its own search on a 32 px grid; packets from the second frame "
        "on.",
        {"motion-coded": rows},
        [saved_figure(draw(rows), output, "coded", "Right of the line: motion saves.")],
        findings,
    )
