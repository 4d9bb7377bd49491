"""Measure the shipped profiles on a folder of photographs.

    python -m tools.make_profiles PHOTOGRAPHS

Per bundled split of EfficientNet-Lite0: means and scales of the features, and the one number that
ties `qp` to the task: the step at qp 0 is chosen such that photographs coded as key frames at qp 28
lose `TARGET_KL` nats on average.
"""

import hashlib
import json
import math
import sys
from pathlib import Path

import click
import torch

from codec.bitstream import SequenceHeader, TensorSpec
from codec.calibration import measure_profile
from codec.encoder import Encoder, EncoderConfig
from codec.metrics import kl_divergence
from codec.profile import Profile
from codec.submodels import (
    BUNDLED_SPLITS,
    DEFAULT_MODEL,
    CloudSubmodel,
    default_preprocessing,
    load_model,
    normalise,
    split_model,
    weights_hash,
)
from codec.video import VideoReader

REFERENCE_QP = 28
TARGET_KL = 0.07
MEASURED = 260
TUNED = 48
PROFILES = Path(__file__).parent.parent / "codec" / "profiles"


def key_frame_kl(
    profile: Profile, spec: TensorSpec, features: list[torch.Tensor], cloud: CloudSubmodel
) -> float:
    """Return the mean KL of features coded as key frames at the reference qp."""
    header = SequenceHeader(
        tensors=(spec,),
        input_height=224,
        input_width=224,
        profile_hash=profile.hash,
        profile=profile.to_bytes(),
    )
    encoder = Encoder(header, EncoderConfig(qp=REFERENCE_QP))
    total = 0.0
    for tensor in features:
        decoded = encoder.encode([tensor], key=True).features[0]
        total += float(kl_divergence(cloud([tensor[None]]), cloud([decoded[None]])))
    return total / len(features)


@click.command()
@click.argument("photographs", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(photographs: Path) -> None:
    """Write codec/profiles/*.safetensors and their index from PHOTOGRAPHS (*.jpg)."""
    torch.set_grad_enabled(False)
    preprocessing = default_preprocessing(DEFAULT_MODEL, native=False)
    model = load_model(DEFAULT_MODEL)
    files = sorted(photographs.glob("*.jpg"))[:MEASURED]
    if not files:
        raise click.UsageError(f"{photographs} holds no *.jpg")
    images = []
    for file in files:
        with VideoReader(file, preprocessing) as reader:
            images.append(normalise(next(iter(reader)).rgb, preprocessing))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    index: dict[str, str] = {}
    for split in BUNDLED_SPLITS:
        halves = split_model(model, split, (224, 224), DEFAULT_MODEL)
        (spec,) = halves.tensors
        features = [halves.edge(image)[0][0] for image in images]
        tuned = features[:: max(len(features) // TUNED, 1)]
        deviation = float(torch.stack(tuned).std())
        low, high = deviation * 2.0**-10, deviation
        for _ in range(9):
            unit = math.sqrt(low * high)
            profile = measure_profile([spec], ([tensor] for tensor in tuned), units=[unit])
            kl = key_frame_kl(profile, spec, tuned, halves.cloud)
            low, high = (unit, high) if kl < TARGET_KL else (low, unit)
        provenance = {
            "model": DEFAULT_MODEL,
            "split": split,
            "weights_hash": weights_hash(model).hex(),
            "photographs": len(files),
            "photographs_sha256": digest,
            "kl_at_qp_28": round(kl, 4),
        }
        profile = measure_profile(
            [spec], ([tensor] for tensor in features), units=[unit], provenance=provenance
        )
        name = f"{DEFAULT_MODEL}_{split.replace('.', '_')}.safetensors"
        PROFILES.mkdir(exist_ok=True)
        profile.save(PROFILES / name)
        index[f"{DEFAULT_MODEL}@{split}"] = name
        index[profile.hash.hex()] = name
        click.echo(
            f"{split}: step at qp 0 {unit:.4f}, KL {kl:.3f}, {len(profile.to_bytes())} bytes",
            file=sys.stderr,
        )
    (PROFILES / "index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
