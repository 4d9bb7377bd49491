"""What the codec has to beat: video codecs on pixels and on feature tiles, NNCodec, plain files.

Every anchor sees the very frames and tensors that the codec sees, in this process, and is judged
by the same scene:

    pixels-*      frames that the model sees --YCbCr or GBR--> x265, x264, SVT-AV1 --> whole model
    source-*      frames of the clip, at their own size --> the same --> resized --> whole model
    tiles         channels side by side in one 10-bit grey picture --> x265 --> features --> cloud
    nncodec       features --NNCodec, frame by frame--> features --> cloud
    lossless      features at 2 to 8 bits, uniformly --> zlib or xz: for orientation
    uncompressed  features as float32: for orientation
    labels        the output itself: five largest probabilities, or all --> range coder

Where a choice is open, it goes the anchor's way, but for one: tiles are coded with low delay, as
ours is, and pixels with B-frames.  Variants of an anchor are one anchor, the best of them at each
rate.

Points run from coarse to fine: crf of the video codecs, qp of NNCodec (a step of 2^(qp / 4) at its
default density), bits of the lossless ones, steps of labels.
"""

import lzma
import zlib
from functools import partial

from codec.files.video_coders import (
    LOW_DELAY,
    SVT_PLAIN,
    X264_PLAIN,
    X265_PLAIN,
    VideoCoder,
    svt_av1,
    x264,
    x265,
)
from tools.contenders.labels import EVERYTHING, LARGEST, Labels
from tools.contenders.pixels import Pixels, Source
from tools.contenders.scene import StudyCodec
from tools.contenders.tensors import Lossless, NnCodec, Tiles, Uncompressed

__all__ = ["ANCHORS"]

# KL from about 2 down to 0.003, or as far as a format gets: 8 bits of 4:2:0 stop at 0.01 to 0.07.
CRF = (46.0, 40.0, 34.0, 28.0, 22.0, 16.0, 10.0)
CRF_AV1 = (63.0, 55.0, 46.0, 37.0, 28.0, 19.0, 10.0)
CRF_TILES = (42.0, 38.0, 34.0, 30.0, 26.0, 22.0, 18.0, 14.0)
CRF_SOURCE = (46.0, 40.0, 34.0, 28.0, 22.0, 16.0)
CRF_SOURCE_AV1 = (63.0, 55.0, 46.0, 37.0, 28.0, 19.0)
QP_NNCODEC = (20.0, 17.0, 14.0, 12.0, 10.0, 8.0, 5.0, 2.0)

FORMATS = ("yuv420p", "yuv444p", "gbrp")


def _video_anchors(
    kind: type[Pixels] | type[Source], prefix: str, crf: tuple[float, ...], av1: tuple[float, ...]
) -> dict[str, tuple[StudyCodec, ...]]:
    """Make the anchors of a kind; pixels, which are quick, with and without what serves the eye."""
    plain = kind is Pixels
    found: dict[str, list[StudyCodec]] = {}

    def add(coder: VideoCoder, codec: str, pixel_format: str, suffix: str = "") -> None:
        name = f"{prefix}-{codec}"
        points = av1 if codec == "svtav1" else crf
        found.setdefault(name, []).append(
            kind(name, pixel_format.removesuffix("le") + suffix, coder, pixel_format, points)
        )

    for pixel_format in FORMATS:
        rgb = "libx264rgb" if pixel_format == "gbrp" else "libx264"
        add(x265(), "x265", pixel_format)
        add(x264(encoder=rgb), "x264", pixel_format)
        if plain:
            add(x265(X265_PLAIN), "x265", pixel_format, "-plain")
            add(x264(X264_PLAIN, rgb), "x264", pixel_format, "-plain")
    add(svt_av1(), "svtav1", "yuv420p")
    if plain:
        add(svt_av1(SVT_PLAIN), "svtav1", "yuv420p", "-plain")
        add(svt_av1(SVT_PLAIN), "svtav1", "yuv420p10le", "-plain")
    return {name: tuple(codecs) for name, codecs in found.items()}


ANCHORS: dict[str, tuple[StudyCodec, ...]] = {
    "tiles": (
        Tiles("default", x265(LOW_DELAY), CRF_TILES),
        Tiles("plain", x265(f"{LOW_DELAY}:{X265_PLAIN}"), CRF_TILES),
    ),
    **_video_anchors(Pixels, "pixels", CRF, CRF_AV1),
    **_video_anchors(Source, "source", CRF_SOURCE, CRF_SOURCE_AV1),
    "nncodec": (NnCodec(QP_NNCODEC),),
    "lossless": (
        Lossless("zlib", partial(zlib.compress, level=9), zlib.decompress, by_frame=True),
        Lossless("xz", partial(lzma.compress, preset=9), lzma.decompress, by_frame=False),
    ),
    "uncompressed": (Uncompressed(),),
    "labels": (Labels(LARGEST), Labels(EVERYTHING)),
}
