"""The task that a network is asked to finish, and what becomes of it on the way."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from videos import moving, write_video

import codec
from codec.encoding.config import EncoderConfig
from codec.errors import ModelError, TaskError
from codec.pipeline.encoding import VideoEncoder
from codec.pipeline.network_tasks import described, task_like, task_of
from codec.pipeline.options import VideoOptions
from codec.tasks.description import TASK_NAMES

pytestmark = pytest.mark.video

PREPROCESSING = 'resize = "stretch"\nsize = [32, 32]\nmean = [0, 0, 0]\nscale = [255, 255, 255]\n'
SECOND = 'task = "classification"\noutput = 1\nlabels = ["a", "b", "c", "d", "e", "f"]\n'


def test_what_nobody_says_anything_of():
    names = [
        task_like(outputs).name
        for outputs in (
            torch.zeros(1, 7),
            {"logits": torch.zeros(1, 7), "place": torch.zeros(1, dtype=torch.int64)},
            [torch.zeros(1, 7), torch.zeros(1, 7)],
            torch.zeros(1, 1),
            torch.zeros(1, 7, 2, 2),
        )
    ]
    assert names == ["classification"] * 2 + ["anything"] * 3
    with pytest.raises(ModelError, match="holds no tensor"):
        task_like([])


class TwoOutputs(nn.Module):
    """Features of the frame, and logits of six classes."""

    def __init__(self, *, alone: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.alone = alone
        self.conv = nn.Conv2d(3, 8, 3, 4, 1)
        self.deep = nn.Conv2d(8, 16, 3, 2, 1)
        self.head = nn.Linear(16, 6)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        pooled = self.deep(torch.relu(self.conv(images))).mean((2, 3))
        logits = 40 * self.head(pooled)
        return logits if self.alone else (pooled[:, :, None, None], logits)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two.pt2, one.pt2 of its logits alone, second.toml, input.toml and a clip."""
    path = tmp_path_factory.mktemp("tasks")
    for name, alone in (("two", False), ("one", True)):
        network = TwoOutputs(alone=alone).eval()
        program = torch.export.export(network, (torch.zeros(1, 3, 32, 32),))
        torch.export.save(program, path / f"{name}.pt2")
    (path / "second.toml").write_text(SECOND)
    (path / "input.toml").write_text(PREPROCESSING)
    write_video(path / "clip.mkv", moving(3, (1, 1), 64, 64))
    return path


def encoder_of(folder: Path, name: str, task: str | None, effort: int = 4) -> VideoEncoder:
    options = VideoOptions(
        model=str(folder / f"{name}.pt2"),
        split="relu",
        preprocessing=folder / "input.toml",
        task=task,
        config=EncoderConfig(qp=30, effort=effort),
    )
    return VideoEncoder(folder / "clip.mkv", options)


def packets(encoder: VideoEncoder) -> list[bytes]:
    return [encoded.packet.payload for encoded in encoder]


def test_high_efforts_see_the_logits_among_several_outputs(folder):
    second = str(folder / "second.toml")
    plain, seeing = (packets(encoder_of(folder, "two", second, effort)) for effort in (4, 5))
    assert seeing != plain


def test_the_library_opens_a_network_as_the_command_does(folder):
    with pytest.raises(ModelError, match=r"preprocessing=FILE of codec\.split"):
        codec.split(str(folder / "two.pt2"), at="relu")
    said, task = folder / "input.toml", folder / "second.toml"
    edge, cloud = codec.split(str(folder / "two.pt2"), at="relu", preprocessing=said)
    assert edge.preprocessing is not None
    with codec.VideoReader(folder / "clip.mkv", edge.preprocessing) as reader:
        frames = np.stack([frame.rgb for frame in reader])
    features = edge(frames)
    assert cloud(features)[1].shape == (3, 6)
    sizes = []
    for effort in (4, 5):
        file = io.BytesIO()
        codec.encode(features, file, split=edge, motion=frames, task=task, qp=30, effort=effort)
        sizes.append(file.getvalue())
    assert sizes[0] != sizes[1]
    reader = codec.StreamReader(io.BytesIO(sizes[0]))
    assert reader.header.task == described(str(task))
    assert reader.header.preprocessing == edge.preprocessing
    with pytest.raises(ModelError, match=r"the task of two.pt2@\w+ is anything; use effort 4"):
        codec.encode(features, io.BytesIO(), split=edge, effort=5)
    with codec.Writer(io.BytesIO(), reader.header, task="anything") as out:
        assert out.header.task == '{"task":"anything"}'


def test_a_module_has_preprocessing_too(folder):
    network = TwoOutputs().eval()
    edge, _ = codec.split(network, at="relu", preprocessing=folder / "input.toml")
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    assert edge(frames).shape == (2, 8, 8, 8)
    with pytest.raises(ValueError, match=r"size \(64, 64\), and the preprocessing gives"):
        codec.split(network, at="relu", size=(64, 64), preprocessing=edge.preprocessing)
    whole = folder / "whole.toml"
    whole.write_text('resize = "none"\nmean = [0, 0, 0]\nscale = [1, 1, 1]\n')
    with pytest.raises(ValueError, match="keeps the size of frames; pass size="):
        codec.split(str(folder / "one.pt2"), at="relu", preprocessing=whole)


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("two", "classification", r"\(1, 16, 1, 1\); classes were expected"),
        ("one", "second.toml", r"the task wants output 1; the model gives output \(1, 6\)"),
    ],
)
def test_a_task_that_does_not_fit_is_told_before_anything_is_written(folder, name, task, message):
    with pytest.raises(ModelError, match=message):
        encoder_of(folder, name, str(folder / task) if task.endswith(".toml") else task)


def test_a_task_that_there_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TaskError, match=r"^detecton: is neither .* nor a TOML .*; nearest: detect"):
        described("detecton")
    with pytest.raises(TaskError, match=r"^zzz: is neither .* nor a TOML file$"):
        described("zzz")
    with pytest.raises(TaskError, match=r"(?i)^gone.toml: no such file"):
        described("gone.toml")


@pytest.mark.parametrize("name", TASK_NAMES)
def test_tasks_that_a_name_suffices_for(name):
    if name == "segmentation":
        with pytest.raises(TaskError, match="needs the labels of its classes; describe it in TOML"):
            described(name)
    else:
        assert task_of(described(name), "").name == name


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("resnet18", "classification"),
        ("keypointrcnn_resnet50_fpn", "keypoints"),
        ("deeplabv3_resnet50", "segmentation"),
        ("net.pt2@0123456789abcdef", "anything"),
        ("timm:resnet18", "classification"),
        ("timm:vit_small_patch14_dinov2", "anything"),
    ],
)
def test_the_task_of_a_network_that_is_known_by_name(model, name):
    if model.startswith("timm:"):
        pytest.importorskip("timm")
    assert task_of("", model).name == name
