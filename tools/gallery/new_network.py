"""Calibrating for a network without a shipped profile, and what that is worth.

python -m tools.gallery.new_network CLIP OUTPUT.png PHOTOGRAPHS... \
    --model mobilenet_v2 --split features.13
"""

from pathlib import Path

import click
import torch

import codec
from codec.metrics import kl_divergence
from tools.gallery.networks import Chosen, network_options
from tools.gallery.pictures import drawing
from tools.report.figures import PALETTE


@click.command()
@network_options
@click.argument("photographs", type=click.Path(exists=True, path_type=Path), nargs=-1)
def main(clip: Path, output: Path, photographs: tuple[Path, ...], chosen: Chosen) -> None:
    """Calibrate on PHOTOGRAPHS, without labels, and encode CLIP with and without that."""
    edge, cloud = chosen.split()
    rgb, _ = chosen.read(clip, edge)
    assert edge.preprocessing is not None  # or there were no frames
    profile = codec.calibrate(
        edge.split, photographs, edge.preprocessing, weights_hash=edge.weights_hash, warn=click.echo
    )
    profile.save(output.with_suffix(".safetensors"))  # for lmc encode --profile, and lmc decode

    wanted = cloud(edge(rgb))
    stream = output.with_suffix(".lmc")
    cases = {
        "measured on the first frames, sent along": (None, "grey"),
        f"calibrated on {len(photographs)} photographs, at both ends": (profile, "blue"),
    }
    with drawing(output, [5.4], 2.9) as (chart,), torch.no_grad():
        for name, (given, colour) in cases.items():
            sizes, losses = [], []
            for qp in range(chosen.qp - 4, chosen.qp + 21, 6):
                apart = given is not None
                made = chosen.encode(stream, edge, rgb, qp=qp, profile=given, profile_apart=apart)
                with codec.open(stream, profile=given) as coded:
                    logits = cloud(coded[:].features)
                sizes.append(made.bytes / made.frames)
                losses.append(float(kl_divergence(wanted, logits).mean()))
            chart.loglog(sizes, losses, marker="o", color=PALETTE[colour], label=name)
        chart.set(title="what the task loses (KL), against bytes a frame", xlabel="bytes a frame")
        chart.legend()


if __name__ == "__main__":
    main()
