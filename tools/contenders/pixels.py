"""Anchors on the pixels: remote inference, at the size that the model sees and at the clip's own.

At the size that the model sees, converting to YCbCr is exact arithmetic with one rounding, and back
again has none; at the clip's own size, 4:2:0 takes the planes of the source as they are, and what
comes back is resized exactly as the source is.
"""

from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame

from codec.files.colour import COLORSPACE_STAND_INS, SCALER
from codec.files.pictures import from_pictures, to_pictures
from codec.files.video import VideoReader
from codec.files.video_coders import VideoCoder, code_video, parameters_of
from tools.contenders.scene import Coded, Scene
from tools.contenders.unavailable import AnchorUnavailableError

__all__ = [
    "Pixels",
    "Source",
]


def _taken(coder: VideoCoder, pixel_format: str) -> str:
    """Name the format that an encoder wants for GBR, which is packed for x264."""
    return "rgb24" if (coder.encoder, pixel_format) == ("libx264rgb", "gbrp") else pixel_format


@dataclass(frozen=True, slots=True)
class Pixels:
    """Remote inference: the frames that the model sees, as video."""

    name: str
    variant: str
    coder: VideoCoder
    pixel_format: str
    points: tuple[float, ...]
    needs_split: bool = False

    def code(self, scene: Scene, point: float) -> Coded:
        """Code the frames as video at crf `point`."""
        taken = _taken(self.coder, self.pixel_format)
        pictures = [
            VideoFrame.from_ndarray(picture, format=taken)
            for picture in to_pictures(scene.rgb, self.pixel_format)
        ]
        coded = code_video(pictures, self.coder, point, taken)
        decoded = [frame.to_ndarray(format=self.pixel_format) for frame in coded.frames]
        return Coded(
            sum(coded.frame_bytes),
            images=from_pictures(decoded, self.pixel_format),
            frame_bytes=coded.frame_bytes,
            seconds=coded.seconds,
            parameters=parameters_of(self.coder, point, taken),
        )


PLANAR_420 = ("yuv420p", "yuvj420p")


@dataclass(frozen=True, slots=True)
class Source:
    """Remote inference from the clip as it is: its own frames as video, resized at the far end."""

    name: str
    variant: str
    coder: VideoCoder
    pixel_format: str
    points: tuple[float, ...]
    needs_split: bool = False

    def code(self, scene: Scene, point: float) -> Coded:
        """Code the frames of the clip as video at crf `point`.

        Raises:
            AnchorUnavailableError: the sides of the clip are odd.
        """
        with VideoReader(scene.path, scene.preprocessing, frames=(0, scene.frames)) as reader:
            sources = [frame for frame, _ in reader.decoded()]
            if sources[0].width % 2 or sources[0].height % 2:
                raise AnchorUnavailableError(
                    f"frames of {sources[0].width}x{sources[0].height}: the video codecs want even "
                    "sides"
                )
            taken = _taken(self.coder, self.pixel_format)
            pictures = [_converted(source, self.pixel_format, taken) for source in sources]
            coded = code_video(pictures, self.coder, point, taken)
            images = [
                reader.deliver(_tagged(frame, source, self.pixel_format), number).rgb
                for number, (frame, source) in enumerate(zip(coded.frames, sources, strict=True))
            ]
        return Coded(
            sum(coded.frame_bytes),
            images=np.stack(images).astype(np.float32),
            frame_bytes=coded.frame_bytes,
            seconds=coded.seconds,
            parameters={
                **parameters_of(self.coder, point, taken),
                "width": sources[0].width,
                "height": sources[0].height,
            },
        )


def _converted(source: VideoFrame, pixel_format: str, taken: str) -> VideoFrame:
    """Bring a frame of the clip to the format that the encoder takes."""
    if pixel_format == "yuv420p" and source.format.name in PLANAR_420:
        return VideoFrame.from_ndarray(source.to_ndarray(), format=pixel_format)
    colorspace = COLORSPACE_STAND_INS.get(source.colorspace)
    converted = source.reformat(
        format=_ranged(source, pixel_format) if pixel_format != "gbrp" else "rgb24",
        src_colorspace=colorspace,
        dst_colorspace=colorspace,
        interpolation=SCALER,
    )
    # a copy without the tags, which the far end gets from the source
    return VideoFrame.from_ndarray(converted.to_ndarray(), format=taken)


def _ranged(source: VideoFrame, pixel_format: str) -> str:
    """Name the full-range twin of a YCbCr format where the source is of full range."""
    full = source.format.name.startswith("yuvj")
    return pixel_format.replace("yuv", "yuvj") if full else pixel_format


def _tagged(decoded: VideoFrame, source: VideoFrame, pixel_format: str) -> VideoFrame:
    """Give a decoded frame the format, range and colour space of its source."""
    if pixel_format == "gbrp":
        return VideoFrame.from_ndarray(decoded.to_ndarray(format="gbrp"), format="rgb24")
    frame = VideoFrame.from_ndarray(decoded.to_ndarray(), format=_ranged(source, pixel_format))
    frame.colorspace, frame.color_range = source.colorspace, source.color_range
    return frame
