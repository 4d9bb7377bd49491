"""The study's command: ranges and labels, refusals, keys, and a run that goes on where it was."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("plotly", reason="the study needs the extra `study`")

from codec.running.keys import file_hash
from tools.rate_distortion.command import main, planned, read_labels
from tools.rate_distortion.measurement import PointJob, ShowcaseJob
from tools.report import provenance

pytestmark = pytest.mark.slow

CLIP = Path(__file__).resolve().parents[1] / "bitstreams" / "clip" / "car_24.mp4"
OPTIONS = ("--split", "blocks.10", "--qp", "30", "--frames", "3", "--codec", "lmc", "--no-pictures")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def job(path: Path = CLIP, **changes: object) -> PointJob:
    made = PointJob(
        path=path,
        content=file_hash(path),
        model="efficientnet_lite0",
        weights="default",
        split="blocks.10",
        frames=3,
        codec="lmc",
        name="lmc",
        variant="",
        point=30.0,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_key_is_that_of_the_measurement(tmp_path: Path) -> None:
    copy = tmp_path / CLIP.name
    shutil.copy(CLIP, copy)
    assert job(copy).key == job().key
    changes = (
        {"model": "resnet34"},
        {"split": ""},
        {"frames": 4},
        {"name": "lmc-zero"},
        {"variant": "plain"},
        {"point": 31.0},
        {"labels": (1, 2, 3)},
        {"content": "0" * 64},
    )
    keys = {job().key, *(job(**change).key for change in changes)}
    assert len(keys) == 1 + len(changes)
    common = {name: getattr(job(), name) for name in ("path", "content", "model", "weights")}
    assert ShowcaseJob(**common, split="blocks.10", frames=3, qp=30).key not in keys


def test_weights_of_a_file_count_by_content_and_show_by_name(tmp_path: Path) -> None:
    first, second = tmp_path / "a.pth", tmp_path / "b.pth"
    first.write_bytes(b"one")
    second.write_bytes(b"one")
    key = job(weights=str(first)).key
    assert job(weights=str(second)).key == key
    second.write_bytes(b"two")
    file_hash.cache_clear()
    assert job(weights=str(second)).key != key


def test_a_file_with_a_published_name_is_prepared_for_as_published(tmp_path: Path) -> None:
    mine, published = tmp_path / "mine.pth", tmp_path / "resnet50-0676ba61.pth"
    mine.write_bytes(b"one")
    published.write_bytes(b"one")
    keys = {job(model="resnet50", weights=str(path)).key for path in (mine, published)}
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--qp", "14:34"), "is not START:STOP:STEP"),
        (("--qp", "34:14:4"), "is not START:STOP:STEP"),
        (("--qp", "14:60:4"), "is not START:STOP:STEP"),
        (("--kl", "1:0.1"), "is not LOW:HIGH"),
        (("--anchors", "tils"), "nearest: tiles"),
        (("--codec", "no_such_module:Codec"), "No module named"),
    ],
)
def test_usage_errors(tmp_path: Path, arguments: tuple[str, str], message: str) -> None:
    result = invoke(CLIP, "-o", tmp_path / "study", *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "study").exists()


@pytest.mark.video
def test_bad_input_is_one_line(tmp_path: Path) -> None:
    other = tmp_path / "other" / CLIP.name
    other.parent.mkdir()
    shutil.copy(CLIP, other)
    assert "two clips have the same name" in invoke(CLIP, other, "-o", tmp_path / "s").output
    text = tmp_path / "notes.mp4"
    text.write_text("no video")
    for arguments in ((text,), (CLIP, "--split", "blocks.99"), (CLIP, "--model", "resnet3")):
        result = invoke(*arguments, "-o", tmp_path / "s")
        assert result.exit_code == 1, result.output
        assert result.output.startswith("Error: ")
        assert result.output.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("clip,class\na.mp4,7\n")
    assert read_labels(path) == {"a.mp4": 7}
    path.write_text("clip,frame,class\na.mp4,0,7\na.mp4,1,8\n")
    assert read_labels(path) == {"a.mp4": {0: 7, 1: 8}}
    path.write_text("clip,label\na.mp4,7\n")
    with pytest.raises(click.ClickException, match="expected clip,class"):
        read_labels(path)
    for content, message in (
        (b"clip,class\na.mp4,cat\n", "line 2: invalid literal"),
        (b"clip,class\na.mp4\n", "line 2: 1 cells under 2 columns"),
        (b"clip,class\n\xff\xfe,1\n", "codec can't decode"),
    ):
        path.write_bytes(content)
        with pytest.raises(click.ClickException, match=message):
            read_labels(path)


@pytest.mark.video
def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = invoke(CLIP, "-o", tmp_path / "file" / "study", *OPTIONS, "--anchors", "none")
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1


def test_two_codecs_of_one_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    Path("named_alike.py").write_text(
        "class Mine:\n"
        "    name, variant, needs_split, points = 'tiles', '', True, (1.0,)\n"
        "    def code(self, scene, point):\n"
        "        raise NotImplementedError\n"
    )
    with pytest.raises(click.UsageError, match="tiles and named_alike:Mine are both called tiles"):
        planned([], ("tiles", "named_alike:Mine"), (24,))


def test_a_codec_of_ones_own_counts_with_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    source = tmp_path / "edited_codec.py"
    source.write_text("")
    first = job(codec="edited_codec:Mine").key
    assert job(codec="edited_codec:Mine").key == first
    source.write_text("# changed")
    file_hash.cache_clear()
    assert job(codec="edited_codec:Mine").key != first


def test_another_file_under_the_clips_name_is_no_measurement(tmp_path: Path) -> None:
    """A failure, to be tried again, not a refusal that is kept."""
    with pytest.raises(ValueError, match="another file than the study"):
        job(content="0" * 64).run()
    with pytest.raises(FileNotFoundError):
        replace(job(), path=tmp_path / CLIP.name).run()


def test_commands_are_given_without_folders() -> None:
    arguments = ["a/x.mp4", "--weights=/home/me/w.pth", "-o/home/me/out", "--qp", "14:34:4", "-j2"]
    assert provenance.command("tools.x", [*arguments, "--weights-dir", "/w/d", "m:N"]) == (
        "python -m tools.x x.mp4 --weights=w.pth -oout --qp 14:34:4 -j2 --weights-dir d m:N"
    )


@pytest.mark.video
@pytest.mark.weights
def test_a_study_goes_on_where_it_was(tmp_path: Path) -> None:
    folder, labels = tmp_path / "study", tmp_path / "labels.csv"
    labels.write_text(f"clip,class\n{CLIP.name},817\n")
    common = (CLIP, "-o", folder, *OPTIONS, "--labels", labels)
    assert invoke(*common, "--anchors", "uncompressed").exit_code == 0
    jobs = {path.name: path.stat().st_mtime_ns for path in (folder / "jobs").iterdir()}
    assert len(jobs) == 2
    result = invoke(*common, "--anchors", "uncompressed,lossless")
    assert result.exit_code == 0, result.output
    after = {path.name: path.stat().st_mtime_ns for path in (folder / "jobs").iterdir()}
    assert jobs.items() < after.items()
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    exact = next(row for row in rows if row["codec"] == "uncompressed")
    assert float(exact["kl"]) == 0
    assert float(exact["top1_agreement"]) == float(exact["dense_agreement"]) == 1
    assert 0 <= float(exact["accuracy"]) <= 1
    own = next(row for row in rows if row["codec"] == "lmc")
    parts = sum(float(own[f"bytes_{part}"]) for part in ("header", "motion", "residual"))
    assert parts == pytest.approx(int(own["bytes"]), abs=0.1)
    assert str(tmp_path) not in (folder / "study.json").read_text()
    assert json.loads((folder / "study.json").read_text())["refused"] == []
    assert (folder / "figures" / "curves-blocks.10.svg").exists()
    assert "<html" in (folder / "index.html").read_text()


@pytest.mark.video
@pytest.mark.weights
def test_what_a_codec_refuses_is_kept_with_the_reason(tmp_path: Path) -> None:
    """A clip of a codec that carries no motion vectors."""
    import av

    clip = tmp_path / "clip.mkv"
    with av.open(clip, "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        for number in range(3):
            frame = av.VideoFrame(256, 256, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([40 * number + 10]) * plane.buffer_size)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    result = invoke(clip, "-o", tmp_path / "study", *OPTIONS, "--anchors", "lmc-bitstream")
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "study" / "study.json").read_text())
    (refused,) = content["refused"]
    assert refused["codec"] == "lmc-bitstream"
    assert "no motion vectors" in refused["reason"]
    assert "no motion vectors" in (tmp_path / "study" / "index.html").read_text()


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    from small_detector import write_detector

    network, preprocessing, task = write_detector(tmp_path_factory.mktemp("detector"))
    return ("--model", network, "--preprocessing", preprocessing, "--task", task, "--split", "relu")


@pytest.mark.video
def test_a_network_of_ones_own_is_judged_by_its_task(
    tmp_path: Path, detector: tuple[object, ...]
) -> None:
    pytest.importorskip("pycocotools", reason="average precision needs the extra `tasks`")
    folder = tmp_path / "study"
    common = (CLIP, "-o", folder, *detector, "--qp", "22:40:6", "--frames", "3", "--no-pictures")
    result = invoke(*common, "--anchors", "tiles,labels")
    assert result.exit_code == 0, result.output
    assert "at relu, equal score_error" in result.output
    assert "at relu, equal output_error" in result.output
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    measures = {"score_error", "distortion", "ap", "ap50", "output_error", "nrmse"}
    assert measures <= rows[0].keys()
    assert not {"kl", "top1_agreement"} & rows[0].keys()
    assert rows[0]["model"].startswith("small.pt2@")
    assert {row["codec"] for row in rows} == {"lmc", "tiles"}
    errors = [float(row["score_error"]) for row in rows if row["codec"] == "lmc"]
    assert len(errors) == 4
    assert errors == sorted(errors, reverse=True)
    with (folder / "frames.csv").open(newline="") as file:
        assert float(next(csv.DictReader(file))["distortion"]) > 0
    content = json.loads((folder / "study.json").read_text())
    assert content["settings"]["task"] == "detection"
    figures = {one["figure"] for one in content["comparisons"]}
    assert figures == {"score_error", "distortion", "ap", "output_error"}
    assert {one["codec"] for one in content["refused"]} == {"labels"}
    text = (folder / "index.html").read_text()
    scripts = text.split("<script>")
    assert "squared score error" in text
    for part in (scripts[0], scripts[-1]):
        assert not any(word in part for word in ("KL", "top-1", "nats"))
    assert (folder / "figures" / "curves-relu-output_error.svg").exists()


@pytest.mark.video
def test_profiles_belong_to_a_split(tmp_path: Path, detector: tuple[object, ...]) -> None:
    from codec.files.video import VideoReader
    from codec.models.networks import open_network
    from codec.models.preprocessing import normalise, read_preprocessing
    from codec.models.submodels import split_model
    from codec.pipeline.profiles import measured_for

    network = open_network(str(detector[1]))
    preprocessing = read_preprocessing(Path(str(detector[3])))
    halves = split_model(network.module, "relu", (64, 64), network.name)
    with VideoReader(CLIP, preprocessing, frames=(0, 3)) as reader:
        frames = [[t[0] for t in halves.edge(normalise(f.rgb, preprocessing))] for f in reader]
    profile = tmp_path / "relu.lmcp"
    measured_for(halves, frames, weigh=frames).save(profile)
    common = (CLIP, *detector, "--qp", "30", "--frames", "3", "--anchors", "none")
    for name, more in (("carried", ()), ("given", ("--profile", profile))):
        result = invoke(*common, "--no-pictures", *more, "-o", tmp_path / name)
        assert result.exit_code == 0, result.output
    (carried,), (given,) = (
        json.loads((tmp_path / name / "study.json").read_text())["points"]
        for name in ("carried", "given")
    )
    assert given["bytes"] < carried["bytes"], "what both sides have been given does not count"
    assert given["parameters"]["bytes_of_profile_given"] > 0
    twice = invoke(*common, "--profile", profile, "--profile", profile, "-o", tmp_path / "s")
    assert "are both for relu" in twice.output


@pytest.mark.video
def test_true_classes_are_for_classifiers(tmp_path: Path, detector: tuple[object, ...]) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(f"clip,class\n{CLIP.name},817\n")
    result = invoke(CLIP, *detector, "--labels", labels, "-o", tmp_path / "s")
    assert result.exit_code == 2
    assert "the task of" in result.output


@pytest.mark.video
def test_what_a_detector_finds_is_drawn(tmp_path: Path, detector: tuple[object, ...]) -> None:
    pytest.importorskip("pycocotools", reason="average precision needs the extra `tasks`")
    common = (CLIP, *detector, "--qp", "30", "--frames", "3", "--anchors", "none")
    result = invoke(*common, "-o", tmp_path / "study")
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "study" / "study.json").read_text())
    (show,) = content["showcases"]
    assert all(frame["drawn"].startswith("data:image/jpeg") for frame in show["frames"])
    assert show["score_error"] >= 0
    assert "kl" not in show
    assert 'id="show-results"' in (tmp_path / "study" / "index.html").read_text()
