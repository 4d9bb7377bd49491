"""What the figures of a task are called, which of them are losses, and which curves are compared.

A *loss* falls to nothing as the rate rises, and BD-rate is taken at equal loss; of a share, such as
an average precision, the loss is what it lacks of one.  The first measure of a task is its *lead*:
the curves of the page, the summary and what is said in words go by it.

Source of the figures: `codec.tasks` and `tools/contenders/judging.py`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tools.contenders.judging import OUTPUT_ERROR

__all__ = ["CLASSIFICATION", "Measure", "framed_of", "lead_of", "measures_in", "measures_of"]


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of a clip.

    Args:
        name: column of results.csv.
        label: for people.
        kind: whether it is a loss or a share.
        unit: of a loss, if it has one.
        compared: whether there is a BD-rate at equal loss.
        equal: loss at which to look at the other figures.
        short: label where there is little room.
    """

    name: str
    label: str
    kind: Literal["loss", "share"] = "loss"
    unit: str = ""
    compared: bool = False
    equal: float | None = None
    short: str = ""

    @property
    def title(self) -> str:
        """Return the label with the unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    @property
    def brief(self) -> str:
        """Return the short label."""
        return self.short or self.label

    @property
    def lost(self) -> str:
        """Say what BD-rate holds equal."""
        return f"1 − {self.label}" if self.kind == "share" else self.label

    def loss(self, point: Mapping[str, Any]) -> float | None:
        """Return the loss of a point; None if it has no such figure."""
        value = point.get(self.name)
        if value is None:
            return None
        return 1 - float(value) if self.kind == "share" else float(value)


NRMSE = Measure("nrmse", "NRMSE")
OUTPUTS = Measure(OUTPUT_ERROR, "output error", compared=True)
DISTORTION = Measure("distortion", "distortion", compared=True)
CLASSIFICATION = (
    Measure("kl", "KL divergence", unit="nats", compared=True, equal=0.1, short="KL"),
    Measure("top1_agreement", "top-1 agreement", "share"),
    Measure("dense_agreement", "dense agreement", "share"),
    NRMSE,
    Measure("accuracy", "accuracy", "share"),
)
INSTANCES = (
    Measure("score_error", "squared score error", compared=True, short="score error"),
    DISTORTION,
    Measure("ap", "AP", "share", compared=True),
    Measure("ap50", "AP50", "share"),
    OUTPUTS,
    NRMSE,
)
TASKS: dict[str, tuple[Measure, ...]] = {
    "classification": CLASSIFICATION,
    "detection": INSTANCES,
    "masks": (*INSTANCES, Measure("mask_iou", "mask IoU", "share", compared=True)),
    "keypoints": INSTANCES,
    "segmentation": (
        DISTORTION,
        Measure("miou", "mean IoU", "share", compared=True),
        Measure("pixel_agreement", "pixel agreement", "share"),
        OUTPUTS,
        NRMSE,
    ),
    "anything": (OUTPUTS, NRMSE),
}
"""By the names of tasks, the lead first; what they mean stands in `MEANINGS`."""

MEANINGS = {
    "score_error": (
        "the squared error of all scores of the network, of every cell and class (of key points: "
        "of both kinds of heat maps), summed over a frame, mean over frames"
    ),
    "distortion": (
        "the task’s own loss, by which calibration weighs errors (of things found: half the sum of "
        "squared errors of scores, and of places by the thing’s size and score), mean over frames"
    ),
    "ap": (
        "COCO’s average precision over IoU, of key points over object key-point similarity, of 0.5 "
        "to 0.95; what the uncoded network finds is taken for the truth"
    ),
    "ap50": "the same at 0.5 alone",
    "mask_iou": "the mean overlap of masks with those of the uncoded network",
    "miou": "intersection over union with the uncoded network’s map, mean over classes",
    "pixel_agreement": "share of pixels of the same class",
    OUTPUT_ERROR: (
        "the squared error of every output of the network by its variance, mean over outputs; it "
        "knows of no task"
    ),
}


def measures_of(task: str) -> tuple[Measure, ...]:
    """Return the measures of a task by its name."""
    return TASKS[task]


def measures_in(columns: Iterable[str]) -> tuple[Measure, ...]:
    """Return the measures of the task whose figures a table holds.

    Raises:
        ValueError: there is no such task.
    """
    there = set(columns)
    fitting = [each for each in TASKS.values() if each[0].name in there]
    if not fitting:
        leads = dict.fromkeys(each[0].name for each in TASKS.values())
        raise ValueError(f"no column of {', '.join(leads)}")
    return max(fitting, key=lambda each: sum(measure.name in there for measure in each))


def framed_of(task: str) -> Measure:
    """Return the measure that is told frame by frame: the task's own loss."""
    wanted = {"classification": "kl", "anything": OUTPUT_ERROR}.get(task, "distortion")
    return next(measure for measure in TASKS[task] if measure.name == wanted)


def lead_of(task: str) -> Measure:
    """Return the measure that goes first."""
    return TASKS[task][0]
