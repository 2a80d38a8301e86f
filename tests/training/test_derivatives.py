"""Derivatives of real networks in forward mode: all families, dropout, recomputing, bfloat16, compiled."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cm_ray.core.derivative import Target, along
from cm_ray.core.diffusion import Diffusion
from cm_ray.core.precondition import Linear, TrigFlow
from cm_ray.networks.architectures import ADM, EDM2, DDPMpp, NCSNpp
from cm_ray.networks.model import Model, ModelSpec
from cm_ray.training import arithmetic
from tests.training.engines import batches, engine, run, shaken, small, weights

SIZES = {"channels": 8, "channel_mult": (1, 2), "blocks": 1, "norm_groups": 4, "attention_resolutions": (4,)}
NETWORKS = {
    "adm": ADM(**SIZES, head_channels=8),
    "adm, added time": ADM(**SIZES, head_channels=8, scale_shift=False, resample_blocks=False),
    "ddpm++": DDPMpp(**SIZES),
    "ncsn++": NCSNpp(**SIZES, fourier_scale=0.02),
    "edm2": EDM2(**{name: size for name, size in SIZES.items() if name != "norm_groups"}, head_channels=4),
}
TRIG = Diffusion(column=TrigFlow(), boundary="zero")


def model_of(network, diffusion=TRIG):
    """Return a model in float64, no weight of which is zero."""
    spec = ModelSpec(network=network, diffusion=diffusion, shape=(1, 8, 8), class_names=("a", "b"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = Model(spec)
        for name, parameter in model.named_parameters():
            torch.nn.init.normal_(parameter, std=1.0 if name.endswith(("gain", "freqs")) else 0.2)
    return model.double()


def point(dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    x, dx = (torch.randn(3, 1, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    t = torch.tensor([0.05, 0.8, 20.0], dtype=torch.float64)
    return tuple(each.to(dtype) for each in (x * (1 + t.view(-1, 1, 1, 1)), t, dx, t))


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_family_has_the_derivative_of_small_steps(name, conditional):
    model = model_of(replace(NETWORKS[name], conditional=conditional)).eval()
    labels = torch.tensor([0, 1, 1]) if conditional else None
    x, t, dx, dt = point()

    def f(x_t, t):
        return model(x_t, t, labels)

    value, slope = along(f, x, t, dx, dt)
    eps = 1e-5
    with torch.no_grad():
        ahead, behind = (f(x + e * dx, t + e * dt) for e in (eps, -eps))
        torch.testing.assert_close(value, f(x, t))
    torch.testing.assert_close(slope, (ahead - behind) / (2 * eps), rtol=1e-4, atol=1e-5)
    assert slope.abs().mean() > 0.01


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_family_of_two_times_has_the_derivative_of_small_steps_along_the_velocity(name, conditional):
    """The direction (v, 1, 0) of MeanFlow: the second time is fixed, and may be 0 or the first one."""
    two = Diffusion(column=Linear(), boundary="two-times")
    model = model_of(replace(NETWORKS[name], conditional=conditional), two).eval()
    labels = torch.tensor([0, 1, 1]) if conditional else None
    x, t, noise, _ = point()
    s = torch.tensor([0.05, 0.3, 0.0], dtype=torch.float64)
    target = Target(lambda x_t, t, s: model(x_t, t, labels, s))
    value, slope = target.ending(s).along(x, t, noise, torch.ones_like(t))
    eps = 1e-5
    with torch.no_grad():
        torch.testing.assert_close(value, model(x, t, labels, s))
        ahead, behind = (model(x + e * noise, t + e, labels, s) for e in (eps, -eps))
        assert (model(x, t, labels, t) - value)[1:].abs().mean() > 1e-3, "the second time matters"
    torch.testing.assert_close(slope, (ahead - behind) / (2 * eps), rtol=1e-4, atol=1e-5)
    assert slope.abs().mean() > 0.01


def test_recomputing_changes_no_derivative():
    model, twin = (
        model_of(replace(NETWORKS["adm"], gradient_checkpointing=each)).train() for each in (False, True)
    )
    found = [along(lambda x, t, f=f: f(x, t), *point())[1] for f in (model, twin)]
    torch.testing.assert_close(*found)


def test_the_derivative_has_the_mask_of_the_student():
    model = model_of(replace(NETWORKS["adm"], dropout=0.5)).train()
    x, t, dx, dt = point()

    def masked(x_t, t):
        torch.manual_seed(5)
        return model(x_t, t)

    value, slope = along(masked, x, t, dx, dt)
    eps = 1e-5
    with torch.no_grad():
        torch.testing.assert_close(value, masked(x, t))
        ahead, behind = (masked(x + e * dx, t + e * dt) for e in (eps, -eps))
    torch.testing.assert_close(slope, (ahead - behind) / (2 * eps), rtol=1e-4, atol=1e-5)


def test_float32_is_precise_enough_at_large_noise():
    """At t = 80 the terms of the derivative cancel to a hundredth of their size."""
    model = model_of(NETWORKS["adm"]).eval()
    x, t, noise, _ = point()
    t = torch.full_like(t, 80.0)
    x = x + 80 * noise
    exact = along(lambda x, t: model(x, t), x, t, 80 * noise, t)[1]
    model.float()
    rounded = along(lambda x, t: model(x, t), *(each.float() for each in (x, t, 80 * noise, t)))[1]
    assert (rounded - exact).norm() < 1e-3 * exact.norm()


def gradients(made):
    """Return the gradients of a step, and its loss."""
    loss = made.add_gradients(next(iter(batches(made))))
    return torch.cat([p.grad.flatten() for p in made.student.parameters()]), float(loss)


@pytest.mark.parametrize("method", ["sct", "scd", "continuous"])
def test_short_arithmetic_keeps_the_gradient(method):
    exact, _ = gradients(shaken(engine(small(method))))
    short, _ = gradients(shaken(engine(small(method, precision="bfloat16"))))
    assert (short - exact).norm() < 0.1 * exact.norm()
    other, _ = gradients(shaken(engine(small(method, seed=1, precision="bfloat16"))))
    assert (other - exact).norm() > 0.3 * exact.norm(), "another draw must be further away"


@pytest.mark.parametrize("change", ["dropout", "recomputed"])
def test_a_compiled_training_is_the_plain_one(change, monkeypatch):
    monkeypatch.setattr(arithmetic, "BACKEND", "eager")
    ends = []
    for compiled in (False, True):
        made = shaken(engine(small("scd", change, steps=2, compile=compiled)))
        run(made)
        ends.append(weights(made))
    torch.compiler.reset()
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["sct", "scd"])
def test_a_training_that_starts_at_the_exact_tangent_goes_on(method):
    made = shaken(engine(small(method, "conditional", steps=4)))
    stats = run(made)
    assert [round(one.gauges["tangent_share"], 2) for one in stats] == [0.0, 0.5, 1.0, 1.0]
    assert all(0 < float(one.loss) < 1 for one in stats)


def test_moving_images_are_convolved_twice():
    """PyTorch convolves a third time, by a tangent of the weights that is zero."""
    model = model_of(NETWORKS["adm"]).float().eval()
    x, t, dx, dt = point(torch.float32)
    with Counted() as plain, torch.no_grad():
        expected = model(x, t)
    with Counted() as moving:
        value, _ = along(lambda x_t, t: model(x_t, t), x, t, dx, dt)
    torch.testing.assert_close(value, expected)
    assert plain.convolutions > 20
    assert moving.convolutions == 2 * plain.convolutions


class Counted(TorchDispatchMode):
    """Counts the convolutions that PyTorch is asked for."""

    convolutions = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.convolutions += "convolution" in str(func)
        return func(*args, **(kwargs or {}))
