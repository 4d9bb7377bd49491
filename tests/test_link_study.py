"""The study of a lossy link: true ends over a simulated link, the anchor, parity, the command."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

pytest.importorskip("matplotlib", reason="the study needs the extra `study`")

from small_detector import write_detector

from codec.running.keys import file_hash
from tools.contenders.scene import Scene
from tools.link_study.command import main
from tools.link_study.ends import CONCEALMENTS, STRATEGIES, Source, Terms, send
from tools.link_study.link import Condition
from tools.link_study.measurement import LinkJob, Setting
from tools.link_study.parity import Parity
from tools.link_study.pixels import arrived, coded_at, decoded, renumbered
from tools.link_study.summary import estimates, means

pytestmark = [pytest.mark.slow, pytest.mark.video]

CLIP = Path(__file__).resolve().parents[1] / "bitstreams" / "clip" / "car_24.mp4"
FRAMES = 12
LINK = Condition(delay=0.05)
LOSSY = replace(LINK, loss=0.3, burst=2.0)
TERMS = Terms("live", 30, LINK, references=4)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A small detector: program, preprocessing, task."""
    return list(write_detector(tmp_path_factory.mktemp("network")))


@pytest.fixture(scope="module")
def scene(network: list[Path]) -> Scene:
    program, preprocessing, task = network
    with torch.no_grad():
        return Scene.load(
            CLIP,
            model=str(program),
            weights="default",
            split="relu",
            frames=FRAMES,
            preprocessing_file=preprocessing,
            task_named=str(task),
        )


@pytest.fixture(scope="module")
def source(scene: Scene) -> Source:
    return Source.of(scene, TERMS.references)


def test_without_loss_what_is_predicted_from_the_frame_before_is_the_same_however_sent(source):
    courses = {strategy: send(source, replace(TERMS, strategy=strategy)) for strategy in STRATEGIES}
    for strategy, course in courses.items():
        assert sorted(course.decoded) == list(range(FRAMES)), strategy
        assert course.key_frames == 1
        assert course.lost_bytes == 0
        assert max(course.latency.values()) == pytest.approx(LINK.delay, abs=1e-3)
        if strategy not in ("acknowledged", "again"):
            for number, features in course.decoded.items():
                for a, b in zip(features, courses["live"].decoded[number], strict=True):
                    assert torch.equal(a, b)
    assert courses["acknowledged"].packet_bytes > courses["live"].packet_bytes


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_frame_has_an_outcome_and_the_same_seed_the_same(source, strategy):
    terms = replace(TERMS, strategy=strategy, condition=LOSSY, seed=3)
    course = send(source, terms)
    assert sorted([*course.decoded, *course.missing, *course.skipped]) == list(range(FRAMES))
    assert course.missing
    assert all(sorted(course.concealed[way]) == course.missing for way in CONCEALMENTS)
    assert not any(each.any() for each in course.concealed["zeros"][course.missing[0]])
    assert (course.key_frames > 1) == (strategy == "key-frames")
    deadline = LOSSY.delay + terms.max_latency
    assert max(course.latency.values()) <= deadline + 1e-3
    again = send(source, terms)
    assert (again.missing, again.carried_bytes) == (course.missing, course.carried_bytes)


def test_a_bitrate_is_kept_by_the_quality(source):
    free = send(source, replace(TERMS, qp=12))
    bounded = send(source, replace(TERMS, qp=12, bitrate=30e3))
    assert bounded.packet_bytes < 0.9 * free.packet_bytes
    assert max(bounded.qps[1:]) > 12


def test_reordering_loses_nothing(source):
    course = send(source, replace(TERMS, condition=replace(LINK, jitter=0.02), seed=1))
    assert not course.missing


def test_pictures_that_arrive_go_on_from_the_last_one(scene):
    packets = coded_at(scene.rgb, 30.0)
    assert [renumbered(packet, number) for number, packet in enumerate(packets)] == packets
    whole = decoded(packets, [True] * FRAMES)
    there = [number not in (5, 6) for number in range(FRAMES)]
    found = decoded(packets, there)
    assert found.shape == scene.rgb.shape
    assert np.array_equal(found[:5], whole[:5])
    assert np.array_equal(found[5], found[4])
    assert np.array_equal(found[6], found[4])
    # drifts, as a decoder that conceals does, and by no more than that
    assert 0 < np.abs(found[7:] - whole[7:]).mean() < 16


def test_packets_arrive_in_time_or_are_lost():
    packets = [bytes(3000)] + [bytes(2500)] * 39
    whole = arrived(packets, 25.0, LINK, max_latency=0.2, seed=0)
    assert all(whole.there)
    assert whole.lost_bytes == 0
    lossy = arrived(packets, 25.0, LOSSY, max_latency=0.2, seed=0)
    assert lossy.there[0]
    # of three datagrams each
    assert 0.3 < 1 - np.mean(lossy.there) < 0.9
    assert lossy.lost_bytes > 0
    slow = arrived(packets, 25.0, replace(LINK, bandwidth=4e5), max_latency=0.2, seed=0)
    assert not all(slow.there)


def test_parity_restores_single_losses_and_not_bursts():
    # 1 / (1 - loss): one is lost as likely after another as ever
    alone, bursts = Condition(loss=0.1, burst=1 / 0.9), Condition(loss=0.1, burst=6)
    assert Parity(4, 2).residual(alone) < 0.03 < Parity(4, 2).residual(bursts)
    assert Parity(1, 1).residual(alone) == pytest.approx(0.01, abs=0.005)
    assert Parity(3, 1).factor == pytest.approx(4 / 3)
    assert Parity(5, 1).fits(0.2, 25)
    assert not Parity(7, 1).fits(0.2, 25)


def row(loss: float, agreement: float, *, qp: int = 20, rate: float = 100.0, clip: str = "a"):
    return {
        "clip": clip,
        "strategy": "live",
        "qp": qp,
        "concealment": "motion",
        "loss": loss,
        "top1_agreement": agreement,
        "kbit_per_s": rate,
    }


def test_means_are_over_seeds_and_then_over_clips():
    found = means([row(0.1, 0.5), row(0.1, 0.7), row(0.1, 0.9, clip="b")])
    assert len(found) == 1
    assert found[0]["top1_agreement"] == pytest.approx(0.75)
    assert (found[0]["clips"], found[0]["runs"]) == (2, 3)


def test_parity_is_worth_what_it_restores_less_what_it_costs():
    found = means([row(0, 0.9), row(0, 0.8, qp=26, rate=50.0), row(0.2, 0.5)])
    rows = estimates(
        found,
        strategy="live",
        qp=20,
        condition=Condition(burst=1.25),
        max_latency=0.2,
        frame_rate=25.0,
    )
    doubled = next(each for each in rows if each["parity"] == "parity 1+1")
    assert doubled["lost_after_parity"] == pytest.approx(0.04, abs=0.015)
    assert doubled["paid_in_rate"] == pytest.approx(0.1)
    assert doubled["top1_agreement"] == pytest.approx(0.82 - 0.1, abs=0.04)


def test_a_job_is_named_by_all_that_it_depends_on(tmp_path):
    setting = Setting(CLIP, file_hash(CLIP), "efficientnet_lite0", "random:0", "blocks.10", 4)
    job = LinkJob(setting, TERMS)
    others = [
        LinkJob(replace(setting, frames=5), TERMS),
        LinkJob(setting, replace(TERMS, condition=LOSSY)),
        LinkJob(setting, replace(TERMS, references=8)),
    ]
    assert len({job.key, *(other.key for other in others)}) == 4
    elsewhere = tmp_path / CLIP.name
    elsewhere.write_bytes(CLIP.read_bytes())
    assert LinkJob(replace(setting, path=elsewhere), TERMS).key == job.key


def test_a_file_with_a_published_name_is_prepared_for_as_published(tmp_path):
    mine, published = tmp_path / "mine.pth", tmp_path / "resnet50-0676ba61.pth"
    for path in (mine, published):
        path.write_bytes(b"one")
    settings = [Setting(CLIP, "", "resnet50", str(path), "add_3", 4) for path in (mine, published)]
    assert settings[0].identity() != settings[1].identity()


def test_the_command_measures_once_and_draws(tmp_path, network):
    program, preprocessing, task = network
    arguments = [str(CLIP), "-o", str(tmp_path / "study"), "--model", str(program)]
    arguments += ["--split", "relu", "--preprocessing", str(preprocessing), "--task", str(task)]
    arguments += ["--frames", "8", "--qp", "30", "--loss", "40", "--burst", "1", "--seeds", "1"]
    arguments += ["--strategies", "live,key-frames,pixels-x265"]
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 0, found.output
    with (tmp_path / "study" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["strategy"] for row in rows} == {"live", "key-frames", "pixels-x265"}
    for each in rows:
        parts = [int(each[name]) for name in ("decoded", "concealed", "skipped")]
        assert sum(parts) == int(each["frames"]) == 8
        assert float(each["score_error"]) >= 0
    described = json.loads((tmp_path / "study" / "study.json").read_text())
    assert described["provenance"]["command"].startswith("python -m ")
    assert (tmp_path / "study" / "loss.svg").stat().st_size > 1000
    folder = tmp_path / "study" / "jobs"
    jobs = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert jobs == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--loss", "60"], "per cents from 0 to 50"),
        (["--strategies", "hope"], "'hope' is none of"),
        (["--model", "resnet18"], "--split is needed"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, options, words):
    found = CliRunner().invoke(main, [str(CLIP), "-o", str(tmp_path), *options])
    assert found.exit_code == 2
    assert words in found.output
