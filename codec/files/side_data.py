"""What a decoded frame carries beside its pixels: its orientation, and the vectors of its codec.

PyAV's `frame.side_data` wraps everything that a frame carries: it raises for types that it has no
name for (EXIF), and frees the metadata of a colour profile, which belongs to FFmpeg, so that the
process crashes later.  So a filter graph first makes a reference to the frame on which only the
needed kinds are left.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final, cast

import numpy as np
from av.filter import Graph
from av.filter.context import FilterContext
from av.sidedata.motionvectors import MotionVectors
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from codec.files.fitting import Orientation

__all__ = ["SideData"]

# AVFrameSideDataType: what is read here, and a number that no version of FFmpeg comes near.
DISPLAY_MATRIX: Final = 6
MOTION_VECTORS: Final = 8
SIDE_DATA_TYPES: Final = 64


class SideData:
    """Reads side data of frames, the two kinds of it that are needed."""

    def __init__(self) -> None:
        self._shape: tuple[int, int, str] | None = None
        self._graph: Graph | None = None

    def orientation(self, frame: VideoFrame) -> Orientation:
        """Read how the frame is to be turned."""
        matrix = cast("bytes | None", self._reduced(frame).side_data.get("DISPLAYMATRIX"))
        if matrix is None:
            return Orientation()
        return Orientation.from_display_matrix(np.frombuffer(bytes(matrix), np.int32).reshape(3, 3))

    def motion(self, frame: VideoFrame) -> NDArray[np.void] | None:
        """Read AVMotionVector records; None where there are none."""
        reduced = self._reduced(frame)
        vectors = reduced.side_data.get("MOTION_VECTORS")
        if not isinstance(vectors, MotionVectors):
            return None
        return vectors.to_ndarray().copy()

    def _reduced(self, frame: VideoFrame) -> VideoFrame:
        shape = (frame.width, frame.height, frame.format.name)
        if self._graph is None or self._shape != shape:
            self._graph, self._shape = _reducing_graph(shape), shape
        self._graph.push(frame)
        return cast("VideoFrame", self._graph.pull())


def _reducing_graph(shape: tuple[int, int, str]) -> Graph:
    graph = Graph()
    width, height, pixel_format = shape
    last: FilterContext = graph.add_buffer(
        width=width, height=height, format=VideoFormat(pixel_format), time_base=Fraction(1, 1000)
    )
    for kind in range(SIDE_DATA_TYPES):
        if kind not in {DISPLAY_MATRIX, MOTION_VECTORS}:
            step = graph.add("sidedata", f"mode=delete:type={kind}")
            last.link_to(step)
            last = step
    sink = graph.add("buffersink")
    last.link_to(sink)
    graph.configure()
    return graph
