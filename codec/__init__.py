"""latent-motion-codec: the reference codec for feature tensors of video.

The library in one breath: `Encoder(header, config).encode(features, vectors)` gives packets,
`Decoder(header)` gives the tensors back, bit for bit; `simple_header` makes a header for your own
tensors.  Names load on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codec.bitstream import FramePacket, SequenceHeader, TensorSpec
    from codec.calibration import measure_profile, simple_header
    from codec.container import StreamReader, StreamWriter
    from codec.decoder import DecodedFrame, Decoder
    from codec.encoder import EncodedFrame, Encoder, EncoderConfig
    from codec.motion_search import MotionSearch, luma
    from codec.profile import Profile

__version__ = "0.1.0"

_HOMES = {
    "DecodedFrame": "decoder",
    "Decoder": "decoder",
    "EncodedFrame": "encoder",
    "Encoder": "encoder",
    "EncoderConfig": "encoder",
    "FramePacket": "bitstream",
    "MotionSearch": "motion_search",
    "Profile": "profile",
    "SequenceHeader": "bitstream",
    "StreamReader": "container",
    "StreamWriter": "container",
    "TensorSpec": "bitstream",
    "luma": "motion_search",
    "measure_profile": "calibration",
    "simple_header": "calibration",
}

__all__ = [
    "DecodedFrame",
    "Decoder",
    "EncodedFrame",
    "Encoder",
    "EncoderConfig",
    "FramePacket",
    "MotionSearch",
    "Profile",
    "SequenceHeader",
    "StreamReader",
    "StreamWriter",
    "TensorSpec",
    "luma",
    "measure_profile",
    "simple_header",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _HOMES:
        raise AttributeError(f"module 'codec' has no attribute {name!r}")
    return getattr(import_module(f"codec.{_HOMES[name]}"), name)
