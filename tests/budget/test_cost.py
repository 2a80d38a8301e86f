"""The cost of a training is its passes through the network, counted."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cm_ray import recipes
from cm_ray.budget.cost import training_flops
from cm_ray.networks.model import Model, ModelSpec
from cm_ray.settings.tree import override


def spec(config):
    return ModelSpec(
        network=config.network, diffusion=config.diffusion, shape=(1, 8, 8), class_names=tuple("0123456789")
    )


def forward_flops(config):
    model = Model(spec(config)).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 1, 8, 8), torch.ones(1), torch.zeros(1, dtype=torch.int64))
    return counter.get_total_flops() * config.batch_size * config.steps


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("edm_digits", 3),  # a backward pass costs two forward ones
        ("ict_digits", 4),  # and the target's
        ("cd_digits", 6),  # and two of the teacher, by Heun
    ],
)
def test_a_step_costs_its_passes(name, passes):
    config = recipes.named(name)
    teacher = None
    if config.method.needs_teacher:
        denoiser = dataclasses.replace(config.diffusion, boundary="none")
        teacher = Model(dataclasses.replace(spec(config), diffusion=denoiser))
    cost = training_flops(config, spec(config), teacher)
    whole = passes * forward_flops(config)
    assert 0.97 * whole < cost <= whole, "the gradient of the first layer's input is not needed"


def test_cost_grows_with_images_and_steps_alone():
    config = recipes.ict_digits()
    cost = training_flops(config, spec(config))
    for changes in ({"batch_size": 256, "steps": 450}, {"accumulate": 4}, {"precision": "bfloat16"}):
        assert training_flops(override(config, changes), spec(config)) == cost
    assert training_flops(override(config, {"steps": 1800}), spec(config)) == 2 * cost
