"""Measures: every figure that a task compares by is known, and shares become losses."""

from __future__ import annotations

import pytest

from codec.tasks.description import TASK_NAMES
from tools.rate_distortion.measures import (
    CLASSIFICATION,
    MEANINGS,
    framed_of,
    lead_of,
    measures_in,
    measures_of,
)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_every_task_has_measures(task: str) -> None:
    measures = measures_of(task)
    assert lead_of(task) == measures[0]
    assert measures[0].compared
    assert measures[0].kind == "loss"
    assert framed_of(task) in measures
    if task != "classification":
        assert all(one.name in MEANINGS for one in measures if one.name != "nrmse")


def test_what_a_share_lacks_of_one_is_its_loss() -> None:
    ap = next(one for one in measures_of("detection") if one.name == "ap")
    assert ap.loss({"ap": 0.75}) == 0.25
    assert ap.loss({"kl": 0.1}) is None
    assert ap.lost == "1 − AP"


def test_a_table_tells_its_task() -> None:
    assert measures_in(["clip", "kl", "nrmse"]) == CLASSIFICATION
    assert measures_in(["score_error", "distortion", "ap", "output_error"])[0].name == "score_error"
    assert measures_in(["distortion", "miou", "output_error"]) == measures_of("segmentation")
    assert measures_in(["output_error"]) == measures_of("anything")
    with pytest.raises(ValueError, match="no column of kl, score_error"):
        measures_in(["clip"])
