"""Importance of blocks: statistics, fit, its place in profiles, and what encoders do by it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from strategies import SEEDS, header_of, plausible_profile, tensor_specs

from codec.encoding.config import Decisions, EncoderConfig
from codec.encoding.encoder import Encoder
from codec.encoding.importance import ImportancePredictor, block_statistics, pooled
from codec.errors import UnsupportedBitstreamError
from codec.format.header import TensorSpec
from codec.format.profile import ImportanceModel, Profile
from codec.normative.decoder import Decoder
from codec.profiling.importance import ImportanceFit, block_sensitivity, obstacle

CHANNELS, SIDE, BLOCK = 3, 20, 4


def plain_statistics(tensor: np.ndarray, size: int, floor: np.ndarray) -> np.ndarray:
    """Statistics block by block."""
    channels, height, width = tensor.shape
    rows, columns = -(-height // size), -(-width // size)
    whole = np.pad(
        tensor, ((0, 0), (0, rows * size - height), (0, columns * size - width)), mode="edge"
    ).astype(np.float64)
    own = np.zeros((3, channels, rows, columns))
    for i in range(rows):
        for j in range(columns):
            block = whole[:, i * size : (i + 1) * size, j * size : (j + 1) * size]
            own[0, :, i, j] = block.mean((1, 2))
            own[1, :, i, j] = np.log(block.std((1, 2)) + floor)
            own[2, :, i, j] = block.max((1, 2))
    around = np.zeros_like(own)
    for i in range(rows):
        for j in range(columns):
            near = own[
                :, :, np.clip(range(i - 1, i + 2), 0, rows - 1)][
                :, :, :, np.clip(range(j - 1, j + 2), 0, columns - 1)
            ]  # fmt: skip
            around[:2, :, i, j] = near[:2].mean((2, 3))
            around[2, :, i, j] = near[2].max((1, 2))
    return np.concatenate([own, around]).reshape(6 * channels, rows, columns)


@settings(max_examples=25)
@given(SEEDS, st.integers(1, 3), st.integers(1, 11), st.integers(1, 11), st.integers(1, 5))
def test_statistics_are_those_of_blocks_one_by_one(seed, channels, height, width, size):
    rng = np.random.default_rng(seed)
    level = rng.choice((0, 1000))  # of which the deviation is not to be lost in
    tensor = (level + rng.normal(size=(channels, height, width))).astype(np.float32)
    floor = rng.uniform(0.1, 1, channels).astype(np.float32)
    found = block_statistics(torch.from_numpy(tensor), size, torch.from_numpy(floor))
    expected = plain_statistics(tensor, size, floor)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=2e-3)


def profile_of_one() -> Profile:
    return Profile((plausible_profile(np.random.default_rng(5), CHANNELS, BLOCK, dense=True),))


def scene(rng: np.random.Generator) -> torch.Tensor:
    """A tensor whose blocks differ in brightness."""
    bright = np.kron(rng.normal(size=(1, SIDE // BLOCK, SIDE // BLOCK)), np.ones((BLOCK, BLOCK)))
    return torch.from_numpy(rng.normal(size=(CHANNELS, SIDE, SIDE)) + 2 * bright).float()


def gradients_of(tensor: torch.Tensor, rng: np.random.Generator, slope: float) -> torch.Tensor:
    """Gradients that grow with the mean brightness of their block."""
    side = SIDE // BLOCK
    mean = tensor.mean(0).reshape(side, BLOCK, side, BLOCK).mean((1, 3)).numpy()
    strength = np.kron(np.exp(slope * mean), np.ones((BLOCK, BLOCK)))
    drawn = rng.normal(size=(8, CHANNELS, SIDE, SIDE)) * strength
    return torch.from_numpy(drawn).float()


def fitted(slope: float, inputs: int = 30) -> tuple[ImportanceModel, ...] | None:
    rng = np.random.default_rng(1)
    tensors = [scene(rng) for _ in range(inputs)]
    return fit_of(tensors, [gradients_of(tensor, rng, slope) for tensor in tensors])[0]


def fit_of(
    tensors: list[torch.Tensor], gradients: list[torch.Tensor]
) -> tuple[tuple[ImportanceModel, ...] | None, str]:
    fit = ImportanceFit(profile_of_one())
    for tensor, gradient in zip(tensors, gradients, strict=True):
        fit.measure([tensor], [gradient])
    for tensor in tensors:
        fit.add([tensor])
    return fit.models()


def scenes(count: int = 30) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Tensors and gradients."""
    rng = np.random.default_rng(1)
    tensors = [scene(rng) for _ in range(count)]
    return tensors, [gradients_of(tensor, rng, 1.0) for tensor in tensors]


def seen_by(models: tuple[ImportanceModel, ...], tensor: torch.Tensor) -> float:
    """Correlation of the logarithms with the truth, of a scene that was not fitted to."""
    rng, profile = np.random.default_rng(2), profile_of_one()
    unseen = scene(rng)
    (truth,) = block_sensitivity(profile, [gradients_of(unseen, rng, 1.0)])
    (found,) = ImportancePredictor(models, profile)([tensor])
    return float(np.corrcoef(np.log(found).ravel(), np.log(truth).ravel())[0, 1])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("constant", [0.0, 0.1, 1.7, 6.0, 1000.3])
def test_a_channel_that_was_constant_tells_nothing(constant):
    """Its covariances are rounding; and one day it is not constant."""
    tensors, gradients = scenes()
    for tensor in tensors:
        tensor[2] = constant
    models, _ = fit_of(tensors, gradients)
    assert models is not None
    assert not models[0].weights[2::CHANNELS].any()
    assert np.abs(models[0].weights).max() < 10
    assert seen_by(models, scene(np.random.default_rng(2))) > 0.9


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("level", [0.0, 1e3])
def test_a_fit_does_not_depend_on_the_level_of_features(level):
    tensors, gradients = scenes()
    models, _ = fit_of([tensor + level for tensor in tensors], gradients)
    assert models is not None
    assert seen_by(models, scene(np.random.default_rng(2)) + level) > 0.9


@pytest.mark.filterwarnings("error")
def test_inputs_without_finite_gradients_are_left_out():
    tensors, gradients = scenes(8)
    expected, _ = fit_of(tensors[1:], gradients[1:])
    gradients[0][0, 1, 2, 3] = torch.nan
    tensors[0] = tensors[3]
    models, _ = fit_of(tensors, gradients)
    np.testing.assert_allclose(models[0].weights, expected[0].weights, rtol=0.05, atol=0.01)
    for gradient in gradients[:4]:
        gradient[0, 0, 0, 0] = torch.inf
    models, said = fit_of(tensors, gradients)
    assert models is None
    assert said.startswith("too few inputs: 4, and 5 or more")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [0, 7])
@pytest.mark.parametrize("what", ["channel", "nothing to lose", "much to lose"])
def test_it_does_not_matter_which_input_is_odd(number, what):
    tensors, gradients = scenes()
    if what == "channel":
        tensors[number][2] = 0
    else:
        gradients[number] *= 0 if what == "nothing to lose" else 1e3
    models, _ = fit_of(tensors, gradients)
    assert models is not None
    assert (models[0].floor > 1e-4).all()
    assert seen_by(models, scene(np.random.default_rng(2))) > 0.9
    least, most = models[0].bounds
    assert 1 < most - least < 12


def test_a_tensor_in_which_errors_cost_more_is_predicted_to_matter_more():
    rng = np.random.default_rng(1)
    profile = Profile(profile_of_one().tensors * 2)
    fit = ImportanceFit(profile)
    tensors = [[scene(rng), scene(rng)] for _ in range(10)]
    for pair in tensors:
        fit.measure(pair, [gradients_of(pair[0], rng, 0.1), 10 * gradients_of(pair[1], rng, 0.1)])
    for pair in tensors:
        fit.add(pair)
    models, _ = fit.models()
    plain, dear = ImportancePredictor(models, profile)([scene(rng), scene(rng)])
    # a hundred times the sensitivity, 0.8 of which is believed
    assert np.log(dear.mean() / plain.mean()) == pytest.approx(0.8 * np.log(100), rel=0.1)


def test_nothing_is_predicted_that_was_not_seen():
    tensors, gradients = scenes()
    models, _ = fit_of(tensors, gradients)
    far = ImportancePredictor(models, profile_of_one())([tensors[0] * 1e4])[0]
    least, most = np.exp(models[0].bounds)
    assert least * 0.999 <= far.min() <= far.max() <= most * 1.001
    truths = [block_sensitivity(profile_of_one(), [one])[0] for one in gradients]
    spread = np.log(np.max(truths) / np.min(truths))
    assert 2 < np.log(most / least) < 0.5 * spread


def test_importance_is_predicted_where_it_was_never_seen():
    models, profile, rng = fitted(1.0), profile_of_one(), np.random.default_rng(2)
    assert models is not None
    tensor = scene(rng)
    (found,) = ImportancePredictor(models, profile)([tensor])
    (truth,) = block_sensitivity(profile, [gradients_of(tensor, rng, 1.0)])
    assert found.shape == truth.shape == (SIDE // BLOCK, SIDE // BLOCK)
    assert np.corrcoef(np.log(found).ravel(), np.log(truth).ravel())[0, 1] > 0.9


def test_what_hardly_differs_is_not_worth_offsets():
    tensors, gradients = scenes()
    noise = np.random.default_rng(0)
    models, said = fit_of(tensors, [gradients_of(tensor, noise, 0.0) for tensor in tensors])
    assert models is None
    assert re.fullmatch(r"nothing to gain: its logarithm deviates by 0\.\d\d, 0\.7 or .*", said)
    assert fit_of(tensors, gradients)[1].startswith("its logarithm deviates by ")


def test_what_is_in_the_way_is_told_before_anything_is_allocated():
    profile = profile_of_one()
    assert obstacle(profile, 4) == "too few inputs: 4, and 5 or more tell where errors cost"
    assert not obstacle(profile, 5)
    wide = SimpleNamespace(tensors=[SimpleNamespace(channels=channels) for channels in (999, 999)])
    assert obstacle(wide, 5).startswith("too large: the sums of all channels would take 1.1 GB")
    wide.tensors.pop()
    assert not obstacle(wide, 5)


def test_files_carry_importance_and_streams_do_not(tmp_path: Path):
    plain = profile_of_one()
    profile = replace(plain, importance=fitted(1.0))
    assert profile.hash == plain.hash
    assert profile.to_bytes() == plain.to_bytes()
    path = tmp_path / "profile.safetensors"
    profile.save(path)
    loaded = Profile.load(path)
    assert loaded == profile
    for mine, theirs in zip(loaded.importance, profile.importance, strict=True):
        np.testing.assert_array_equal(mine.weights, theirs.weights)
        np.testing.assert_array_equal(mine.floor, theirs.floor)
        assert mine.bias == theirs.bias
        assert mine.bounds == theirs.bounds


def stored(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a profile with importance."""
    replace(profile_of_one(), importance=fitted(1.0)).save(path)
    return load_file(path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("0.weights", np.zeros(5, np.float32), r"weights of shape \(5,\), expected 18 finite numb"),
        ("0.weights", np.full(18, 1e300), "0.weights of float64, expected finite numbers of f"),
        ("0.weights", np.ones(18, bool), "0.weights of bool, expected finite numbers"),
        ("0.floor", np.full(CHANNELS, np.nan, np.float32), "0.floor of float32, expected finite"),
        ("0.floor", np.zeros(CHANNELS, np.float32), "floor 0, expected numbers above 0"),
        ("0.floor", -np.ones(CHANNELS, np.float32), "floor -1, expected numbers above 0"),
        ("0.floor", np.ones(1, np.float32), r"weights of shape \(18,\), expected 6 finite numbers"),
        ("0.bias", None, "expected importance.0.bias with them"),
        ("0.bias", np.zeros(2), r"bias and bounds of shapes \(2,\)"),
        ("0.bounds", np.array([1.0, -1.0]), "bounds 1 and -1, expected two numbers in order"),
        ("0.bounds", np.array([-1e9, 1e9]), "in order within ±30"),
        ("7.weights", np.zeros(3, np.float32), "importance.7.weights, expected importance.1.wei"),
        ("note", np.zeros(3, np.float32), "importance.note, expected importance.1.weights"),
    ],
)
def test_importance_that_is_none_of_the_profile_is_refused(tmp_path: Path, name, value, message):
    path = tmp_path / "profile.safetensors"
    arrays = stored(path)
    arrays.pop(f"importance.{name}", None)
    if value is not None:
        arrays[f"importance.{name}"] = value
    save_file(arrays, path)
    with pytest.raises(UnsupportedBitstreamError, match=rf"not a profile: .*{message}"):
        Profile.load(path)


def test_importance_of_other_tensors_is_refused(tmp_path: Path):
    (model,) = fitted(1.0)
    message = r"importance: for tensors of \[3, 3\] channels, expected \[3\]"
    with pytest.raises(ValueError, match=message):
        replace(profile_of_one(), importance=(model, model))
    path = tmp_path / "profile.safetensors"
    arrays = stored(path)
    arrays |= {name.replace(".0.", ".1."): array for name, array in arrays.items()}
    save_file(arrays, path)
    with pytest.raises(UnsupportedBitstreamError, match=message):
        Profile.load(path)


def test_other_arrays_of_a_file_are_nobodys_importance(tmp_path: Path):
    path = tmp_path / "profile.safetensors"
    arrays = stored(path)
    del arrays["importance.0.bounds"]  # as in files of before
    save_file(arrays | {"note": np.zeros(3)}, path)
    assert Profile.load(path).importance[0].bounds == (-30, 30)
    save_file({"profile": arrays["profile"], "note": np.zeros(3)}, path)
    assert Profile.load(path).importance is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("weight", [-3e38, 3e38])
def test_predictions_stay_within_their_bounds(weight):
    weights = np.resize([weight, weight, -weight], 18).astype(np.float32)
    model = ImportanceModel(weights, 1e308, np.ones(CHANNELS, np.float32), (-1.0, 2.0))
    tensor = torch.randn(CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 8e6
    (found,) = ImportancePredictor((model,), profile_of_one())([tensor])
    assert np.exp(-1) <= found.min() <= found.max() <= np.exp(2)


def test_encoders_go_by_the_importance_of_their_profile():
    spec = TensorSpec("t", CHANNELS, SIDE, SIDE, 8, 8, 7, 7)
    profile = replace(profile_of_one(), importance=fitted(1.0))
    header = header_of((spec,), profile, size=(8 * SIDE, 8 * SIDE))
    tensor = scene(np.random.default_rng(3))
    encoded = Encoder(header, EncoderConfig(qp=30), profile=profile).encode([tensor])
    assert encoded.packet.has_offsets
    (decoded,) = Decoder(header).decode(encoded.packet).features
    assert torch.equal(decoded, encoded.features[0])
    everywhere_alike = EncoderConfig(qp=30, decisions=Decisions(importance=0))
    encoded = Encoder(header, everywhere_alike, profile=profile).encode([tensor])
    assert not encoded.packet.has_offsets


@settings(max_examples=25)
@given(tensor_specs(name="t"), st.integers(1, 5), st.tuples(*[st.integers(1, 90)] * 2), SEEDS)
def test_pixels_are_pooled_where_blocks_lie(spec, block_size, shape, seed):
    """Slice by slice, in half pixels, which are as fine as offsets are."""
    rng = np.random.default_rng(seed)
    profile = Profile((plausible_profile(rng, spec.channels, block_size),))
    pixels = np.exp2(rng.normal(size=shape))
    (found,) = pooled(pixels, [spec], profile)
    assert found.shape == profile.tensors[0].blocks(spec.height, spec.width)
    halves = pixels.repeat(2, 0).repeat(2, 1)

    def reach(block: int, samples: int, stride: int, offset2: int, length: int) -> slice:
        first, last = block * block_size, min((block + 1) * block_size, samples)
        begin, end = (offset2 + 1 + stride * (2 * edge - 1) for edge in (first, last))
        if end <= 0 or begin >= 2 * length:  # the nearest pixel
            begin, end = (0, 2) if end <= 0 else (2 * length - 2, 2 * length)
        return slice(max(begin, 0), min(end, 2 * length))

    for i, j in np.ndindex(found.shape):
        rows = reach(i, spec.height, spec.stride_y, spec.offset_y2, shape[0])
        columns = reach(j, spec.width, spec.stride_x, spec.offset_x2, shape[1])
        assert found[i, j] == pytest.approx(halves[rows, columns].mean())


def test_maps_multiply_what_is_predicted():
    spec = TensorSpec("t", CHANNELS, SIDE, SIDE, 8, 8, 7, 7)
    profile = replace(profile_of_one(), importance=fitted(1.0))
    header = header_of((spec,), profile, size=(8 * SIDE, 8 * SIDE))
    tensor = scene(np.random.default_rng(3))

    def offsets(given_here: np.ndarray | None) -> np.ndarray:
        maps = None if given_here is None else [given_here]
        encoder = Encoder(header, EncoderConfig(qp=30), profile=profile)
        return encoder.encode([tensor], importance=maps).symbols.tensors[0].offsets

    ones = np.ones((SIDE // BLOCK, SIDE // BLOCK))
    np.testing.assert_array_equal(offsets(ones), offsets(None))
    assert (offsets(ones * np.finfo(float).max) == -11).all()  # down to 0 from 21, of a key frame
    corner = ones.copy()
    corner[0, 0] = 2.0 ** (2 * 3 / 3)  # three offsets of 2 qp: twice the step
    difference = offsets(None) - offsets(corner)
    np.testing.assert_array_equal(difference, [3 if n == 0 else 0 for n in range(ones.size)])
