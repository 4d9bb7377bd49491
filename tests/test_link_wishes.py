"""What a receiver may wish for: any bytes give a wish or our error, and no two give the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import BitstreamError
from codec.link.wire import MAX_REQUEST_BYTES
from codec.link.wishes import EVEN, FinerQuality, ImportanceGrid


@given(st.binary(max_size=40), st.sampled_from([ImportanceGrid, FinerQuality]))
def test_any_bytes(content, kind):
    try:
        wish = kind.from_bytes(content)
    except BitstreamError:
        return
    assert wish.to_bytes() == content


def test_the_largest_grid_fits_in_a_message():
    grid = ImportanceGrid(255, 255, bytes(255 * 255), frames=1 << 16)
    assert len(grid.to_bytes()) <= MAX_REQUEST_BYTES
    assert ImportanceGrid.from_bytes(grid.to_bytes()) == grid


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\1",
        b"\0\1\0",
        b"\0\1\2\x80",
        b"\0\1\1\x80\x80",
        b"\x81\x80\x04\1\1\x80",
    ],
)
def test_malformed_grids(content):
    with pytest.raises(BitstreamError):
        ImportanceGrid.from_bytes(content)


@pytest.mark.parametrize("content", [b"", b"\1", b"\0\x10", b"\1\x34", b"\1\x10\0"])
def test_malformed_wishes_for_quality(content):
    with pytest.raises(BitstreamError):
        FinerQuality.from_bytes(content)


def test_weights_become_steps():
    grid = ImportanceGrid.of([[1, 2, 0.5], [1e-9, 1e9, 1]], frames=3)
    assert (grid.rows, grid.columns, grid.frames) == (2, 3, 3)
    assert list(grid.steps) == [EVEN, EVEN + 8, EVEN - 8, 0, 255, EVEN]
    assert not grid.even
    assert ImportanceGrid.of([[1, 1.01]]).even


@pytest.mark.parametrize("weights", [[], [[]], [[1], [1, 2]], [[0]], [[-1]], [[float("nan")]]])
def test_weights_that_are_none(weights):
    with pytest.raises(ValueError, match=r"importance|columns"):
        ImportanceGrid.of(weights)


def test_a_coarser_grid_keeps_the_most_of_its_cells():
    grid = ImportanceGrid(3, 3, bytes([1, 2, 3, 4, 5, 6, 7, 8, 9]), frames=2)
    assert grid.halved() == ImportanceGrid(2, 2, bytes([5, 6, 8, 9]), frames=2)
