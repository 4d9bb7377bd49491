"""latent-motion-codec: the reference codec for feature tensors of video.

The library in one breath: `Encoder(header, config).encode(features, vectors)` gives packets,
`Decoder(header)` gives the tensors back, bit for bit; `simple_header` makes a header for your own
tensors.  Names load on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codec.encoding.encoder import EncodedFrame, Encoder, EncoderConfig
    from codec.encoding.motion_search import MotionSearch, luma
    from codec.errors import (
        BitstreamError,
        CorruptBitstreamError,
        FeatureCodecError,
        FeatureError,
        LimitExceededError,
        ModelError,
        TruncatedBitstreamError,
        UnsupportedBitstreamError,
        VideoError,
    )
    from codec.files.streams import StreamReader, StreamWriter
    from codec.files.video import VideoReader
    from codec.format.header import Preprocessing, SequenceHeader, TensorSpec
    from codec.format.packets import FramePacket
    from codec.format.profile import Profile
    from codec.limits import Limits
    from codec.models.preprocessing import default_preprocessing, normalise
    from codec.models.sources import load_model
    from codec.models.submodels import SplitModel, split_model
    from codec.normative.decoder import DecodedFrame, Decoder
    from codec.pipeline.calibration import CalibrationOptions, calibrate
    from codec.pipeline.coding import EncodeOptions, VideoEncoder, decode_frames
    from codec.profiling.simple import measure_profile, simple_header

__version__ = "0.1.0"

_HOMES = {
    "BitstreamError": "errors",
    "CalibrationOptions": "pipeline.calibration",
    "CorruptBitstreamError": "errors",
    "DecodedFrame": "normative.decoder",
    "Decoder": "normative.decoder",
    "EncodeOptions": "pipeline.coding",
    "EncodedFrame": "encoding.encoder",
    "Encoder": "encoding.encoder",
    "EncoderConfig": "encoding.encoder",
    "FeatureCodecError": "errors",
    "FeatureError": "errors",
    "FramePacket": "format.packets",
    "LimitExceededError": "errors",
    "Limits": "limits",
    "ModelError": "errors",
    "MotionSearch": "encoding.motion_search",
    "Preprocessing": "format.header",
    "Profile": "format.profile",
    "SequenceHeader": "format.header",
    "SplitModel": "models.submodels",
    "StreamReader": "files.streams",
    "StreamWriter": "files.streams",
    "TensorSpec": "format.header",
    "TruncatedBitstreamError": "errors",
    "UnsupportedBitstreamError": "errors",
    "VideoEncoder": "pipeline.coding",
    "VideoError": "errors",
    "VideoReader": "files.video",
    "calibrate": "pipeline.calibration",
    "decode_frames": "pipeline.coding",
    "default_preprocessing": "models.preprocessing",
    "load_model": "models.sources",
    "luma": "encoding.motion_search",
    "measure_profile": "profiling.simple",
    "normalise": "models.preprocessing",
    "simple_header": "profiling.simple",
    "split_model": "models.submodels",
}

__all__ = [
    "BitstreamError",
    "CalibrationOptions",
    "CorruptBitstreamError",
    "DecodedFrame",
    "Decoder",
    "EncodeOptions",
    "EncodedFrame",
    "Encoder",
    "EncoderConfig",
    "FeatureCodecError",
    "FeatureError",
    "FramePacket",
    "LimitExceededError",
    "Limits",
    "ModelError",
    "MotionSearch",
    "Preprocessing",
    "Profile",
    "SequenceHeader",
    "SplitModel",
    "StreamReader",
    "StreamWriter",
    "TensorSpec",
    "TruncatedBitstreamError",
    "UnsupportedBitstreamError",
    "VideoEncoder",
    "VideoError",
    "VideoReader",
    "calibrate",
    "decode_frames",
    "default_preprocessing",
    "load_model",
    "luma",
    "measure_profile",
    "normalise",
    "simple_header",
    "split_model",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _HOMES:
        raise AttributeError(f"module 'codec' has no attribute {name!r}")
    return getattr(import_module(f"codec.{_HOMES[name]}"), name)
