"""Motion search finds known motion, and nothing where nothing moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from codec.encoding.config import DEFAULT_EFFORT, EFFORTS, MAX_EFFORT, Decisions
from codec.encoding.motion_search import MotionSearch, field_of_blocks, luma
from codec.format.constants import MAX_VECTOR
from codec.format.header import SequenceHeader, TensorSpec

SIZE = 128


def header(height: int = SIZE, width: int = SIZE, grid: int = 32) -> SequenceHeader:
    spec = TensorSpec("t", 1, 4, 4, 32, 32)
    return SequenceHeader((spec,), height, width, bytes(8), grid=grid)


def texture(shift_y: float = 0.0, shift_x: float = 0.0, *, size: int = SIZE) -> torch.Tensor:
    """Smooth noise, a sum of waves: it can be sampled anywhere exactly."""
    rng = np.random.default_rng(0)
    y = np.arange(size)[:, None] + shift_y
    x = np.arange(size)[None, :] + shift_x
    picture = np.full((size, size), 128.0)
    for _ in range(60):
        fy, fx = rng.normal(size=2) * 0.05
        picture += 10 * np.cos(2 * np.pi * (fy * y + fx * x + rng.random()))
    return torch.from_numpy(picture).float()


def search(reference: torch.Tensor, picture: torch.Tensor, **options) -> np.ndarray:
    motion = MotionSearch(header(*picture.shape, **options), qp=2)
    assert motion.estimate(reference) is None
    field = motion.estimate(picture)
    assert field is not None
    assert field.shape == (*header(*picture.shape, **options).field_shape, 2)
    assert field.dtype == np.int32
    return field


@pytest.mark.parametrize("grid", [16, 32])
@pytest.mark.parametrize(
    ("vy", "vx"), [(0, 4), (-8, 12), (1, -2), (-3, 7), (22, -25), (40, 40), (-44, 3)]
)
def test_known_translations_are_found(vy, vx, grid):
    # the content at x was at x + v in the frame before
    field = search(texture(), texture(vy / 4, vx / 4), grid=grid)
    inner = field[1:-1, 1:-1]
    assert np.abs(np.median(inner, axis=(0, 1)) - (vy, vx)).max() <= 0.5
    assert (np.abs(inner - (vy, vx)).max(-1) <= 1).mean() >= 0.9


@pytest.mark.parametrize(
    ("picture", "error", "message"),
    [
        (
            texture()[None],
            ValueError,
            r"shape \(1, 128, 128\), expected \(H, W\) luma \(128, 128\)",
        ),
        (texture(size=64), ValueError, r"shape \(64, 64\), expected"),
        (texture() + float("nan"), ValueError, "not finite"),
        (texture() * float("inf"), ValueError, "not finite"),
        (texture() * -1e19, ValueError, r"values from -.*e\+21 to .*, expected luma"),
        (texture().numpy(), TypeError, "is a ndarray, expected a torch tensor: `luma`"),
    ],
)
def test_pictures_that_are_none(picture, error, message):
    with pytest.raises(error, match=message):
        MotionSearch(header(), qp=2).estimate(picture)


@pytest.mark.parametrize(
    ("picture", "error"),
    [(torch.zeros(3, 8, 8), TypeError), (np.zeros((8, 8)), ValueError)],
)
def test_luma_of_what_is_no_picture(picture, error):
    with pytest.raises(error, match=r"expected .*\(H, W, 3\)"):
        luma(picture)


def test_identical_pictures_do_not_move():
    assert not search(texture(), texture()).any()


def test_flat_pictures_do_not_move():
    assert not search(torch.full((64, 64), 100.0), torch.full((64, 64), 101.0)).any()


def test_noise_does_not_move():
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(SIZE, SIZE, generator=generator) for _ in range(2)]
    assert np.abs(search(texture() + noise[0], texture() + noise[1])).max() <= 1


def test_identical_pictures_reset_the_field():
    motion = MotionSearch(header(), qp=20)
    motion.estimate(texture())
    assert motion.estimate(texture(3, 3)).any()
    assert not motion.estimate(texture(3, 3)).any()


@pytest.mark.parametrize(("height", "width"), [(33, 65), (8, 8), (1, 100), (70, 31)])
def test_any_size_of_picture(height, width):
    field = search(texture()[:height, :width], texture(1, 1)[:height, :width])
    assert np.abs(field).max() <= MAX_VECTOR


def test_vectors_lie_in_the_search_range():
    motion = MotionSearch(header(), qp=20, search_range=4)
    motion.estimate(texture())
    field = motion.estimate(texture(20, 20))
    # the refinement goes on by its steps around the coarse range
    assert np.abs(field).max() <= 4 * (4 + 4 + 2 + 1 + 0.5 + 0.25)


def test_luma_is_that_of_bt601():
    picture = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    found = luma(picture)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[0], [76.245, 149.685, 29.07, 255], rtol=1e-5)


def test_luma_of_views_and_foreign_bytes():
    picture = np.random.default_rng(0).integers(0, 255, (4, 5, 3), np.uint8)
    expected = luma(picture)
    bgr = picture[..., ::-1].copy()
    assert torch.equal(luma(bgr[..., ::-1]), expected)
    assert torch.equal(luma(picture.astype(">u2")), expected)
    assert torch.equal(luma(np.broadcast_to(picture, picture.shape)), expected)  # read-only


# --- the vectors of the input ---------------------------------------------------------------------


def test_field_of_blocks_takes_the_block_that_a_node_lies_in():
    blocks = np.array(
        [  # x, y, w, h, dx, dy: centres of 32x32 blocks at the nodes (0, 0) and (0, 1)
            [16, 16, 32, 32, 1.25, -2.5],
            [48, 16, 32, 32, -3.0, 0.0],
        ],
        np.float32,
    )
    field = field_of_blocks(blocks, header(64, 64))
    assert field.dtype == np.int32
    assert field.tolist() == [[[-10, 5], [0, -12]], [[0, 0], [0, 0]]]


def test_field_of_no_blocks_is_zero():
    field = field_of_blocks(np.zeros((0, 6), np.float32), header(64, 96))
    assert field.shape == (2, 3, 2)
    assert not field.any()


def test_vectors_of_blocks_are_clipped():
    blocks = np.array([[32, 32, 64, 64, 1e5, -1e5]], np.float32)
    field = field_of_blocks(blocks, header(64, 64))
    assert (field[..., 0] == -MAX_VECTOR).all()
    assert (field[..., 1] == MAX_VECTOR).all()


@pytest.mark.parametrize("finest", [0, 1, 2])
def test_vectors_are_searched_in_the_units_asked_for(finest):
    motion = MotionSearch(header(), qp=2, finest=finest)
    motion.estimate(texture())
    found = motion.estimate(texture(5 / 4, -9 / 4))
    assert not (found % (1 << finest)).any()
    wanted = np.round(np.array([5, -9]) / (1 << finest)) * (1 << finest)
    assert np.abs(np.median(found[1:-1, 1:-1], axis=(0, 1)) - wanted).max() <= 1 << finest


def test_every_effort_is_a_level_of_its_own():
    assert len(set(EFFORTS)) == len(EFFORTS) == MAX_EFFORT + 1
    assert EFFORTS[DEFAULT_EFFORT] == Decisions()


def test_a_search_goes_on_from_any_picture_seen():
    pictures = [texture(0, shift / 4) for shift in (0, 6, 12)]
    straight, turned = (MotionSearch(header(), qp=2) for _ in range(2))
    assert straight.seen is None
    straight.estimate(pictures[0])
    expected = straight.estimate(pictures[2])
    turned.estimate(pictures[0])
    first = turned.seen
    turned.estimate(pictures[1])
    turned.go_on_from(first)
    assert np.array_equal(turned.estimate(pictures[2]), expected)
    turned.go_on_from(None)
    assert turned.estimate(pictures[1]) is None
