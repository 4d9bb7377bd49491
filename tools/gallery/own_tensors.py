"""Tensors of your own, from no network at all, and what it is worth to say how they move.

python -m tools.gallery.own_tensors OUTPUT.png
"""

import sys
from pathlib import Path

import torch

import codec
from tools.gallery.pictures import drawing, show
from tools.report.figures import PALETTE

FRAMES, STRIDE = 16, 8


def drifting() -> torch.Tensor:
    """Return (T, C, H, W): eight smooth channels that drift by (1, 2) samples a frame."""
    noise = torch.randn(8, 96, 128, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(noise, 9, 1, 4)
    return torch.stack([smooth[:, t : t + 48, 2 * t : 2 * t + 64] for t in range(FRAMES)])


def main(output: Path) -> None:
    """Encode the tensors with and without motion, decode a slice of them, and draw."""
    features = drifting()
    # (y, x) in input pixels, of which a sample stands for 8: whence content came
    motion = torch.tensor([1.0, 2.0]).mul(STRIDE).expand(FRAMES, 12, 16, 2)
    fields = {"no motion": None, "motion": motion}
    qps = (8, 16, 24, 32)
    rates: dict[str, list[float]] = {name: [] for name in fields}
    shown: dict[int, torch.Tensor] = {}
    for name, field in fields.items():
        for qp in qps:
            path = output.with_suffix(f".{qp}.lmc")
            made = codec.encode(features, path, stride=STRIDE, motion=field, qp=qp, force=True)
            rates[name].append(made.bits_per_element)
            with codec.open(path) as clip:
                shown[qp] = clip[11].features[0][0]  # of frame 11, tensor 0, channel 0
            path.unlink()

    with drawing(output, [2.2, 2.2, 2.2, 3.4]) as (actual, fine, coarse, chart):
        show(actual, features[11, 0], "frame 11, channel 0")
        show(fine, shown[qps[0]], f"decoded, qp {qps[0]}")
        show(coarse, shown[qps[-1]], f"decoded, qp {qps[-1]}")
        for (name, rate), colour in zip(rates.items(), ("grey", "blue"), strict=True):
            chart.plot(qps, rate, marker="o", color=PALETTE[colour], label=name)
        chart.set(title="bits per element (float32: 32)", xlabel="qp", ylim=0, xticks=qps)
        chart.legend()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
