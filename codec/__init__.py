"""latent-motion-codec: the reference codec for feature tensors of video.

    import codec
    codec.encode(features, "clip.lmc", qp=24, stride=16, motion=frames)
    batch = codec.open("clip.lmc")[40:60]
    edge, cloud = codec.split("resnet34", at="add_3")
    logits = cloud(batch.features)

Below that, without files: `Encoder(header, config).encode(features, vectors)` gives packets, and
`Decoder(header)` gives the tensors back, bit for bit.  Names load on first use, so that importing
the package costs nothing; they are listed once, in `__init__.pyi`, which type checkers read too.
"""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    name: module
    for module, names in re.findall(
        r"^from (codec\.\S+) import (\(.*?\)|.*?)$",
        Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    for name in re.findall(r"(\w+) as ", names)
}
__all__ = [name for name in _HOMES if name != "open"]  # a star leaves Python its own


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _HOMES:
        raise AttributeError(f"module 'codec' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
