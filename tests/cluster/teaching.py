"""A teacher for tests of distillation, without training one."""

import torch

from cm_ray import recipes
from cm_ray.networks.model import Model, ModelSpec, save_model
from cm_ray.sampling.samplers import Heun
from cm_ray.settings.tree import override

NETWORK = {
    "network.channels": 8,
    "network.blocks": 1,
    "network.head_channels": 8,
    "network.norm_groups": 4,
}


def save_teacher(folder):
    """Write a diffusion model of digits with weights that are not zero anywhere; return its name."""
    config = override(recipes.edm_digits(), NETWORK)
    spec = ModelSpec(
        network=config.network,
        diffusion=config.diffusion,
        shape=(1, 8, 8),
        class_names=tuple("0123456789"),
        sampler=Heun(steps=18),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Model(spec)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    save_model(folder, spec, model.network.state_dict())
    return str(folder)
