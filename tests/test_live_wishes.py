"""Wishes of a receiver: within their bytes, and as an encoder takes them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("aioquic")

from strategies import header_of, plausible_profile

from codec.errors import BitstreamError
from codec.format.header import TensorSpec
from codec.format.profile import Profile
from codec.link.wishes import EVEN, FinerQuality, ImportanceGrid
from codec.live.wishes import CELLS, LEAST_BYTES, BackChannel, Granted, focus
from codec.tasks.task import Geometry

EVEN_GRID = ImportanceGrid(2, 2, bytes([EVEN] * 4))
GRID = ImportanceGrid(2, 2, bytes([EVEN, EVEN, EVEN, EVEN + 8]))


def test_the_newest_of_each_kind_is_sent():
    channel = BackChannel(2048)
    for qp in (20, 10):
        channel.wish(FinerQuality(qp, 5))
    channel.wish(GRID)
    assert [content for _, content in channel.take(0.0)] == [
        FinerQuality(10, 5).to_bytes(),
        GRID.to_bytes(),
    ]
    assert channel.take(9.0) == []


def test_what_is_known_is_not_sent_again():
    channel = BackChannel(2048)
    channel.wish(EVEN_GRID)  # as it is without
    assert channel.take(0.0) == []
    for _ in range(2):
        channel.wish(GRID)
    assert len(channel.take(1.0)) == 1
    channel.wish(GRID)
    assert channel.take(2.0) == []
    channel.wish(ImportanceGrid(2, 2, GRID.steps, frames=3))  # which begins now
    assert len(channel.take(3.0)) == 1
    channel.wish(EVEN_GRID)
    assert len(channel.take(4.0)) == 1
    channel.wish(GRID)
    channel.take(5.0)
    channel.forget()  # over another connection
    channel.wish(GRID)
    assert len(channel.take(6.0)) == 1


def test_what_stays_is_said_again_over_another_connection():
    channel = BackChannel(2048)
    channel.wish(GRID)
    channel.take(0.0)
    channel.forget()
    assert [content for _, content in channel.take(1.0)] == [GRID.to_bytes()]
    other = ImportanceGrid(2, 2, bytes([EVEN + 8] * 4))
    channel.wish(other)
    channel.forget()
    assert [content for _, content in channel.take(2.0)] == [other.to_bytes()]
    channel.wish(ImportanceGrid(2, 2, GRID.steps, frames=3))
    channel.take(3.0)
    channel.forget()
    assert channel.take(4.0) == []


def test_no_more_than_so_many_bytes_a_second():
    channel, sent = BackChannel(500), []
    for step in range(1000):
        now = step / 100
        channel.wish(ImportanceGrid(16, 16, bytes([step % 256] * 256)))
        channel.wish(FinerQuality(10, 1 + step))
        sent += [len(content) + 60 for _, content in channel.take(now)]
    assert 0.8 * 5000 < sum(sent) <= 500 + 5000


@pytest.mark.parametrize("most", [0, LEAST_BYTES, 1000])
def test_a_large_grid_is_made_coarser(most):
    channel = BackChannel(most)
    steps = np.full((200, 200), EVEN, np.uint8)
    steps[0, 0] = 200
    channel.wish(ImportanceGrid(200, 200, steps.tobytes()))
    ((kind, content),) = channel.take(0.0)
    assert kind is ImportanceGrid
    assert len(content) + 60 <= max(most, LEAST_BYTES)
    grid = ImportanceGrid.from_bytes(content)
    assert grid.steps[0] == 200
    assert set(grid.steps[1:]) == {EVEN}


def granted(qp: int = 20) -> Granted:
    spec = TensorSpec("t", 3, 16, 16, 4, 4)
    profile = Profile((plausible_profile(np.random.default_rng(0), 3, 4),))
    return Granted(header_of((spec,), profile, size=(64, 64)), profile, qp)


def test_quality_is_finer_for_so_many_frames_and_never_coarser():
    wishes = granted(20)
    assert wishes.qp(0) == 20
    wishes.finer(FinerQuality(8, 3).to_bytes(), 10)
    assert [wishes.qp(number) for number in (10, 12, 13)] == [8, 8, 20]
    wishes.finer(FinerQuality(40, 3).to_bytes(), 20)
    assert wishes.qp(20) == 20
    wishes.finer(FinerQuality(8, 3).to_bytes(), 30)
    wishes.clear()
    assert wishes.qp(30) == 20


def test_importance_is_of_the_blocks_that_cells_lie_over():
    wishes = granted()
    assert wishes.importance(0) is None
    wishes.grid(GRID.to_bytes(), 5)
    (weights,) = wishes.importance(5)
    assert weights.shape == (4, 4)
    assert [weights[0, 0], weights[0, -1], weights[-1, 0]] == pytest.approx([1, 1, 1])
    assert weights[-1, -1] == pytest.approx(2)
    assert wishes.importance(10**6) is not None
    wishes.grid(ImportanceGrid(2, 2, GRID.steps, frames=2).to_bytes(), 7)
    assert wishes.importance(8) is not None
    assert wishes.importance(9) is None
    wishes.grid(EVEN_GRID.to_bytes(), 9)
    assert wishes.importance(9) is None


def test_what_is_no_wish_changes_nothing():
    wishes = granted()
    wishes.grid(GRID.to_bytes(), 0)
    for content in (b"", b"\0\1\1", b"\0\0\0"):
        with pytest.raises(BitstreamError):
            wishes.grid(content, 0)
        with pytest.raises(BitstreamError):
            wishes.finer(content, 0)
    assert wishes.importance(0) is not None
    assert wishes.qp(0) == 20


def test_a_focus_is_finer_in_boxes_and_keeps_the_rate_elsewhere():
    geometry = Geometry.stretched(320, 160, 640, 480)
    grid = focus([{"bbox": [320, 240, 80, 60], "score": 0.5}, {"label": "no box"}], geometry)
    steps = np.frombuffer(grid.steps, np.uint8).reshape(CELLS, CELLS).astype(int)
    fine = steps > EVEN
    down, across = np.nonzero(fine)
    assert (down.min(), down.max(), across.min(), across.max()) == (7, 11, 7, 11)
    assert abs(steps.mean() - EVEN) < 1
    assert steps[fine].min() - steps[~fine].max() == 32


@pytest.mark.parametrize(
    "box", [[-500, -500, 10, 10], [10**6, 10**6, 1, 1], [0, 0, 640, 480], [5.5, 5.5, 0, 0]]
)
def test_boxes_at_and_beyond_the_edges(box):
    grid = focus([{"bbox": box}], Geometry.stretched(320, 160, 640, 480))
    assert len(grid.steps) == CELLS * CELLS
    assert grid.even == (box in ([-500, -500, 10, 10], [10**6, 10**6, 1, 1], [0, 0, 640, 480]))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1e308])
def test_boxes_that_are_nowhere(number):
    geometry = Geometry.stretched(32, 16, 640, 480)
    for place in range(4):
        box = [320.0, 240.0, 80.0, 60.0]
        box[place] = number
        focus([{"bbox": box}], geometry)
    assert focus([{"bbox": [0.0, number, 640.0, number]}], geometry).even


def test_nothing_found_is_no_focus():
    assert focus([], Geometry.of_input(64, 64)).even
