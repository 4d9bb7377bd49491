"""The motion study: known answers of known motion, and the commands on small sizes."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

pytest.importorskip("matplotlib", reason="needs the extra `study`")
pytest.importorskip("scipy", reason="needs the extra `study`")

from codec.format.header import TensorSpec
from codec.models.preprocessing import default_preprocessing
from codec.normative.motion import FILTER_BITS, interpolation_filters
from tools.motion_study import (
    bits,
    hevc,
    histogram,
    networks,
    offsets,
    operations,
    sweep,
    warps,
)
from tools.motion_study.command import main
from tools.motion_study.experiments import EXPERIMENTS, ExperimentJob
from tools.motion_study.flow import Flow, exhaustive_motion
from tools.motion_study.keeping import packed, unpacked
from tools.motion_study.networks import Network
from tools.motion_study.page import page as page_of
from tools.motion_study.predictions import frame_header, random_affine
from tools.motion_study.settings import SIZE as FRAME
from tools.motion_study.settings import Settings
from tools.motion_study.verdicts import Finding, Report
from tools.motion_study.warps import (
    FILTERS,
    Affine,
    Picture,
    displacement_of,
    interpolation,
    moved,
    predictable,
    prediction,
)

pytestmark = pytest.mark.slow

SIZE = (96, 96)


def textured(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth noise, as 8-bit colour."""
    noise = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    smooth = nn.functional.avg_pool2d(noise, 5, 1, 2, count_include_pad=False)[0]
    return ((smooth / smooth.abs().max() + 1) * 127.5).byte().permute(1, 2, 0).numpy()


@pytest.fixture(scope="module")
def network() -> Network:
    """Two strided convolutions with zero padding: n^k = 4, receptive field 7."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU()
        )
    model.requires_grad_(requires_grad=False).eval()
    how = default_preprocessing("efficientnet_lite0", native=False)
    return Network("tiny", model, ["0", "2"], "of this test", SIZE, how)


def predicted(network: Network, affine: Affine) -> list[warps.Prediction]:
    picture = Picture(textured(160, 160), SIZE)
    still, after = network(np.stack([picture.still, picture.frame(affine)]))[1]
    (spec,) = list(network.layers.values())[1:]
    return [prediction(still, after, affine, spec, SIZE)]


# --- geometry -----------------------------------------------------------------------------------


def test_rotation_is_clockwise_about_the_centre():
    right, below = np.array([[2.0, 4.0]]), np.array([[4.0, 2.0]])
    found = Affine(rotation=90).source(below, (5, 5))
    np.testing.assert_allclose(found, right, atol=1e-12)


@pytest.mark.parametrize(
    ("affine", "point", "source"),
    [
        (Affine(x=3, y=-1), (5.0, 5.0), (6.0, 2.0)),
        (Affine(scale_x=2.0), (0.0, 8.0), (0.0, 6.0)),
        (Affine(scale_y=0.5), (6.0, 0.0), (8.0, 0.0)),
        (Affine(shear_x=45), (6.0, 6.0), (6.0, 4.0)),
        (Affine(shear_y=45), (6.0, 6.0), (4.0, 6.0)),
    ],
)
def test_source_of_simple_motions(affine, point, source):
    found = affine.source(np.array([point]), (9, 9))
    np.testing.assert_allclose(found, [source], atol=1e-12)


def test_source_undoes_the_matrix():
    affine = Affine(3.0, -5.0, 0.96, 1.04, 4.0, -3.0, 8.0)
    centre = np.array([4.0, 7.0])
    before = np.array([[1.0, 2.0], [8.0, 14.0]])
    after = centre + (before - centre) @ affine.matrix().T + np.array([affine.y, affine.x])
    np.testing.assert_allclose(affine.source(after, (9, 15)), before, atol=1e-9)


def test_frames_are_windows_and_whole_shifts_exact():
    rgb = textured(120, 140)
    picture = Picture(rgb, SIZE)
    top, left = (120 - 96) // 2, (140 - 96) // 2
    np.testing.assert_array_equal(picture.frame(Affine()), rgb[top : top + 96, left : left + 96])
    np.testing.assert_array_equal(
        picture.frame(Affine(x=7, y=-4)), rgb[top + 4 : top + 100, left - 7 : left + 89]
    )


def test_picture_smaller_than_a_frame_is_refused():
    with pytest.raises(ValueError, match="smaller than the frame"):
        Picture(textured(95, 200), SIZE)


def test_displacement_is_motion_over_stride_at_the_samples_place():
    spec = TensorSpec("t", 1, 4, 5, 8, 16, 6, 30)
    shift = displacement_of(Affine(x=-8, y=2), spec, (64, 96))
    assert (shift[..., 0] == -2 * 64 // 8).all()
    assert (shift[..., 1] == 8 * 64 // 16).all()
    # stretching about the middle of the frame, 31.5: the sample at 3 + 8 j comes from the half
    scaled = displacement_of(Affine(scale_y=2.0), spec, (64, 96))
    expected = [(31.5 + (8 * j + 3 - 31.5) / 2 - (8 * j + 3)) / 8 * 64 for j in range(4)]
    np.testing.assert_array_equal(scaled[:, 0, 0], np.floor(np.array(expected) + 0.5))


def test_what_enters_the_frame_is_left_out():
    spec = TensorSpec("t", 1, 6, 6, 8, 8)
    mask = predictable(displacement_of(Affine(x=12), spec, (48, 48)))
    np.testing.assert_array_equal(mask[0], [False, False, True, True, True, True])
    assert predictable(displacement_of(Affine(), spec, (48, 48))).all()


def test_moving_a_tensor_by_whole_samples_and_a_ramp_by_half():
    tensor = torch.randn(3, 6, 7, generator=torch.Generator().manual_seed(0))
    shift = np.zeros((6, 7, 2), np.int64)
    shift[..., 1] = 64
    np.testing.assert_allclose(moved(tensor, shift)[..., :-1], tensor[..., 1:], atol=1e-6)
    ramp = torch.arange(8.0).expand(1, 8, 8)
    half = np.zeros((8, 8, 2), np.int64)
    half[..., 1] = 32
    np.testing.assert_allclose(moved(ramp, half)[0, :, 1:6], ramp[0, :, 1:6] + 0.5, atol=2e-3)


# --- known answers of (12) ----------------------------------------------------------------------


def test_no_motion_is_no_error(network):
    (found,) = predicted(network, Affine())
    assert found.nrmse == found.inner == found.still == 0  # not even rounding
    assert found.positions == 1


@pytest.mark.parametrize("affine", [Affine(x=4), Affine(x=-8), Affine(y=12), Affine(x=4, y=-4)])
def test_whole_latent_shifts_are_exact_away_from_the_edges(network, affine):
    (found,) = predicted(network, affine)
    assert found.inner < 1e-6
    assert found.still > 0.05


def test_minima_are_at_whole_latent_shifts(network):
    curve = {x: predicted(network, Affine(x=x))[0].nrmse for x in range(1, 12)}
    for whole in (4, 8):
        assert curve[whole] < 0.5 * curve[whole - 1]
        assert curve[whole] < 0.5 * curve[whole + 1]


def test_wrong_motion_predicts_worse(network):
    picture = Picture(textured(160, 160), SIZE)
    affine = Affine(rotation=6, x=2)
    still, after = network(np.stack([picture.still, picture.frame(affine)]))[1]
    spec = network.layers["2"]
    right = prediction(still, after, affine, spec, SIZE).inner
    for wrong in (Affine(rotation=-6, x=2), Affine(rotation=6, x=-2)):
        assert right < 0.8 * prediction(still, after, wrong, spec, SIZE).inner


def test_layers_are_those_of_the_splits(network):
    picture = torch.from_numpy(textured(96, 96))[None].numpy()
    first, second = network(picture)
    assert first.shape == (1, 6, 48, 48)
    assert second.shape == (1, 8, 24, 24)
    assert [spec.stride_x for spec in network.layers.values()] == [2, 4]
    assert second.min() < 0  # behind the convolution, not behind the ReLU


# --- filters ------------------------------------------------------------------------------------


def test_filters_are_normalised_and_interpolate():
    for name, table in FILTERS.items():
        assert (table.sum(1) == 1 << FILTER_BITS).all()
        if name.startswith("B-spline"):
            assert table[0].max() < 1 << FILTER_BITS
        else:
            taps = table.shape[1]
            expected = np.zeros(taps)
            expected[taps // 2 - 1] = 1 << FILTER_BITS
            np.testing.assert_array_equal(table[0], expected)


def test_other_filters_are_used_only_inside_the_context():
    tensor = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    shift = np.full((8, 8, 2), 32, np.int64)
    before = moved(tensor, shift)
    with interpolation("bilinear"):
        other = moved(tensor, shift)
    square = sum(tensor[:, y : 6 + y, x : 6 + x] for y in (1, 2) for x in (1, 2)) / 4
    np.testing.assert_allclose(other[:, 1:-1, 1:-1], square, atol=2e-3)
    np.testing.assert_array_equal(moved(tensor, shift), before)
    assert FILTERS["cubic (the codec's)"] is interpolation_filters()


# --- block matching -----------------------------------------------------------------------------


def test_block_matching_finds_a_shift_in_the_codecs_direction():
    frame = torch.from_numpy(textured(40, 40)[..., :1].transpose(2, 0, 1).copy()).float()
    found = exhaustive_motion(frame[:, 5:35, 5:35], frame[:, 3:33, 9:39], 7, 6)
    # what is at x in the first is at x + (2, -4) in the second
    assert (found[8:-8, 8:-8] == [2, -4]).all()


def test_block_matching_stays_where_nothing_is_to_be_seen():
    flat = torch.zeros(1, 12, 12)
    assert not exhaustive_motion(flat, flat, 3, 5).any()


def test_block_matching_stays_inside():
    noise = torch.randn(2, 9, 9, generator=torch.Generator().manual_seed(0))
    other = torch.randn(2, 9, 9, generator=torch.Generator().manual_seed(1))
    found = exhaustive_motion(noise, other, 3, 5) + np.stack(
        np.meshgrid(range(9), range(9), indexing="ij"), -1
    )
    assert found.min() >= 0
    assert found.max() <= 8


def test_agreement_of_fields():
    spec = TensorSpec("t", 2, 4, 4, 8, 8, 7, 7)
    generator = np.random.default_rng(0)

    def flow(*vectors: tuple[int, int]) -> Flow:
        rgb = np.zeros((32, 32, 3), np.uint8)
        return Flow(
            {},
            "",
            spec,
            "t",
            "clip",
            (0, 1),
            (rgb, rgb),
            generator.normal(size=(2, 4, 4)).astype(np.float32),
            np.broadcast_to([0, -8], (32, 32, 2)),
            np.stack([np.broadcast_to(vector, (4, 4, 2)) for vector in vectors]),
            np.broadcast_to([1, -1], (4, 4, 2)),
            generator.uniform(1, 2, (32, 32)),
            generator.uniform(1, 2, (2, 4, 4)),
        )

    rows = {row["field"]: row for row in flow((0, -1), (0, 1)).agreement()}
    assert rows["channel 0"]["median_endpoint_px"] == rows["channel 0"]["median_angle_deg"] == 0
    assert rows["channel 1"]["median_endpoint_px"] == 16
    assert rows["channel 1"]["median_angle_deg"] == pytest.approx(180)
    assert rows["all channels at once"]["median_endpoint_px"] == 8
    assert rows["all channels at once"]["median_angle_deg"] == pytest.approx(45)
    assert rows["no motion"]["median_endpoint_px"] == 8
    assert math.isnan(rows["no motion"]["median_angle_deg"])


# --- operations ---------------------------------------------------------------------------------


def test_exact_shifts():
    signal = torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(operations.shifted(signal, 3.0), signal.roll(3, -1))
    smooth = operations.low_passed(signal)
    twice = operations.shifted(operations.shifted(smooth, 0.5), 0.5)
    torch.testing.assert_close(twice, smooth.roll(1, -1))


@pytest.mark.parametrize(
    ("operation", "half_is_exact"),
    [
        ("convolution", True),
        ("local mean, 2×2", True),
        ("scale change, band-limited", True),
        ("scale change, as it is", False),
        ("strided convolution", False),
        ("max-pooling, 3×3 / 2", False),
        ("ReLU", False),
    ],
)
def test_operations_preserve_whole_samples_and_alias_between(operation, half_is_exact):
    filters = torch.randn(2, 1, 5, 5, generator=torch.Generator().manual_seed(0)).double()
    stride, _, function = operations.operations_of(filters)[operation]
    signal = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(1)).double()
    before = function(signal)[0]
    for shift, exact in ((stride, True), (stride / 2, half_is_exact)):
        actual = function(operations.shifted(signal, shift))[0]
        error = (actual - operations.shifted(before, shift / stride)).abs().max()
        # the highest frequency has no half shift: it is absent behind the low pass alone
        if exact and (shift == stride or "band-limited" in operation):
            assert error < 1e-9
        elif not exact:
            assert error > 1e-2


# --- carried further ----------------------------------------------------------------------------

PLACES = TensorSpec("t", 8, 28, 28, 8, 8, 6, 6)


def sampled(points: np.ndarray) -> torch.Tensor:
    """Sample smooth planes at (H, W, 2) points."""
    generator = np.random.default_rng(0)
    waves = generator.uniform(-0.09, 0.09, (8, 4, 2))
    phases = generator.uniform(0, 6, (8, 4))
    angle = np.einsum("hwd,ckd->ckhw", points, waves) + phases[..., None, None]
    return torch.from_numpy(np.sin(angle).sum(1)).float()


@pytest.mark.parametrize("offset", [(0.0, 0.0), (-0.4, 0.3), (0.25, -0.5)])
def test_fit_recovers_a_known_offset(offset):
    place = warps.positions(PLACES, offset)
    scaled = {
        scale: sampled(Affine(scale_x=scale, scale_y=scale).source(place, FRAME))
        for scale in offsets.SCALES
    }
    found = offsets.fitted_offset(sampled(place), scaled, PLACES)
    np.testing.assert_allclose(found, offset, atol=0.06)


@pytest.mark.parametrize("axis", [0, 1])
def test_mirroring_recovers_a_known_offset(axis):
    offset = (-0.4, 0.3)
    place = warps.positions(PLACES, offset)
    opposite = place.copy()
    opposite[..., axis] = FRAME[axis] - 1 - place[..., axis]
    # magnitudes are compared: keep them smooth
    still, mirrored = (sampled(points) + 5 for points in (place, opposite))
    found = offsets._mirror_offset(still, mirrored, PLACES, axis)
    assert found == pytest.approx(offset[axis], abs=0.06)


def test_field_of_an_affine_motion():
    header = frame_header((64, 96), 16)
    field = bits.field_of(Affine(x=-3, y=1.5), header)
    assert field.shape == (4, 6, 2)
    assert (field == [-6, 12]).all()


def test_random_motion_stays_in_the_ranges_of_the_paper():
    generator = np.random.default_rng(3)
    draws = [random_affine(generator) for _ in range(500)]
    limits = {"x": 32, "y": 32, "shear_x": 5, "shear_y": 5, "rotation": 10}
    for name, limit in limits.items():
        values = np.array([getattr(draw, name) for draw in draws])
        assert 0.95 * limit < np.abs(values).max() <= limit
        assert abs(values.mean()) < 0.15 * limit
    scales = np.array([[draw.scale_x, draw.scale_y] for draw in draws])
    assert 0.95 <= scales.min() < 0.952
    assert 1.048 < scales.max() <= 1.05


def test_equation_14():
    assert hevc.paper_nrmse(27) == pytest.approx(0.0445, abs=5e-5)
    assert hevc.paper_nrmse(41) == pytest.approx(0.0089, abs=5e-5)
    assert hevc.paper_nrmse(math.inf) == 0


# --- weights ------------------------------------------------------------------------------------


def test_weights_are_called_what_they_are(tmp_path):
    distilled = tmp_path / "resnet34_distilled.pth"
    distilled.write_bytes(b"anything")
    assert networks.weights_of("resnet34", tmp_path) == (str(distilled), "distilled stand-in")
    distilled.unlink()
    content = b"weights"
    true = hashlib.sha256(content).hexdigest()[:8]
    published = tmp_path / f"resnet34-{true}.pth"
    published.write_bytes(content)
    assert networks.weights_of("resnet34", tmp_path)[1] == "torchvision"
    published.write_bytes(b"others")
    assert networks.weights_of("resnet34", tmp_path)[1] == f"local file {published.name}"


def test_folder_without_weights_or_with_several_is_refused(tmp_path):
    runner = CliRunner()
    arguments = ["sweep", "--network", "resnet34", "-o", str(tmp_path / "out"), "--weights-dir"]
    result = runner.invoke(main, [*arguments, str(tmp_path)])
    assert result.exit_code == 1
    assert "expected one resnet34*" in result.output
    for name in ("resnet34_a.pth", "resnet34_b.pth"):
        (tmp_path / name).write_bytes(b"")
    result = runner.invoke(main, [*arguments, str(tmp_path)])
    assert result.exit_code == 1
    assert "resnet34_a.pth, resnet34_b.pth" in result.output


@pytest.mark.parametrize("folder", ["random:0", "no-such-folder"])
def test_random_weights_are_no_reproduction(folder):
    result = CliRunner().invoke(main, ["sweep", "--weights-dir", folder])
    assert result.exit_code == 2


# --- verdicts -----------------------------------------------------------------------------------


def curve(values: dict[float, float]) -> list[dict[str, object]]:
    return [
        {
            "stride": 4,
            "transformation": "translation",
            "value": value,
            "mean": mean,
            "mean_inner": 0.0,
        }
        for value, mean in values.items()
    ]


def test_minima_are_judged_by_the_numbers():
    dips = {float(x): (0.01 if x % 4 == 0 else 0.03) for x in range(-9, 10)}
    key = ("tiny", "2")
    assert sweep._minima(curve(dips), key).agrees is True
    assert sweep._minima(curve({**dips, 4.0: 0.05}), key).agrees is False
    coarse = {x: y for x, y in dips.items() if x % 3 == 0}
    assert sweep._minima(curve(coarse), key) is None


def test_aliasing_is_a_departure_and_smooth_operations_are_none(tmp_path):
    table = operations.operations_of(torch.ones(1, 1, 3, 3).double())

    def error(name: str, shift: float) -> float:
        if shift % table[name][0] == 0 or name in {"convolution", "local mean, 2×2"}:
            return 0.0
        return 0.0 if "band-limited" in name else 0.02

    rows = [
        {
            "network": "resnet34",
            "weights": "of this test",
            "weights_hash": "",
            "operation": name,
            "equations": equations,
            "downsampling": stride,
            "interpolation": kind,
            "displacement_px": shift,
            "mean": error(name, shift),
        }
        for name, (stride, equations, _) in table.items()
        for kind in ("ideal", "cubic")
        for shift in (0.0, 0.5, 1.0, 1.5, 2.0)
    ]
    found = operations.report([rows], tmp_path).findings
    verdicts = {name: f.agrees for f in found for name in table if f.what.startswith(f"{name} (")}
    for name in ("convolution", "ReLU", "scale change, band-limited"):
        assert verdicts[name]
    for name in ("strided convolution", "scale change, as it is", "mean-pooling, 2×2 / 2"):
        assert verdicts[name] is False
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ".svg"}


def test_verdicts_of_numpy_count(tmp_path):
    one = Report("sweep", "Sweep", "", {}, [], [Finding("first", "", "", np.float64(2) < 1)])
    page = page_of([one], missing=[], provenance={})
    assert "Of 1 comparisons with the paper, 0 agree" in page
    assert page.count("<strong>departs</strong>") == 1
    assert ">departure<" in page  # the summary lists it


def test_page_tells_what_departs_and_what_is_missing(tmp_path):
    one = Report(
        "sweep",
        "A <sweep>",
        "",
        {},
        [],
        [
            Finding("first", "0.04", "0.03", True),
            Finding("second", "0.04", "0.09", False, "larger & worse"),
            Finding("third", "–", "0.01"),
        ],
    )
    page = page_of([one], missing=["no weights for resnet34"], provenance={"weights": {}})
    assert "Of 2 comparisons with the paper, 1 agree" in page
    assert "no weights for resnet34" in page
    assert "<strong>departs</strong>: larger &amp; worse" in page
    assert "A &lt;sweep&gt;" in page


# --- commands -----------------------------------------------------------------------------------


@pytest.fixture
def photographs(tmp_path) -> Path:
    from PIL import Image

    folder = tmp_path / "photographs"
    folder.mkdir()
    for seed in range(2):
        Image.fromarray(textured(256, 300, seed)).save(folder / f"{seed}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_sweep_command_is_repeatable(tmp_path, photographs, monkeypatch):
    monkeypatch.setitem(networks.LAYERS, "efficientnet_lite0", ("blocks.2", "blocks.4"))
    common = ("--network", "efficientnet_lite0", "--images", photographs, "--pictures", 1)
    files = []
    for run in ("a", "b"):
        output = invoke("sweep", "-o", tmp_path / run, *common, "--step", 12)
        assert "EfficientNet-Lite0 blocks.4" in output
        files.append({p.name: p.read_bytes() for p in (tmp_path / run).glob("motion-*")})
    assert files[0] == files[1]
    assert set(files[0]) == {"motion-sweep.csv", "motion-sweep.png", "motion-sweep.svg"}
    rows = read_rows(tmp_path / "a" / "motion-sweep.csv")
    still = [
        row for row in rows if row["transformation"] == "translation" and float(row["value"]) == 0
    ]
    assert len(still) == 2
    assert all(float(row["mean"]) == 0 for row in still)
    assert {row["weights"] for row in rows} == {"published weights"}


@pytest.mark.video
def test_commands_on_the_shipped_clip(tmp_path, monkeypatch):
    monkeypatch.setitem(networks.LAYERS, "efficientnet_lite0", ("blocks.2", "blocks.4"))
    common = ("-o", tmp_path, "--network", "efficientnet_lite0", "--pictures", 1)
    assert "27–41 dB" in invoke("hevc", *common, "--frames", 3)
    invoke("transforms", *common)
    invoke("histogram", *common, "--draws", 8)
    for name in ("hevc", "hevc-summary", "transforms", "histogram"):
        assert (tmp_path / f"motion-{name}.csv").stat().st_size
    rows = read_rows(tmp_path / "motion-histogram.csv")
    assert len(rows) == 8 * 2
    assert not list(tmp_path.glob(".*"))


# --- jobs ---------------------------------------------------------------------------------------


def test_results_survive_as_json():
    value = {
        "array": np.arange(6, dtype=np.int64).reshape(2, 3),
        "flags": np.array([True, False]),
        "rows": [{"x": math.inf, "y": math.nan, "z": np.float32(0.1)}, {"pair": (1, 2)}],
    }
    found = unpacked(json.loads(json.dumps(packed(value), allow_nan=False)))
    np.testing.assert_array_equal(found["array"], value["array"])
    assert found["array"].dtype == np.int64
    assert found["flags"].tolist() == [True, False]
    assert found["rows"][0]["x"] == math.inf
    assert math.isnan(found["rows"][0]["y"])
    assert found["rows"][0]["z"] == float(np.float32(0.1))
    assert found["rows"][1] == {"pair": [1, 2]}


def test_keys_say_what_a_result_depends_on(tmp_path, photographs):
    job = ExperimentJob("sweep", "efficientnet_lite0", Settings(images=photographs))
    same = replace(job, settings=replace(job.settings, progress=False, networks=("resnet34",)))
    assert same.key == job.key
    copy = tmp_path / "elsewhere" / photographs.name
    shutil.copytree(photographs, copy)
    assert replace(job, settings=replace(job.settings, images=copy)).key == job.key
    others = [
        replace(job, experiment="histogram"),
        replace(job, settings=replace(job.settings, seed=1)),
        replace(job, settings=replace(job.settings, images=None)),
    ]
    (copy / "another.png").write_bytes(b"another")
    others.append(replace(job, settings=replace(job.settings, images=copy)))
    assert len({job.key, *(other.key for other in others)}) == len(others) + 1


def test_a_study_goes_on_where_it_was(tmp_path, photographs, monkeypatch):
    monkeypatch.setitem(networks.LAYERS, "efficientnet_lite0", ("blocks.2",))
    measured = []
    measure = histogram.measure
    monkeypatch.setattr(
        histogram, "measure", lambda *given: measured.append(given) or measure(*given)
    )
    common = ("--network", "efficientnet_lite0", "--images", photographs, "--pictures", 1)
    outputs = []
    for _ in range(2):
        invoke("histogram", "-o", tmp_path, *common, "--draws", 8)
        outputs.append((tmp_path / "motion-histogram.csv").read_bytes())
    assert len(measured) == 1
    assert outputs[0] == outputs[1]
    invoke("histogram", "-o", tmp_path, *common, "--draws", 9)
    assert len(measured) == 2


@pytest.mark.slow
def test_processes_find_what_one_does(tmp_path, photographs):
    common = ("--network", "efficientnet_lite0", "--images", photographs, "--pictures", 1)
    files = []
    for workers in (1, 2):
        output = tmp_path / str(workers)
        invoke("transforms", "-o", output, *common, "-j", workers)
        files.append((output / "motion-transforms.csv").read_bytes())
    assert files[0] == files[1]


def test_every_experiment_measures_draws_and_reports():
    for module in EXPERIMENTS.values():
        assert {"measure", "draw", "report"} <= set(module.__all__)


def test_pair_outside_the_clip_is_refused(tmp_path):
    arguments = ["flow", "-o", str(tmp_path), "--network", "efficientnet_lite0"]
    result = CliRunner().invoke(main, [*arguments, "--pair", "3", "900"])
    assert result.exit_code == 1
    assert "no pair (3, 900)" in result.output


def test_more_pictures_than_there_are(tmp_path, photographs):
    arguments = ["transforms", "-o", str(tmp_path), "--network", "efficientnet_lite0"]
    result = CliRunner().invoke(main, [*arguments, "--images", str(photographs)])
    assert result.exit_code == 1
    assert "2 pictures; --pictures asks for 8" in result.output


@pytest.mark.slow
@pytest.mark.video
def test_everything_and_its_page(tmp_path):
    arguments = ("--network", "efficientnet_lite0", "--pictures", 2, "--draws", 16, "--frames", 3)
    invoke("all", "-o", tmp_path, *arguments, "--step", 4)
    page = (tmp_path / "motion.html").read_text(encoding="utf-8")
    assert "departs" in page
    assert "random weights (control)" in page
    assert str(tmp_path) not in page
