"""The engine's step is that of the plain program that it is measured against, and of its parts."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from cm_ray import recipes
from cm_ray.core.noise import Purpose, normal, uniform
from cm_ray.networks.model import ModelSpec, from_uint8
from cm_ray.settings.tree import override
from cm_ray.training.batch import Batch
from cm_ray.training.engine import Engine

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHAPE, ROWS = (3, 16, 16), 4


@pytest.fixture(scope="module")
def plain_step():
    spec = importlib.util.spec_from_file_location("plain_step", BENCHMARKS / "plain_step.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["plain_step"] = module  # where dataclasses look for their module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["plain_step"]


def engine(**changes):
    config = override(
        recipes.ct_imagenet64(),
        {
            "steps": 100,
            "batch_size": ROWS,
            "precision": "float32",
            "averages.decays": (0.5, 0.9, 0.99),
            "augmentation": "none",
            "network.channels": 32,
            "network.channel_mult": (1, 2),
            "network.blocks": 1,
            "network.attention_resolutions": (8,),
            "network.head_channels": 0,
            "network.conditional": False,
            "times.scales.s1": 20,
            "distance": "l2",
            "optimizer.learning_rate": 3e-4,
        }
        | changes,
    )
    return Engine(config, ModelSpec(network=config.network, diffusion=config.diffusion, shape=SHAPE))


def shaken(made):
    """Leave the zero initialisation: every path counts from the first step on."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in made.student.parameters():
            parameter += 0.03 * torch.randn(parameter.shape, generator=generator)
    made.target.load_state_dict(made.student.state_dict())
    made.averages = made._fresh_averages()
    return made


def plain_training(plain_step, made, dtype=None):
    """The plain program with the engine's weights: attention's are of one dimension more in the engine."""
    network = plain_step.PlainUNet(3, 16, 32, (1, 2), 1, (8,))
    wanted = network.state_dict()
    weights = made.student.network.state_dict()
    assert wanted.keys() == weights.keys()
    network.load_state_dict({name: weights[name].reshape(wanted[name].shape) for name in wanted})
    config = made.config
    return plain_step.PlainTraining(network, config.optimizer.learning_rate, config.averages.decays, dtype)


def batches(steps):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        images = torch.randint(0, 256, (ROWS, *SHAPE), generator=generator, dtype=torch.uint8)
        yield Batch(images, torch.zeros(ROWS, dtype=torch.int64))


def both(plain_step, made, plain, batch):
    """Take a step of each on the same images, noise and times; return the losses."""
    step, positions = made.step, torch.arange(ROWS)
    config = made.config
    draws = uniform(config.seed, step, positions, Purpose.TIMES, (1,))[:, 0]
    t, s = config.method.times(draws, step, config.steps, config.noise)
    draw = plain_step.Draw(normal(config.seed, step, positions, Purpose.NOISE, SHAPE), t, s)
    theirs = plain.one_step(from_uint8(batch.images), draw, config.method.target_decay(step, config.steps))
    return float(made.one_step(batch).loss), float(theirs)


def test_losses_and_averages_are_the_plain_programs(plain_step):
    """Sixteen steps in float32: the orders of summation differ, and what they round grows with the steps."""
    made = shaken(engine())
    plain = plain_training(plain_step, made)
    losses = [both(plain_step, made, plain, batch) for batch in batches(16)]
    for ours, theirs in losses[:3]:
        assert ours == pytest.approx(theirs, rel=1e-5)
    for ours, theirs in losses:
        assert ours == pytest.approx(theirs, rel=1e-3)
    assert losses[0][0] > 1.5 * losses[-1][0], "it learns"
    for ours, theirs in zip(
        [list(made.target.network.parameters()), *made.averages],
        [list(plain.target.parameters()), *plain.averages],
        strict=True,
    ):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a.flatten(), b.flatten(), rtol=1e-3, atol=2e-4)


def test_bfloat16_losses_are_the_plain_programs(plain_step):
    """A few steps, to the 2^-8 that bfloat16 rounds to: times and noise decide most of a loss."""
    made = shaken(engine(precision="bfloat16"))
    plain = plain_training(plain_step, made, torch.bfloat16)
    for batch in batches(4):
        ours, theirs = both(plain_step, made, plain, batch)
        assert ours == pytest.approx(theirs, rel=0.03)
