"""The codecs of a study by name: our own with its variants here, the anchors, and anybody's.

    lmc            motion search, default effort
    lmc-effort7    the same with the task refinement
    lmc-intra      without prediction
    lmc-zero       prediction without motion
    lmc-bitstream  the vectors that the input video carries
    lmc-oracle     vectors searched between the tensors themselves (`latent_search.py`)

Ours writes the stream that `lmc encode` writes, decodes it and compares the MD5 of every frame
with the encoder's; its size is that of the stream.  A profile that both sides have been given does
not travel, and does not count; one that is measured on the clip does both.

Not here: what becomes of the decoded tensors (`tools/contenders/scene.py`).
"""

import difflib
import importlib
import io
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from codec import __version__
from codec.encoding.config import DEFAULT_EFFORT, Decisions, EncoderConfig
from codec.encoding.encoder import EncodedFrame, Encoder
from codec.files.streams import StreamReader, StreamWriter
from codec.files.video_coders import KEYINT
from codec.format.constants import DEFAULT_GRID, MAX_QP
from codec.pipeline.decoding import decode_frames
from codec.pipeline.encoding import VideoEncoder
from codec.pipeline.options import VideoOptions
from tools.contenders.anchors import ANCHORS
from tools.contenders.latent_search import latent_fields
from tools.contenders.scene import Coded, Scene, StudyCodec

__all__ = ["ANCHOR_NAMES", "CODEC_NAMES", "LatentMotionCodec", "study_codecs"]

NRMSE_TOLERANCE = 1e-3
"""The edge sub-model rounds otherwise when it sees several frames at once."""
REFINED_OFFSET = 8
"""How many qp above the default effort the task refinement gives about the same KL."""


@dataclass(frozen=True, slots=True)
class LatentMotionCodec:
    """Our codec, by its own pipeline; `motion` is one of the pipeline's sources, or `oracle`."""

    name: str
    points: tuple[float, ...]
    motion: str = "search"
    effort: int = DEFAULT_EFFORT
    decisions: Decisions | None = None
    grid: int = DEFAULT_GRID
    variant: str = ""
    needs_split: bool = True

    def code(self, scene: Scene, point: float) -> Coded:
        """Encode the scene's clip at qp `point`, decode the stream.

        Raises:
            VideoError: the input carries no vectors, where they were asked for.
            ValueError: a decoded frame is not the encoder's, or what was encoded is not the
                scene's.
        """
        assert scene.halves is not None
        options = VideoOptions(
            model=scene.model,
            split=scene.halves.split,
            weights=scene.weights,
            preprocessing=scene.preprocessing_file,
            task=scene.task_named,
            profile=scene.profile,
            frames=(0, scene.frames),
            motion="search" if self.motion == "oracle" else self.motion,
            grid=self.grid,
            measure=True,
            config=EncoderConfig(
                qp=int(point), keyint=KEYINT, effort=self.effort, decisions=self.decisions
            ),
        )
        encoder = VideoEncoder(scene.path, options)
        if self.motion == "oracle":
            searched = _Searched(scene, encoder, options)
            coded = _coded(searched, encoder, searched.seconds, given=scene.profile is not None)
        else:
            coded = _coded(encoder, encoder, None, given=scene.profile is not None)
            reported = encoder.report(coded["size"], 0)["nrmse"]
            judged = scene.nrmse(coded["features"])
            if not math.isclose(reported, judged, rel_tol=NRMSE_TOLERANCE):
                raise ValueError(
                    f"{scene.clip}: NRMSE {reported} at the encoder, {judged} against the scene's "
                    "tensors; these are not what was encoded"
                )
        parameters: dict[str, str | int | float] = {}
        if carried := coded.pop("profile"):
            counted = "carried" if scene.profile is None else "given"
            parameters[f"bytes_of_profile_{counted}"] = carried
        return Coded(
            **coded,
            parameters={
                **parameters,
                "latent-motion-codec": __version__,
                "qp": int(point),
                "effort": self.effort,
                "motion": self.motion,
                "grid": self.grid,
                "keyint": KEYINT,
            },
        )


@dataclass(slots=True)
class _Searched:
    """Encodes a scene with the fields of the search in the latent domain."""

    scene: Scene
    setup: VideoEncoder
    options: VideoOptions
    seconds: dict[str, float] = field(default_factory=dict)

    def __iter__(self) -> Iterator[EncodedFrame]:
        header, scene = self.setup.header, self.scene
        fields, self.seconds["motion"] = latent_fields(scene, header)
        self.seconds["encode"] = 0.0
        encoder = Encoder(header, self.options.config, cloud=self.setup.split.cloud)
        for number, vectors in enumerate(fields):
            start = time.perf_counter()
            frame = [torch.from_numpy(tensor[number]) for tensor in scene.features]
            with torch.no_grad():
                encoded = encoder.encode(frame, vectors)
            self.seconds["encode"] += time.perf_counter() - start
            assert self.setup.meter is not None  # was asked for
            self.setup.meter.update(frame, encoded)
            yield encoded


def _coded(
    frames: VideoEncoder | _Searched,
    encoder: VideoEncoder,
    seconds: dict[str, float] | None,
    *,
    given: bool,
) -> dict[str, Any]:
    """Write a stream, decode it, and split its bytes by frame and by part.

    The bytes of a profile that decoders have been given are those of a stream that only names it.
    """
    file = io.BytesIO()
    writer = StreamWriter(file, encoder.header)
    meter = encoder.meter
    assert meter is not None  # was asked for
    sizes = []
    parts: dict[str, list[float]] = {"header": [], "motion": [], "residual": []}
    with torch.no_grad():
        for encoded in frames:
            size = writer.write(encoded.packet)
            payload = len(encoded.packet.payload)
            bits = meter.frame_bits[-1]
            total = max(sum(bits.values()), 1e-9)
            motion = payload * bits.get("motion", 0.0) / total
            modes = payload * bits.get("modes", 0.0) / total
            parts["header"].append(size - payload + modes)
            parts["motion"].append(motion)
            parts["residual"].append(payload - modes - motion)
            sizes.append(size)
        writer.close()
    if seconds is None:
        report = encoder.report(writer.bytes_written, writer.header_bytes)
        seconds = {
            stage: report[f"seconds_{source}"]
            for stage, source in (
                ("video", "video"),
                ("edge", "edge"),
                ("motion", "motion"),
                ("encode", "coding"),
            )
        }
    header = encoder.header
    carried = len(header.to_bytes()) - len(replace(header, profile=None).to_bytes())
    saved = carried if given else 0
    ends = (writer.header_bytes - saved, writer.bytes_written - writer.header_bytes - sum(sizes))
    for number, more in zip((0, -1), ends, strict=True):
        sizes[number] += more
        parts["header"][number] += more
    file.seek(0)
    start = time.perf_counter()
    decoded = [frame for _, frame in decode_frames(StreamReader(file))]
    seconds["decode"] = time.perf_counter() - start
    if [frame.md5() for frame in decoded] != meter.frame_md5:
        raise ValueError("the decoder's tensors are not the encoder's")
    size = len(file.getvalue())
    if size != writer.bytes_written:
        raise ValueError(f"{writer.bytes_written} bytes counted, {size} written")
    return {
        "size": size - saved,
        "profile": carried,
        "features": tuple(
            np.stack([frame.features[number].numpy() for frame in decoded])
            for number in range(len(encoder.header.tensors))
        ),
        "frame_bytes": tuple(sizes),
        "parts": {name: tuple(values) for name, values in parts.items()},
        "seconds": seconds,
    }


# --- by name ----------------------------------------------------------------------------------

OWN: dict[str, dict[str, Any]] = {
    "lmc": {},
    "lmc-effort7": {"effort": 7},
    "lmc-intra": {"motion": "none"},
    "lmc-zero": {"motion": "zero"},
    "lmc-bitstream": {"motion": "bitstream"},
    "lmc-oracle": {"motion": "oracle"},
}
CODEC_NAMES = tuple(OWN)
ANCHOR_NAMES = (*list(OWN)[2:], *ANCHORS)
"""What `all` means: our own variants and what others do."""


def study_codecs(name: str, *, qps: Sequence[int]) -> list[StudyCodec]:
    """Return the codecs of a name, one for each variant.

    Args:
        name: one of `CODEC_NAMES` or `ANCHOR_NAMES`, or `package.module:attribute`: a codec, or
            what returns one or a list of them when called without arguments; modules of the
            current folder are found too.
        qps: points of our own codec.

    Raises:
        ValueError: there is nothing of that name, or it is no codec.
    """
    if name in OWN:
        offset = REFINED_OFFSET if OWN[name].get("effort", 0) > DEFAULT_EFFORT else 0
        points = sorted({min(qp + offset, MAX_QP) for qp in qps}, reverse=True)
        return [LatentMotionCodec(name, tuple(map(float, points)), **OWN[name])]
    if name in ANCHORS:
        return list(ANCHORS[name])
    if ":" in name:
        return _imported(name)
    known = (*OWN, *ANCHORS)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    raise ValueError(
        f"no codec is called {name!r}; "
        + (f"nearest: {', '.join(near)}" if near else f"known are {', '.join(known)}")
        + "; your own is named MODULE:NAME"
    )


def _imported(name: str) -> list[StudyCodec]:
    module_name, _, attribute = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name}: {error}") from error
    if not hasattr(found, "code") or isinstance(found, type):
        if not callable(found):
            raise ValueError(
                f"{name} is {type(found).__name__}; expected a codec, or what makes one"
            )
        try:
            found = found()
        except Exception as error:
            raise ValueError(f"{name}: {error}") from error
    codecs = list(found) if isinstance(found, (list, tuple)) else [found]
    for codec in codecs:
        for part in ("name", "variant", "needs_split", "points", "code"):
            if not hasattr(codec, part):
                raise ValueError(f"{name}: a codec without {part!r}; see tools/README.md")
    called = [(codec.name, codec.variant) for codec in codecs]
    if len(set(called)) < len(called):
        raise ValueError(f"{name}: two codecs of one name and variant among {called}")
    return codecs
