"""The number of evaluations of a sample, counted where the sampler does not fix it."""

from dataclasses import replace

import pytest
import torch

from cm_ray.core.diffusion import Diffusion
from cm_ray.drawing.requests import Request
from cm_ray.evaluation.evaluations import mean_evaluations
from cm_ray.networks.model import Model
from cm_ray.sampling.samplers import Heun
from cm_ray.sampling.score_samplers import AdaptiveODE
from tests.tracking.tracked_runs import tiny_spec


@pytest.fixture(scope="module")
def model():
    return Model(replace(tiny_spec(), diffusion=Diffusion(boundary="none"))).eval()


def passes(model, request):
    """Count the passes of the network itself."""
    found = []
    handle = model.network.register_forward_hook(lambda *given: found.append(given))
    try:
        model.sample(torch.arange(request.count), seed=request.seed, sampler=request.sampler)
    finally:
        handle.remove()
    return len(found)


def test_a_fixed_number_is_the_samplers(model):
    request = Request(count=3, seed=0, sampler=Heun(steps=4))
    assert mean_evaluations(model, request) == 7 == passes(model, request)


def test_an_adaptive_sampler_is_counted_on_the_first_samples_alone(model):
    request = Request(count=50, seed=0, sampler=AdaptiveODE(rtol=1e-2, atol=1e-2))
    few = replace(request, count=4)
    assert mean_evaluations(model, request, 4) == passes(model, few) > 1
    assert not model.network._forward_pre_hooks, "nothing is left behind"
