"""This codec in CompressAI-Vision, the evaluation framework of the field.

    pipeline ─{"data": {tag: (N, C, H, W)}, "input_size"}─► encode ─► BITSTREAM_NAME.bin
    pipeline ◄─{"data": ..., sizes}──────────────────────── decode ◄──────────┘

The framework wants a Python before 3.11 and this codec one from 3.11 on, so each keeps its own:
nothing of ours is imported here.  What runs is `tensor_file.py`, which lies beside this file, and
`lmc decode`, by the interpreter that the configuration or `LMC_PYTHON` names.  To be imported by
whatever starts the framework; then, in its configuration:

    codec:
      type: lmc
      encoder_config: {qp: 24, python: /opt/lmc/bin/python}

A video is one call with its N frames, an image is a call.  The framework hands codecs the features
without the frames that they were made of, so nothing is searched for motion: blocks are predicted
from where they were.

But: pictures are not coded (remote inference), and data types are those that were encoded; of a
stream that another run has encoded, float32.

Source of the interface: InterDigitalInc/CompressAI-Vision at 31165da, `codecs/base.py` and
`pipelines/split_inference/`.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compressai_vision.registry import register_codec

__all__ = ["LatentMotionCodec"]

TENSOR_FILE = Path(__file__).with_name("tensor_file.py")
TIMES = "pts"
"""What `lmc decode` writes beside the tensors."""


@register_codec("lmc")
class LatentMotionCodec(torch.nn.Module):
    """Codes all tensors that cross a split in one stream.

    Args:
        kwargs: what the framework configures a codec with; of `encoder_config`, `qp`, 0 to 51, and
            `python`, an interpreter that has this codec.
    """

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - of the framework
        super().__init__()
        config = kwargs["encoder_config"]
        self.qp = int(config["qp"])
        self.eval_encode = kwargs["eval_encode"]
        self._python = config.get("python") or os.environ.get("LMC_PYTHON", "python3")
        self._encoded: dict[str, dict[str, Any]] = {}

    @property
    def qp_value(self) -> int:
        """The quantisation parameter, under which the framework files results."""
        return self.qp

    @property
    def eval_encode_type(self) -> Any:  # noqa: ANN401 - of the framework
        """What the framework states rates in."""
        return self.eval_encode

    def encode(
        self,
        x: dict[str, Any],
        codec_output_dir: str | Path = "",
        bitstream_name: str = "",
        file_prefix: str = "",
        remote_inference: bool = False,
    ) -> tuple[dict[str, Any], dict[str, float], None]:
        """Encode features; of images `file_prefix` says which.

        Returns:
            Bytes of each frame, which are the mean, and the path of the stream; seconds; and no
            count of operations.
        """
        _refuse_pictures(remote_inference)
        start = time.time()
        name = str(bitstream_name)
        name = name[: -len(".bin")] if name.endswith(".bin") else name
        stream = Path(codec_output_dir) / ("-".join(filter(None, (name, file_prefix))) + ".bin")
        stream.parent.mkdir(parents=True, exist_ok=True)
        tensors = x["data"]
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "tensors.npz"
            arrays = {str(tag): each.float().cpu().numpy() for tag, each in tensors.items()}
            np.savez(source, **arrays)
            height, width = _height_and_width(x["input_size"])
            size = f"{width}x{height}"
            self._run(str(TENSOR_FILE), source, stream, "--qp", self.qp, "--size", size)
        self._encoded[str(stream)] = {
            "types": {str(tag): each.dtype for tag, each in tensors.items()},
            "sizes": {name: x[name] for name in ("org_input_size", "input_size")},
        }
        frames = len(next(iter(tensors.values())))
        output = {"bytes": [stream.stat().st_size / frames] * frames, "bitstream": str(stream)}
        return output, {"lmc": time.time() - start}, None

    def decode(
        self,
        bitstream: str | Path,
        codec_output_dir: str | Path = "",
        file_prefix: str = "",
        org_img_size: dict[str, int] | None = None,
        remote_inference: bool = False,
        vcm_mode: bool = False,
        output10b: bool = False,
    ) -> tuple[dict[str, Any], dict[str, float], None]:
        """Decode a stream.

        Returns:
            The features, and the sizes if it was encoded by this object: otherwise the framework
            takes them from its images; seconds; and no count of operations.
        """
        del codec_output_dir, file_prefix, org_img_size, output10b  # of codecs of pictures
        _refuse_pictures(remote_inference or vcm_mode)
        start = time.time()
        known = self._encoded.get(str(bitstream), {"types": {}, "sizes": {}})
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "tensors.npz"
            self._run("-m", "codec", "decode", bitstream, "-o", target, "--quiet")
            with np.load(target) as file:
                arrays = {name: file[name] for name in file.files if name != TIMES}
        features = {
            _tag(name): torch.from_numpy(array).to(known["types"].get(name, torch.float32))
            for name, array in arrays.items()
        }
        return {"data": features, **known["sizes"]}, {"lmc": time.time() - start}, None

    def _run(self, *words: object) -> None:
        """Run a program of the other Python; what it says of an error is the error."""
        command = [self._python, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"lmc: exit code {done.returncode}"]
            raise RuntimeError(said[-1])


def _tag(name: str) -> str | int:
    """Return a tag as the framework has it: places of layers are numbers there."""
    return int(name) if name.isdecimal() else name


def _height_and_width(size: Any) -> tuple[int, int]:  # noqa: ANN401 - of the framework
    """Read the size of the network's input: a pair, or of most networks a list of pairs."""
    height, width = size[0] if np.ndim(size[0]) else size
    return int(height), int(width)


def _refuse_pictures(asked: bool) -> None:
    if asked:
        raise NotImplementedError("this codec is for features; pictures are for other codecs")
