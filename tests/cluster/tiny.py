"""Tiny models of digits with random weights, and the run directory of one, without training."""

import torch

from cm_ray.core.diffusion import Diffusion
from cm_ray.networks.architectures import ADM
from cm_ray.networks.model import Model, ModelSpec, save_model
from cm_ray.recipes.recipe import Recipe
from cm_ray.recipes.sections import DataSettings, EvaluationSettings
from cm_ray.runs.directory import RunDirectory

DIFFUSION = Diffusion()
NETWORK = ADM(channels=8, channel_mult=(1, 2), blocks=1, norm_groups=4, head_channels=8)
DIGITS = tuple("0123456789")


def save_tiny(folder, *, network=NETWORK, diffusion=DIFFUSION, seed=0, **spec):
    """Write a model of 8x8 grey images, no weight of which is zero; return its folder."""
    spec = ModelSpec(
        **{"shape": (1, 8, 8), "class_names": DIGITS, **spec}, network=network, diffusion=diffusion
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = Model(spec).network.state_dict()
        weights = {name: torch.randn_like(tensor) * 0.2 for name, tensor in weights.items()}
    save_model(folder, spec, weights)
    return folder


def make_tiny_run(folder, *, data="digits", extractor="digits", **model):
    """Make the run directory of a tiny model, with what an evaluation reads of it."""
    run = RunDirectory(folder)
    run.root.mkdir(parents=True)
    run.claim(
        Recipe(
            data=DataSettings(path=data),
            network=model.get("network", NETWORK),
            evaluation=EvaluationSettings(extractor=extractor),
        )
    )
    save_tiny(run.model, **model)
    return run


def digits_shards():
    """Return the folder of the shards of the digits; they are made once. Needs a connection to a cluster."""
    from cm_ray.cluster.training.prepare import prepare_shards

    return prepare_shards(DataSettings(path="digits"))[0]
