"""A small rate-distortion study, made up, for the tests of figures and pages."""

from __future__ import annotations

from typing import Any

CLIPS = ("still.mp4", "moving.mp4")
FRAMES = 4
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M/wHwAEBgIA"
    "5agATwAAAABJRU5ErkJggg=="
)


def make_study(clips: tuple[str, ...] = CLIPS, own: str = "mine") -> dict[str, Any]:
    """Make a study of two splits, in the format that `study_page` documents.

    Args:
        clips: names.
        own: name of a researcher's own codec.
    """
    points = []
    for number, clip in enumerate(clips):
        for codec, factor, splits, variants in (
            ("lmc", 1.0, ("blocks.10", "blocks.4"), ("",)),
            ("tiles", 2.0, ("blocks.10",), ("default", "plain")),
            ("pixels-x265", 3.0, ("",), ("yuv420p", "gbrp")),
            (own, 1.5, ("blocks.10",), ("",)),
        ):
            points += [
                point_of(clip, split, codec, variant, qp, factor * (1 + number + 0.3 * worse))
                for split in splits
                for worse, variant in enumerate(variants)
                for qp in (14, 20, 26, 32, 38)
            ]
        points.append({**point_of(clip, "blocks.10", "lossless", "", 0, 9.0), "kl": 0.0})
    return {
        "format": 1,
        "provenance": {
            "command": "python -m tools.rate_distortion still.mp4 -o study/",
            "commit": "0123456789ab",
            "date": "2026-01-02",
            "versions": {"torch": "2.9"},
            "machine": {"processor": "some processor"},
        },
        "settings": {
            "model": "efficientnet_lite0",
            "weights": "default",
            "frames": FRAMES,
            "test": ["lmc"],
            "kl": [0.005, 1.0],
            "splits": [
                {"name": "blocks.10", "elements": 21952, "tensors": "112×14×14"},
                {"name": "blocks.4", "elements": 31360, "tensors": "40×28×28"},
            ],
            "clips": [
                {"name": clip, "width": 320, "height": 240, "frame_rate": 25.0, "frames": FRAMES}
                for clip in clips
            ],
        },
        "points": points,
        "refused": [
            {
                "clip": clips[0],
                "split": "blocks.10",
                "codec": own,
                "variant": "",
                "point": 12.0,
                "reason": "out of its range",
            }
        ],
        "comparisons": [
            comparison_of(clips, anchor, measure, refused)
            for anchor, refused in (("tiles", ()), ("pixels-x265", clips[1:]))
            for measure in ("bd_rate", "bd_kl")
        ],
        "showcases": [showcase_of(clips[-1], "blocks.10")],
    }


def point_of(
    clip: str, split: str, codec: str, variant: str, qp: int, factor: float
) -> dict[str, Any]:
    """Make a point on the curve rate · KL = constant."""
    kl = 0.004 * 2 ** ((qp - 14) / 4)
    size = round(400 * factor / kl)
    own = codec.startswith("lmc")
    each = size / FRAMES
    return {
        "clip": clip,
        "split": split,
        "codec": codec,
        "variant": variant,
        "point": float(qp),
        "frames": FRAMES,
        "bytes": size,
        "bytes_per_frame": each,
        "kbit_per_s": each * 8 * 25 / 1000,
        "bits_per_element": each * 8 / 21952 if split else None,
        "kl": kl,
        "top1_agreement": 1 - kl / 2,
        "dense_agreement": 1 - kl if split else None,
        "nrmse": kl / 5 if split else None,
        "accuracy": None,
        "seconds": {"encode": 0.4, "decode": 0.2} if own else {"encode": 0.1},
        "peak_memory_mb": 300.0 if own else None,
        "parameters": {"qp": qp, "preset": "medium"},
        "per_frame": {
            "kl": [kl] * FRAMES,
            "bytes": [each] * FRAMES,
            "parts": {"header": [4] * FRAMES, "motion": [2] * FRAMES, "residual": [each] * FRAMES}
            if own
            else {},
        },
    }


def comparison_of(
    clips: tuple[str, ...], anchor: str, measure: str, refused: tuple[str, ...]
) -> dict[str, Any]:
    """Make the row of an anchor."""
    cell = {"pchip": -40.0, "akima": -39.0, "low": 0.005, "high": 1.0, "overlap": 0.9}
    found = {clip: {"refusal": "too few points"} if clip in refused else cell for clip in clips}
    return {
        "split": "blocks.10",
        "test": "lmc",
        "anchor": anchor,
        "measure": measure,
        "clips": found,
        "mean": -40.0,
        "interval": None if refused else [-50.0, -30.0],
        "clips_compared": len(clips) - len(refused),
    }


def showcase_of(clip: str, split: str) -> dict[str, Any]:
    """Make a showcase like those of a study: of two frames and one channel of three."""
    return {
        "clip": clip,
        "model": "efficientnet_lite0",
        "split": split,
        "qp": 24,
        "effort": 4,
        "coded": FRAMES,
        "bytes": 400,
        "kl": 0.1,
        "nrmse": 0.03,
        "tensor": {
            "name": split,
            "channels": 3,
            "height": 2,
            "width": 2,
            "block_size": 2,
            "range": 4.0,
        },
        "grid": 32,
        "width": 64,
        "height": 64,
        "frames": [
            {
                "number": number,
                "seconds": number / 25,
                "bytes": 100,
                "key": False,
                "image": PIXEL,
                "vectors": vectors,
            }
            for number, vectors in ((1, None), (3, [[[0.0, -2.5], [0, 0]], [[4.0, 0], [0, 0]]]))
        ],
        "channels": [
            {
                "number": 2,
                "reason": "high energy",
                "low": -1.0,
                "high": 1.0,
                "scale": 0.2,
                "images": dict.fromkeys(("original", "reconstructed", "difference"), PIXEL),
            }
        ],
        "channel_nrmse": [0.02, 0.03, 0.04],
        "channel_bits": [100.0, 200.0, 300.0],
        "block_bits": [[600.0]],
        "position_nrmse": [[0.02, 0.03], [0.03, 0.04]],
        "bits": {"payload": 2400.0, "levels": 2390.0},
    }


def make_detection(clips: tuple[str, ...] = CLIPS) -> dict[str, Any]:
    """Make the same study of a detector."""
    study = make_study(clips)
    study["settings"] |= {"model": "small.pt2@0123456789abcdef", "task": "detection"}
    for point in study["points"]:
        kl = point.pop("kl")
        for name in ("top1_agreement", "dense_agreement", "accuracy"):
            del point[name]
        point |= {
            "score_error": 2 * kl,
            "distortion": kl,
            "ap": 1 - min(kl, 1),
            "ap50": 1 - min(kl, 1) / 2,
            "output_error": kl / 10,
        }
        point["per_frame"]["distortion"] = point["per_frame"].pop("kl")
    study["comparisons"] = [
        {**row, "figure": figure}
        for row in study["comparisons"]
        if row["measure"] == "bd_rate"
        for figure in ("score_error", "output_error")
    ]
    for show in study["showcases"]:
        show["score_error"] = show.pop("kl")
        for frame in show["frames"]:
            frame["drawn"] = PIXEL
    return study
