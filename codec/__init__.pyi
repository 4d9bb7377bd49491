"""The names of the package, for type checkers, and for `__init__.py`, which reads them here."""

from codec.encoding.config import (
    QUALITIES as QUALITIES,
    Decisions as Decisions,
    EncoderConfig as EncoderConfig,
)
from codec.encoding.encoder import EncodedFrame as EncodedFrame, Encoder as Encoder
from codec.encoding.motion_search import MotionSearch as MotionSearch, luma as luma
from codec.errors import (
    BitstreamError as BitstreamError,
    CorruptBitstreamError as CorruptBitstreamError,
    FeatureCodecError as FeatureCodecError,
    FeatureError as FeatureError,
    LimitExceededError as LimitExceededError,
    ModelError as ModelError,
    TaskError as TaskError,
    TruncatedBitstreamError as TruncatedBitstreamError,
    UnsupportedBitstreamError as UnsupportedBitstreamError,
    VideoError as VideoError,
)
from codec.files.streams import StreamReader as StreamReader, StreamWriter as StreamWriter
from codec.files.video import VideoReader as VideoReader
from codec.format.header import (
    Preprocessing as Preprocessing,
    SequenceHeader as SequenceHeader,
    TensorSpec as TensorSpec,
)
from codec.format.packets import EndPacket as EndPacket, FramePacket as FramePacket
from codec.format.profile import Profile as Profile
from codec.limits import Limits as Limits
from codec.models.preprocessing import (
    default_preprocessing as default_preprocessing,
    normalise as normalise,
)
from codec.models.sources import list_models as list_models, load_model as load_model
from codec.models.split_points import describe_splits as describe_splits
from codec.models.submodels import SplitModel as SplitModel, split_model as split_model
from codec.normative.decoder import DecodedFrame as DecodedFrame, Decoder as Decoder
from codec.pipeline.calibration import (
    CalibrationOptions as CalibrationOptions,
    calibrate as calibrate,
)
from codec.pipeline.clips import Batch as Batch, Clip as Clip, open as open
from codec.pipeline.decoding import decode_frames as decode_frames
from codec.pipeline.encoding import VideoEncoder as VideoEncoder
from codec.pipeline.halves import Cloud as Cloud, Edge as Edge, split as split
from codec.pipeline.options import VideoOptions as VideoOptions
from codec.pipeline.writing import EncodedClip as EncodedClip, Writer as Writer, encode as encode
from codec.profiling.simple import (
    measure_profile as measure_profile,
    simple_header as simple_header,
)

__version__: str
