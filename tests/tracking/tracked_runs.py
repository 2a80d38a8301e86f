"""The tests of tracking share these: scores, tiny models, rows of a log."""

import socket
from dataclasses import replace

import torch

from cm_ray.core.diffusion import Diffusion
from cm_ray.metrics.score import Score, score_key
from cm_ray.networks.architectures import ADM
from cm_ray.networks.model import Model, ModelSpec


class FakeExtractor:
    name, dim, weights_sha256, preprocess = "digits", 64, "ab" * 32, "none"


def score(value, **changes):
    settings = {
        "n": 1797,
        "seed": 0,
        "reference": "cd" * 32,
        "labels": "data",
        "sampler": "one-step",
        "nfe": 1,
        "precision": "float32",
    } | changes
    return Score(value=value, key=score_key(FakeExtractor(), **settings))


def tiny_spec(*, conditional=False):
    network = ADM(
        channels=8,
        norm_groups=4,
        head_channels=8,
        channel_mult=(1,),
        blocks=1,
        attention_resolutions=(),
        conditional=conditional,
    )
    names = ("a", "b", "c") if conditional else ()
    return ModelSpec(
        network=network,
        diffusion=Diffusion(),
        shape=(1, 8, 8),
        class_names=names,
        time_points=((0.8,),),
    )


def tiny_model(seed=0, *, conditional=False):
    """Random weights, also where training starts from zero, so that noise and labels matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Model(tiny_spec(conditional=conditional)).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def log(run, step, **more):
    run.append_metrics({"step": step, "loss": 1 / (step + 1), "num_scales": 10, "seconds": step / 4, **more})


def with_tracking(run, **changes):
    """Let a run be tracked elsewhere."""
    config = run.config()
    run.claim(replace(config, tracking=replace(config.tracking, **changes)))


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
