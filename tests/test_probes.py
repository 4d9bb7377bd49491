"""Probes whose outer products are the sensitivity."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from codec.models.submodels import CloudSubmodel
from codec.profiling.probes import Criterion, probe_gradients
from codec.tasks.anything import Anything
from codec.tasks.classification import Classification


def cloud_of(function) -> CloudSubmodel:
    return CloudSubmodel(function, 1)


def outer_of_probes(
    cloud: CloudSubmodel, features: torch.Tensor, count: int, task: Criterion
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    (gradients,) = probe_gradients(cloud, [features], count, generator, task)
    flat = gradients.reshape(count, -1)
    return flat.t() @ flat / count


def test_probes_of_a_classifier_have_its_fisher_information():
    features = torch.tensor([0.5, -1.0, 0.2, 0.0]).reshape(4, 1, 1)
    found = outer_of_probes(cloud_of(lambda x: x.flatten(1)), features, 2000, Classification())
    p = torch.softmax(features.flatten(), 0)
    np.testing.assert_allclose(found, torch.diag(p) - torch.outer(p, p), atol=0.02)


def test_probes_of_dense_outputs_have_the_gauss_newton_matrix():
    matrix = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    features = torch.tensor([1.0, -2.0]).reshape(2, 1, 1)

    def cloud(x):
        dense = torch.einsum("ij,njhw->nihw", matrix, x)
        return {"out": dense, "aux": [10 * dense]}

    found = outer_of_probes(cloud_of(cloud), features, 2000, Anything())
    variance = (matrix @ features.flatten()).var(correction=0)
    # standardised, the second output is the first one again
    expected = 2 * matrix.t() @ matrix / (2 * variance)
    np.testing.assert_allclose(found, expected, rtol=0.1, atol=0.05)


class OnlyFirst:
    """A task to which the first of two outputs matters, by weights of its own."""

    loss, target = "cost", 0.1
    weights = torch.tensor([3.0, 0.5])

    def residuals(self, reference: object, outputs: object) -> list[torch.Tensor]:
        assert not reference[0].requires_grad
        return [(outputs[0] - reference[0]).flatten() * self.weights]

    def lost(self, reference: object, outputs: object) -> float:
        return 0.5 * float(self.residuals(reference, outputs)[0].square().sum())


def test_a_task_says_what_errors_cost():
    features = torch.tensor([1.0, -2.0]).reshape(2, 1, 1)
    found = outer_of_probes(cloud_of(lambda x: [x, x.flip(1) * 100]), features, 500, OnlyFirst())
    np.testing.assert_allclose(found, torch.diag(OnlyFirst.weights**2), atol=0.2)


class NothingFound(OnlyFirst):
    """A task that has found nothing in this frame."""

    def residuals(self, reference: object, outputs: object) -> list[torch.Tensor]:
        return [torch.zeros(0)]


def test_frames_in_which_nothing_counts_have_no_sensitivity():
    features = torch.tensor([1.0, -2.0]).reshape(2, 1, 1)
    assert not outer_of_probes(cloud_of(lambda x: [x, x]), features, 2, NothingFound()).any()


def test_a_module_is_a_cloud():
    torch.manual_seed(0)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 30))
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(5, 14, 14)]
    (gradients,) = probe_gradients(cloud_of(head), features, 3, generator, Classification())
    assert gradients.shape == (3, 5, 14, 14)
    assert not torch.equal(gradients[0], gradients[1])
