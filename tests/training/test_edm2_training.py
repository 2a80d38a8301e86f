"""EDM2's training: its published settings, forced normalisation in the engine, its digits in a few steps."""

import pytest
import torch

import cm_ray as cm
from cm_ray import recipes
from cm_ray.core.uncertainty import uncertain_loss
from cm_ray.networks.edm2 import EDM2UNet
from cm_ray.networks.magnitude import MPConv
from tests.training.engines import batches, engine, run, shaken, small


@pytest.mark.parametrize(
    ("size", "channels", "dropout", "rate", "mebi_images"),
    [
        ("", 192, 0.0, 0.01, 1024),
        ("m_", 256, 0.1, 0.009, 2048),
        ("l_", 320, 0.1, 0.008, 1024),
        ("xl_", 384, 0.1, 0.007, 640),
    ],
)
def test_the_recipes_have_the_published_settings(size, channels, dropout, rate, mebi_images):
    """Those of the presets edm2-img64-* of the public code."""
    recipe = recipes.named(f"edm2_{size}imagenet64")
    assert (recipe.network.channels, recipe.network.dropout) == (channels, dropout)
    assert recipe.steps * recipe.batch_size == mebi_images * 2**20
    assert recipe.batch_size == 2048
    optimizer = recipe.optimizer
    assert (optimizer.learning_rate, optimizer.inverse_sqrt_after, optimizer.beta2) == (rate, 35_000, 0.99)
    assert 0 < (optimizer.warmup_steps + 1) * 2048 - 10_000_000 < 2048
    assert (recipe.method.times.mean, recipe.method.times.std) == (-0.8, 1.6)
    assert recipe.averages.lengths == (0.05, 0.1)
    assert recipe.column.time_scale == 1


def magnitudes(network):
    sizes = [w.weight.detach().square().flatten(1).mean(1).sqrt() for w in network.modules() if made_of(w)]
    return torch.cat(sizes)


def made_of(layer):
    return isinstance(layer, MPConv)


def test_weights_are_normalised_before_a_step_and_averages_are_those_after_it(monkeypatch):
    """The gradient is taken at normalised weights; the averages take the optimizer's weights as they are."""
    fast = {"steps": 3, "optimizer.learning_rate": 0.1}
    made = shaken(engine(small("edm2", "adam", **fast)))
    seen = []
    forward = EDM2UNet.forward

    def watched(network, *inputs):
        seen.append(magnitudes(network))
        return forward(network, *inputs)

    monkeypatch.setattr(EDM2UNet, "forward", watched)
    run(made)
    for sizes in seen:
        torch.testing.assert_close(sizes, torch.ones_like(sizes), rtol=0, atol=1e-3)
    after = magnitudes(made.student.network)
    assert (after - 1).abs().max() > 1e-3, "the last step moved weights away from magnitude 1"
    made = engine(small("edm2", steps=1))
    run(made)
    for average in made.averages:  # of one step, which is the student
        for mean, parameter in zip(average, made.student.network.parameters(), strict=True):
            torch.testing.assert_close(mean, parameter.detach())


def test_the_loss_is_that_of_the_method_under_the_uncertainty():
    learned, plain = (engine(small("uncertain", uncertainty=each)) for each in ("learned", "none"))
    batch = next(batches(plain))
    seen = {}
    original = type(plain.method).loss

    def watched(self, student, aim, draw, distance):
        seen["losses"], seen["t"] = original(self, student, aim, draw, distance), draw.t
        return seen["losses"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(plain.method), "loss", watched)
        before = plain._loss(batch, 0, 8)
        found = learned._loss(batch, 0, 8)
    torch.testing.assert_close(before, seen["losses"].mean())
    u = learned.uncertainty.network(seen["t"])
    torch.testing.assert_close(found, uncertain_loss(seen["losses"], u).mean())
    assert {n.split("/")[0] for n in learned.checkpoint().tensors} - {
        n.split("/")[0] for n in plain.checkpoint().tensors
    } == {"uncertainty"}


def test_digits_train_and_sample(tmp_path):
    changes = {
        "batch_size": 8,
        "network.channels": 8,
        "network.head_channels": 8,
        "averages.snapshots": 0,
        "averages.candidates": (0.1,),
        "optimizer.warmup_steps": 1,
        "evaluation.extractor": "none",
        "evaluation.samplers": ("euler:2",),
        "evaluation.grid": 2,
        "checkpoint.every": 2,
        "tracking.uri": "none",
    }
    made = cm.train("edm2_digits", out=tmp_path / "run", steps=2, changes=changes, quiet=True)
    assert made.spec.network.family == "edm2"
    assert made.sample(3, seed=1, sampler="euler:2").shape == (3, 8, 8, 1)
