"""Tasks on small made-up outputs: results, figures, and what errors cost."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from codec.errors import ModelError, TaskError
from codec.metrics import kl_divergence
from codec.tasks import movenet
from codec.tasks.anything import Anything
from codec.tasks.classification import Classification
from codec.tasks.coco import AveragePrecision
from codec.tasks.distribution_boxes import DistributionBoxes
from codec.tasks.found import Instances
from codec.tasks.instances import InstanceTask
from codec.tasks.movenet import Movenet
from codec.tasks.outputs import float_tensors, named_tensors, one_output
from codec.tasks.rle import decode_mask, encode_mask
from codec.tasks.segmentation import UNSEEN, LabelMap, Segmentation
from codec.tasks.task import Geometry, Moment, distortion
from codec.tasks.torchvision_instances import TorchvisionInstances
from codec.tasks.truth import Truth

SIZE = 32
GEOMETRY = Geometry.of_input(SIZE, SIZE)
BINS = 5


def detector(**changes):
    made = {
        "scores": (0, 1),
        "boxes": (2, 3),
        "strides": (8, 16),
        "bins": BINS,
        "categories": (1, 3, 7),
        "score_threshold": 0.35,
        "nms_iou": 0.6,
    }
    return InstanceTask("detection", DistributionBoxes(**(made | changes)), {1: "person"})


def detector_outputs(random):
    scores = [
        torch.from_numpy(random.uniform(0, 0.2, (1, n, 3)).astype(np.float32)) for n in (16, 4)
    ]
    boxes = [
        torch.from_numpy(random.normal(0, 1, (1, n, 4 * BINS)).astype(np.float32)) for n in (16, 4)
    ]
    scores[0][0, 5, 1] = 0.9
    scores[1][0, 3, 0] = 0.6
    return (*scores, *boxes)


def pose():
    decoder = Movenet(0, 1, 2, 3, 4, points=3, score_threshold=0.3, nms_iou=0.6)
    return InstanceTask("keypoints", decoder, {1: "person"}, ((0, 1), (1, 2)))


def pose_outputs(random):
    heat = [random.uniform(0, 0.1, (1, c, 8, 8)).astype(np.float32) for c in (1, 3)]
    heat[0][0, 0, 3, 4] = 0.9
    for point, (y, x) in enumerate([(1, 4), (3, 2), (6, 6)]):
        heat[1][0, point, y, x] = 0.8
    moves = [random.normal(0, 0.2, (1, c, 8, 8)).astype(np.float32) for c in (6, 6)]
    moves[0][0, :, 3, 4] = [-2, 0, 0, -2, 3, 2]
    size = np.full((1, 2, 8, 8), 4, np.float32)
    size[0, 0] = 6
    return tuple(torch.from_numpy(each) for each in (*heat, *moves, size))


def boxes_outputs(random):
    count = 4
    corner = random.uniform(0, 12, (count, 2))
    boxes = np.concatenate([corner, corner + random.uniform(6, 18, (count, 2))], 1)
    masks = np.zeros((count, 1, SIZE, SIZE), np.float32)
    for number, (left, top, right, bottom) in enumerate(boxes.astype(int)):
        masks[number, 0, top:bottom, left:right] = 0.9
    points = np.concatenate([np.full((count, 17, 2), 10.0), np.ones((count, 17, 1))], 2)
    points[..., :2] += random.uniform(0, 8, (count, 17, 2))
    return [
        {
            "boxes": torch.from_numpy(boxes.astype(np.float32)),
            "scores": torch.tensor([0.9, 0.8, 0.6, 0.2]),
            "labels": torch.tensor([1, 1, 44, 3]),
            "masks": torch.from_numpy(masks),
            "keypoints": torch.from_numpy(points.astype(np.float32)),
            "keypoints_scores": torch.full((count, 17), 2.0),
        }
    ]


def of_torchvision(kind):
    return InstanceTask(kind, TorchvisionInstances(kind, 0.5), {1: "person", 44: "bottle"})


def normal(*shape):
    return lambda random: torch.from_numpy(random.normal(0, 2, shape).astype(np.float32))


def masked(random):
    return torch.sigmoid(normal(1, 1, 8, 8)(random))


TASKS = {
    "classification": (Classification(), normal(1, 20)),
    "detection": (detector(), detector_outputs),
    "logits": (detector(activation="sigmoid"), detector_outputs),
    "keypoints": (pose(), pose_outputs),
    "torchvision detection": (of_torchvision("detection"), boxes_outputs),
    "torchvision masks": (of_torchvision("masks"), boxes_outputs),
    "torchvision keypoints": (of_torchvision("keypoints"), boxes_outputs),
    "segmentation": (
        Segmentation("abc", activation="softmax", output="out"),
        lambda random: {"out": normal(1, 3, 8, 8)(random), "aux": normal(1, 3, 8, 8)(random)},
    ),
    "mask": (Segmentation("ab", activation="none"), masked),
    "mask logits": (Segmentation("ab", activation="sigmoid"), normal(1, 1, 8, 8)),
    "anything": (
        Anything(),
        lambda random: {
            "a": normal(1, 7)(random),
            "b": (normal(1, 2, 3)(random), torch.ones(2, dtype=int)),
        },
    ),
}
COUNTS = {"found", "found_uncoded"}
BEST = {"ap", "ap50", "mask_iou", "miou", "pixel_agreement", "top1_agreement"}


@pytest.fixture(params=TASKS)
def case(request):
    task, outputs = TASKS[request.param]
    return task, outputs(np.random.default_rng(7))


def needs_judge(task):
    if isinstance(task, InstanceTask):
        pytest.importorskip("pycocotools")


def disturbed(outputs, sigma, generator):
    """Move all floats a little, as leaves of a graph."""
    if isinstance(outputs, dict):
        return {name: disturbed(value, sigma, generator) for name, value in outputs.items()}
    if isinstance(outputs, list | tuple):
        return type(outputs)(disturbed(value, sigma, generator) for value in outputs)
    if not outputs.is_floating_point():
        return outputs
    noise = torch.randn(outputs.shape, generator=generator)
    return (outputs + sigma * noise).detach().requires_grad_()


def test_equal_sides_are_perfect(case):
    task, outputs = case
    needs_judge(task)
    comparison = task.comparison()
    for _ in range(2):
        comparison.update(outputs, outputs, GEOMETRY)
    figures = comparison.figures()
    assert {name: value for name, value in figures.items() if name in BEST and value != 1.0} == {}
    assert all(abs(value) < 1e-12 for name, value in figures.items() if name not in BEST | COUNTS)
    assert task.loss in figures
    assert task.lost(outputs, outputs) == pytest.approx(0, abs=1e-12)


def test_figures_have_stable_names_and_fall_with_the_error(case):
    task, outputs = case
    needs_judge(task)
    generator = torch.Generator().manual_seed(3)
    losses, names = [], set()
    for sigma in (0.01, 0.1):
        comparison = task.comparison()
        other = disturbed(outputs, sigma, generator)
        comparison.update(outputs, other, GEOMETRY)
        figures = comparison.figures()
        names.add(tuple(figures))
        losses.append(figures[task.loss])
        assert all(isinstance(value, float) for value in figures.values())
        assert figures[task.loss] == pytest.approx(task.lost(outputs, other))
    assert len(names) == 1
    assert 0 < losses[0] < losses[1]


def test_no_frame_no_figures(case):
    needs_judge(case[0])
    with pytest.raises(ValueError, match="no "):
        case[0].comparison().figures()


def test_results_are_json(case):
    task, outputs = case
    rows = task.finish(outputs, GEOMETRY).rows(Moment(5, 10, 0.5))
    assert rows
    assert json.loads(json.dumps(rows)) == rows
    for row in rows:
        assert row.get("frame", row.get("image_id")) == 5


def test_half_the_squared_residuals_is_what_is_lost(case):
    task, outputs = case
    other = disturbed(outputs, 0.01, torch.Generator().manual_seed(1))
    found = distortion(task.residuals(outputs, other))
    assert found == pytest.approx(task.lost(outputs, other), rel=0.05)


def signed(residuals, generator):
    """<signs, r>: its gradient is a draw from the sensitivity, by the signs of calibration."""
    drawn = [torch.randint(0, 2, part.shape, generator=generator) * 2 - 1 for part in residuals]
    return sum((part * signs.to(part)).sum() for part, signs in zip(residuals, drawn, strict=True))


def test_residuals_are_differentiable_and_vanish_at_the_reference(case):
    task, outputs = case
    assert distortion(task.residuals(outputs, outputs)) == pytest.approx(0, abs=1e-12)
    other = disturbed(outputs, 0.0, torch.Generator())
    leaves = [each for each in float_tensors(other).values() if each.requires_grad]
    total = signed(task.residuals(outputs, other), torch.Generator().manual_seed(0))
    gradients = torch.autograd.grad(total, leaves, allow_unused=True)
    assert any(each is not None and float(each.abs().max()) > 0 for each in gradients)


def test_drawing_changes_the_frame(case):
    pytest.importorskip("PIL")
    task, outputs = case
    rgb = np.full((SIZE, SIZE, 3), 90, np.uint8)
    drawn = task.draw(task.finish(outputs, GEOMETRY), rgb, (255, 0, 0))
    assert drawn.shape == rgb.shape
    assert drawn.dtype == np.uint8
    assert (drawn == rgb).all() == isinstance(task, Anything)
    assert (rgb == 90).all()
    assert task.draw(task.finish(outputs, GEOMETRY), rgb).shape == rgb.shape


def test_other_outputs_are_refused_in_one_line(case):
    task, _ = case
    for wrong in ({}, [], "text"):
        with pytest.raises(ModelError) as caught:
            task.finish(wrong, GEOMETRY)
        assert "\n" not in str(caught.value)
    if not isinstance(task, Anything):
        with pytest.raises(ModelError, match=r"output|expects"):
            task.finish(torch.zeros(1, 2, 3), GEOMETRY)


@pytest.mark.parametrize(
    ("kind", "key", "wrong"),
    [
        ("detection", "boxes", torch.zeros(4, 5)),
        ("detection", "boxes", torch.zeros(3, 4)),
        ("detection", "scores", torch.zeros(4, 1)),
        ("detection", "scores", torch.zeros(4, dtype=torch.long)),
        ("detection", "labels", [1, 2, 3, 4]),
        ("masks", "masks", torch.zeros(4, SIZE, SIZE)),
        ("keypoints", "keypoints", torch.zeros(4, 17, 2)),
        ("keypoints", "keypoints_scores", torch.zeros(4, 17, 1)),
    ],
)
def test_outputs_that_only_look_like_torchvisions_are_refused(kind, key, wrong):
    outputs = boxes_outputs(np.random.default_rng(0))
    other = [{**outputs[0], key: wrong}]
    for use in (
        lambda: of_torchvision(kind).finish(other, GEOMETRY),
        lambda: of_torchvision(kind).residuals(outputs, other),
    ):
        with pytest.raises(ModelError, match=f"the model's output {key} is .*; the task expects"):
            use()


@pytest.mark.parametrize(
    "task",
    [Classification(), Segmentation(["rest", "cat"], activation="softmax"), pose(), detector()],
)
def test_whole_numbers_are_no_probabilities(task):
    whole = torch.zeros(1, 2, 4, 4, dtype=torch.long)
    with pytest.raises(ModelError, match=r"holds torch\.int64 numbers; the task expects"):
        task.finish(whole, GEOMETRY)
    with pytest.raises(ModelError, match=r"holds torch\.int64 numbers; the task expects"):
        task.residuals(whole, whole)


def test_residuals_of_classes_have_the_fisher_information():
    task, random = Classification(), np.random.default_rng(0)
    logits = normal(1, 6)(random)
    error = torch.from_numpy(random.normal(0, 1, (1, 6)).astype(np.float32))
    p = torch.softmax(logits, 1)[0].double()
    fisher = torch.diag(p) - torch.outer(p, p)
    (r,) = task.residuals(logits, logits + error)
    squared = float(error[0].double() @ fisher @ error[0].double())
    assert 2 * distortion([r]) == pytest.approx(squared, rel=1e-5)
    small = 1e-2 * error
    (r,) = task.residuals(logits, logits + small)
    exact = float(kl_divergence(logits.double(), (logits + small).double()))
    assert distortion([r]) == pytest.approx(exact, rel=0.05)


def test_labels_and_top_five():
    task = Classification([f"name {k}" for k in range(7)])
    row = task.finish(torch.arange(7.0)[None], GEOMETRY).rows(Moment(2, 4, 0.25))[0]
    assert list(row) == ["frame", "pts", "time", "top5"]
    assert [each["class"] for each in row["top5"]] == [6, 5, 4, 3, 2]
    assert row["top5"][0]["label"] == "name 6"
    with pytest.raises(ModelError, match="8 classes, the task 7 labels"):
        task.finish(torch.zeros(1, 8), GEOMETRY)


def test_boxes_lie_where_the_distributions_say():
    sides = (1, 2, 3, 4)
    scores = [torch.zeros(1, 16, 3), torch.zeros(1, 4, 3)]
    boxes = [torch.zeros(1, 16, 4 * BINS), torch.zeros(1, 4, 4 * BINS)]
    scores[0][0, 6, 2] = 0.8  # cell (2, 1)
    for side, distance in enumerate(sides):
        boxes[0][0, 6, side * BINS + distance] = 100
    outputs = (*scores, *boxes)
    found = detector().finish(outputs, Geometry.of_input(100, 100).of_input(32, 32))
    # the centre is (20, 12); nothing reaches beyond the frame
    assert found.boxes.tolist() == [[12, 0, 32, 32]]
    assert found.labels.tolist() == [7]
    shifted = detector(centre_shift=-0.5).finish(outputs, Geometry.stretched(32, 32, 64, 320))
    assert shifted.boxes.tolist() == [[23, 0, 64, 320]]
    row = found.rows(Moment(0))[0]
    assert row == {"image_id": 0, "category_id": 7, "bbox": [12, 0, 20, 32], "score": 0.8}


def test_the_background_weighs_next_to_nothing():
    outputs = detector_outputs(np.random.default_rng(1))
    task = detector()
    other = disturbed(outputs, 0.0, torch.Generator())
    for level, cell in ((0, 5), (1, 3)):
        parts = task.residuals(outputs, other)
        gradient = torch.autograd.grad(
            parts[2 + level].square().sum() + parts[2 + level].sum(), other[2 + level]
        )[0]
        strength = gradient[0].square().sum(1)
        assert int(strength.argmax()) == cell
        assert float(strength[cell]) > float(strength.sum() - strength[cell]) / 4


def test_saturated_logits_weigh_less():
    task = detector(activation="sigmoid")
    outputs = [*detector_outputs(np.random.default_rng(1))]
    outputs[0] = outputs[0].clone()
    outputs[0][0, 0], outputs[0][0, 1] = 0.0, 8.0
    other = disturbed(outputs, 0.0, torch.Generator())
    total = task.residuals(outputs, other)[0].sum()
    slope = torch.autograd.grad(total, other[0])[0][0]
    assert float(slope[0, 0]) == pytest.approx(0.25)
    assert float(slope[1, 0]) < 1e-3


def test_levels_must_fit_the_input():
    outputs = detector_outputs(np.random.default_rng(0))
    with pytest.raises(ModelError, match="stride 8 has 16 cells; an input of 64x32 has 8 x 4"):
        detector().finish(outputs, Geometry.of_input(64, 32))
    with pytest.raises(ModelError, match=r"output 2 has shape .* expects \(N, cells, 28\)"):
        detector(bins=7).finish(outputs, GEOMETRY)
    with pytest.raises(ModelError, match="wants output 9; the model gives 0 "):
        detector(boxes=(2, 9)).finish(outputs, GEOMETRY)


def test_poses():
    outputs = pose_outputs(np.random.default_rng(0))
    outputs[3][:] = 0.5
    found = pose().finish(outputs, GEOMETRY)
    assert len(found) == 1
    cell = SIZE / 8
    assert found.points[0, :, :2].tolist() == [
        [4.5 * cell, 1.5 * cell],
        [2.5 * cell, 3.5 * cell],
        [6.5 * cell, 6.5 * cell],
    ]
    assert found.points[0, :, 2] == pytest.approx([0.8] * 3)
    assert found.boxes[0].tolist() == [2.5 * cell, 0.5 * cell, 6.5 * cell, 6.5 * cell]


def test_only_the_most_certain_peaks_are_persons():
    outputs = pose_outputs(np.random.default_rng(0))
    certain = np.random.default_rng(1).permutation(32 * 32).reshape(32, 32) / 2048 + 0.5
    wide = [torch.zeros(1, part.shape[1], 64, 64) for part in outputs]
    wide[0][0, 0, ::2, ::2] = torch.from_numpy(certain).float()
    wide[4] += 0.5
    found = pose().finish(tuple(wide), GEOMETRY)
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert found.scores[0] == pytest.approx(certain.max())
    asked = []
    unpatched = movenet.suppress

    def counted(boxes, *rest):
        asked.append(len(boxes))
        return unpatched(boxes, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(movenet, "suppress", counted)
        pose().finish(tuple(wide), GEOMETRY)
    assert asked == [movenet.MOST_CANDIDATES]


def test_of_two_peaks_that_is_chosen_which_belongs_to_the_person():
    outputs = pose_outputs(np.random.default_rng(0))
    outputs[1][0, 0, 7, 0] = 0.85  # higher, but of somebody else
    found = pose().finish(outputs, GEOMETRY)
    assert found.points[0, 0, 1] < 3 * SIZE / 8


def test_things_without_a_partner_count_by_their_scores():
    task = of_torchvision("detection")
    outputs = boxes_outputs(np.random.default_rng(0))
    fewer = [{name: value[1:] for name, value in outputs[0].items()}]
    assert task.lost(outputs, fewer) == pytest.approx(0.5 * 0.9**2, rel=1e-5)
    assert task.lost(fewer, outputs) == pytest.approx(0.5 * 0.9**2, rel=1e-5)
    nothing = [{name: value[:0] for name, value in outputs[0].items()}]
    assert len(task.finish(nothing, GEOMETRY)) == 0
    assert task.lost(outputs, nothing) == pytest.approx(0.5 * (0.81 + 0.64 + 0.36 + 0.04), rel=1e-5)
    assert task.lost(nothing, nothing) == 0


def instances(boxes, scores, labels):
    return Instances(
        np.array(boxes, float).reshape(-1, 4), np.array(scores, float), np.array(labels, np.int64)
    )


def test_average_precision():
    pytest.importorskip("pycocotools")
    precision = AveragePrecision("bbox")
    wanted = instances([[0, 0, 10, 10], [20, 20, 40, 40]], [0.9, 0.8], [1, 1])
    found = instances([[0, 0, 10, 10], [0, 0, 10, 11]], [0.9, 0.8], [1, 1])
    precision.expect(0, wanted.rows(Moment(0)))
    precision.add(0, found.rows(Moment(0)))
    # one of two found: precision 1 up to recall 0.5, of 101 recalls 51
    assert precision.figures() == pytest.approx({"ap": 51 / 101, "ap50": 51 / 101})


def test_equal_sides_are_perfect_however_many_things_there_are():
    pytest.importorskip("pycocotools")
    corner = np.random.default_rng(0).uniform(0, 400, (150, 2))
    boxes = np.concatenate([corner, corner + 20], 1)
    rows = instances(boxes, np.linspace(0.9, 0.1, 150), np.ones(150)).rows(Moment(0))
    precision = AveragePrecision("bbox")
    precision.expect(0, rows)
    precision.add(0, rows)
    assert precision.figures() == pytest.approx({"ap": 1, "ap50": 1})


def test_boxes_without_area_are_not_found_and_cost_nothing():
    outputs = boxes_outputs(np.random.default_rng(0))
    outputs[0]["boxes"][0, 2] = outputs[0]["boxes"][0, 0]
    task = of_torchvision("detection")
    assert len(task.finish(outputs, GEOMETRY)) == 2
    assert task.lost(outputs, outputs) == 0


def test_masks_of_annotations_may_be_polygons(tmp_path):
    pytest.importorskip("pycocotools")
    path = tmp_path / "truth.json"
    annotation = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [4, 4, 8, 8], "area": 64}
    annotation["segmentation"] = [[4, 4, 12, 4, 12, 12, 4, 12]]
    truth = {"images": [{"id": 0, "file_name": "0.png"}], "annotations": [annotation]}
    path.write_text(json.dumps(truth), encoding="utf-8")
    precision = of_torchvision("masks").against(Truth.from_file(path))
    masks = np.zeros((1, SIZE, SIZE), bool)
    masks[0, 4:12, 4:12] = True
    found = Instances(np.array([[4.0, 4, 12, 12]]), np.ones(1), np.ones(1, np.int64), masks)
    precision.add(0, found)
    assert precision.figures() == pytest.approx({"ap": 1, "ap50": 1})


def test_average_precision_of_nothing():
    thing = instances([[0, 0, 10, 10]], [0.9], [1]).rows(Moment(0))
    for wanted, found, value in (([], [], 1.0), ([], thing, 0.0), (thing, [], 0.0)):
        precision = AveragePrecision("bbox")
        precision.expect(0, wanted)
        precision.add(0, found)
        assert precision.figures() == {"ap": value, "ap50": value}


def test_label_maps():
    labels = np.array([[0, 1, 1], [2, 2, UNSEEN]], np.uint8)
    rows = LabelMap(labels).rows(Moment(3))
    assert [row["category_id"] for row in rows] == [1, 2]
    for row in rows:
        assert (decode_mask(row["segmentation"]) == (labels == row["category_id"])).all()


def test_overlap_of_maps():
    task = Segmentation("ab", activation="none")
    one = torch.tensor([[[[0.0, 1.0], [1.0, 1.0]]]])
    other = torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]]])
    comparison = task.comparison()
    comparison.update(one, other, Geometry.of_input(2, 2))
    figures = comparison.figures()
    assert figures["pixel_agreement"] == 0.5
    assert figures["miou"] == pytest.approx((0 + 0.5) / 2)
    assert figures["distortion"] == pytest.approx(0.25)


def test_masks_of_instances_are_of_the_frame():
    outputs = boxes_outputs(np.random.default_rng(0))
    found = of_torchvision("masks").finish(outputs, Geometry.stretched(SIZE, SIZE, 64, 96))
    assert found.masks.shape == (3, 96, 64)
    left, top, right, bottom = found.boxes[0]
    rows, columns = np.nonzero(found.masks[0])
    assert abs(rows.min() - top) <= 3
    assert abs(rows.max() + 1 - bottom) <= 3
    assert abs(columns.min() - left) <= 2
    assert abs(columns.max() + 1 - right) <= 2


def test_relative_error():
    reference = {"a": torch.tensor([[1.0, 3.0]]), "b": torch.tensor([[0.0, 4.0]])}
    found = {"a": torch.tensor([[1.0, 4.0]]), "b": torch.tensor([[0.0, 4.0]])}
    comparison = Anything().comparison()
    comparison.update(reference, found, GEOMETRY)
    assert comparison.figures() == {"error": 0.25, "error_a": 0.5, "error_b": 0.0}
    assert Anything().lost(reference, found) == pytest.approx(0.25)
    with pytest.raises(ModelError, match="outputs are a, those of the uncoded network a, b"):
        comparison.update(reference, {"a": found["a"]}, GEOMETRY)


def test_names_of_outputs():
    one, two, three = (torch.tensor([float(k)]) for k in range(3))
    outputs = {"out": one, "levels": [two, {"deep": three}], "nothing": None}
    assert list(named_tensors(outputs)) == ["out", "levels.0", "levels.1.deep"]
    assert one_output(outputs, 2) is three
    assert one_output(outputs, "levels.0") is two
    assert list(named_tensors(one)) == ["output"]
    with pytest.raises(ModelError, match="wants output 'aux'; the model gives out"):
        one_output(outputs, "aux")
    with pytest.raises(ModelError, match="holds no float tensor"):
        float_tensors([torch.ones(2, dtype=int)])


def test_geometry():
    # 100 x 50 brought to a height of 20, of whose 40 columns the middle 20 are shown
    cropped = Geometry(20, 20, 100, 50, 0.4, 0.4, left=-10)
    points = np.array([[0.0, 0.0, 20.0, 20.0], [10.0, 10.0, 90.0, -5.0]])
    assert cropped.to_frame(points).tolist() == [[25, 0, 75, 50], [50, 25, 100, 0]]
    seen = cropped.sample(np.ones((5, 5), np.uint8), UNSEEN)
    assert seen.shape == (50, 100)
    assert (seen[:, 25:75] == 1).all()
    assert (seen[:, :25] == UNSEEN).all()
    assert (seen[:, 75:] == UNSEEN).all()
    with pytest.raises(ValueError, match="are positive"):
        Geometry.of_input(0, 3)


def test_probes_have_the_covariance_of_the_sensitivity():
    task, logits = Classification(), torch.tensor([[0.3, 1.0, -0.5]])
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(3, 3, dtype=torch.float64)
    for _ in range(4000):
        leaf = logits.clone().requires_grad_()
        gradient = torch.autograd.grad(signed(task.residuals(logits, leaf), generator), leaf)[0][0]
        total += torch.outer(gradient.double(), gradient.double())
    p = torch.softmax(logits, 1)[0].double()
    expected = torch.diag(p) - torch.outer(p, p)
    assert float((total / 4000 - expected).abs().max()) < 0.02


def test_label_maps_against_annotations():
    pytest.importorskip("pycocotools")
    polygon = {"category_id": 1, "area": 64, "segmentation": [[4, 4, 12, 4, 12, 12, 4, 12]]}
    inner = np.zeros((SIZE, SIZE), bool)
    inner[6:8, 6:8] = True
    runs = {"category_id": 2, "area": 4, "segmentation": encode_mask(inner)}
    labels = np.zeros((SIZE, SIZE), np.uint8)
    labels[4:12, 4:12] = 1
    labels[6:8, 6:8] = 2
    task = Segmentation("abc", activation="softmax")
    scoring = task.against(Truth({7: [runs, polygon]}))
    scoring.add(6, LabelMap(labels))
    scoring.add(7, LabelMap(labels))
    assert scoring.figures() == {"miou": 1.0, "pixel_agreement": 1.0}
    other = {**polygon, "category_id": 300}
    scoring = task.against(Truth({0: [other, runs]}))
    scoring.add(0, LabelMap(labels))
    assert scoring.figures() == {"miou": 1.0, "pixel_agreement": 1.0}
    scoring = task.against(Truth({8: [{**runs, "segmentation": []}]}))
    with pytest.raises(TaskError, match="has no segmentation"):
        scoring.add(8, LabelMap(labels))
    with pytest.raises(TaskError, match="32x32, frames of 16x16"):
        task.against(Truth({7: [runs]})).add(7, LabelMap(labels[:16, :16]))


def test_annotations_without_what_the_task_needs():
    pytest.importorskip("pycocotools")
    outputs = boxes_outputs(np.random.default_rng(0))
    task = of_torchvision("keypoints")
    box = {"category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}
    with pytest.raises(TaskError, match="an annotation of frame 3 has no keypoints"):
        task.against(Truth({3: [box]}))
    points = {**box, "keypoints": [1, 1, 2], "num_keypoints": 1}
    scoring = task.against(Truth({0: [points]}))
    scoring.add(0, task.finish(outputs, GEOMETRY))
    with pytest.raises(TaskError, match=r"cannot use the annotations .* keypoints needs all"):
        scoring.figures()


def test_what_annotations_say_nothing_about():
    for task in (Classification(), Anything()):
        with pytest.raises(TaskError, match=f"nothing about {task.name}"):
            task.against(Truth({}))
