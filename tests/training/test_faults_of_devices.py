"""A tensor on the CPU that a sampler, an edit, an extractor or a likelihood leaves there is noticed."""

import contextlib
import importlib
import itertools

import pytest
import torch

from cm_ray.core import ode
from cm_ray.core.likelihood import dequantised, log_density
from cm_ray.core.noise import Purpose, uniform
from cm_ray.editing.model_edits import edited, interpolation_steps
from cm_ray.editing.tasks import plan_edit
from cm_ray.evaluation.likelihood import LikelihoodRequest, _signs, rowwise
from cm_ray.sampling.samplers import Multistep, OneStep
from tests.training.fake_device import DEVICE, an_engine, extractor_of

pytestmark = pytest.mark.usefixtures("modules_move")


def on_the_cpu(monkeypatch, *names):
    """Plant a fault: what each of the named functions returns is on the CPU."""
    for name in names:
        module, _, function = name.rpartition(".")
        right = getattr(importlib.import_module(module), function)
        monkeypatch.setattr(name, lambda *args, right=right, **options: right(*args, **options).cpu())


@pytest.mark.parametrize("what", ["networks.model.normal", "sampling.sampling_steps.full", "labels"])
def test_a_sampler_with_a_tensor_on_the_cpu_is_noticed(what, fake, monkeypatch):
    sampler = Multistep((2.0, 0.8))
    with fake:
        model = an_engine("conditional").averaged_model()
    times = sampler.times(model.spec.diffusion)
    monkeypatch.setattr(Multistep, "times", lambda self, diffusion: times)
    monkeypatch.setattr("cm_ray.networks.model.finite", lambda images: images)
    if what != "labels":
        on_the_cpu(monkeypatch, f"cm_ray.{what}")
    with fake:
        indices = torch.arange(4, device=DEVICE)
        labels = torch.zeros(4, dtype=torch.int64, device="cpu" if what == "labels" else DEVICE)
        with pytest.raises(RuntimeError, match="device"):
            model.sample(indices, seed=0, sampler=sampler, labels=labels)


@pytest.mark.parametrize(
    ("task", "what"),
    [
        ("inpaint", "mask"),
        ("upscale", "replacement._first_of"),
        ("upscale", "model_edits.normal"),
        ("stroke", "replacement.full"),
        ("denoise", "model_edits.normal"),
    ],
)
def test_an_edit_with_a_tensor_on_the_cpu_is_noticed(task, what, fake, monkeypatch):
    with fake:
        model = an_engine("paper").averaged_model()
    options = {"upscale": {"factor": 2, "steps": 3}, "inpaint": {"steps": 3}, "denoise": {"sigma": 0.5}}
    edit = plan_edit(task, model.spec.diffusion, model.spec.shape, **options.get(task, {}))
    if what != "mask":
        on_the_cpu(monkeypatch, f"cm_ray.editing.{what}")
    with fake:
        images, indices = torch.zeros(2, 1, 8, 8, device=DEVICE), torch.arange(2, device=DEVICE)
        mask = torch.ones(2, 1, 8, 8, dtype=torch.bool) if what == "mask" else None
        with pytest.raises(RuntimeError, match="device"):
            edited(model, edit, images, indices=indices, seed=0, mask=mask)


@pytest.mark.parametrize("what", ["alpha", "cm_ray.editing.model_edits.normal"])
def test_an_interpolation_with_a_tensor_on_the_cpu_is_noticed(what, fake, monkeypatch):
    with fake:
        model = an_engine("paper").averaged_model()
    if what != "alpha":
        on_the_cpu(monkeypatch, what)
    with fake:
        alpha = torch.ones(2, device="cpu" if what == "alpha" else DEVICE) / 2
        steps = interpolation_steps(
            model, OneStep(), alpha, indices=torch.arange(2, device=DEVICE), seeds=(0, 1)
        )
        with pytest.raises(RuntimeError, match="device"):
            next(steps)


def one_try(velocity, state, start, end, tolerance=None):
    """Try one step of the solver, whose further course is up to numbers that fake tensors do not have."""
    attempt = ode._Attempts(velocity, state, start, end, tolerance or ode.Tolerance())
    return ode.Solution(attempt._stages(attempt.size)[0], attempt.evaluations)


@pytest.mark.parametrize("what", ["", "labels", "dequantisation"])
def test_likelihoods_stay_on_their_device(what, fake, monkeypatch):
    monkeypatch.setattr("cm_ray.core.likelihood.integrate", one_try)
    with fake:
        model = an_engine("edm", "conditional").averaged_model()
        places = torch.arange(2, device=DEVICE)
        pixels = torch.zeros(2, 1, 8, 8, dtype=torch.uint8, device=DEVICE)
        noise = uniform(0, 0, places, Purpose.DEQUANTISATION, (1, 8, 8))
        noise = noise.cpu() if what == "dequantisation" else noise
        labels = torch.zeros(2, dtype=torch.int64, device="cpu" if what == "labels" else DEVICE)
        probes = _signs(LikelihoodRequest(probes=1, seed=0), places, (1, 8, 8))
        noticed = pytest.raises(RuntimeError, match="device") if what else contextlib.nullcontext()
        with noticed:
            found = log_density(
                rowwise(model, labels), dequantised(pixels, noise), model.spec.diffusion, probes=probes
            )
            assert {each.device.type for each in found} == {DEVICE.type}


@pytest.mark.parametrize(
    ("name", "what"),
    [
        *itertools.product(("digits", "cifar-resnet20"), ("images", "features")),
        ("cifar-resnet20", "constants"),
    ],
)
def test_an_extractor_with_a_tensor_on_the_cpu_is_noticed(name, what, fake, monkeypatch):
    """images, features: they stay where they are given; constants: mean and deviation of the images do."""
    monkeypatch.setattr(torch, "autocast", lambda device, enabled: contextlib.nullcontext())
    with fake:
        extractor, shape = extractor_of(name)
    if what == "constants":
        make = torch.tensor
        monkeypatch.setattr(torch, "tensor", lambda values, device: make(values))
    else:
        move, pixels = torch.Tensor.to, what == "images"
        monkeypatch.setattr(
            torch.Tensor,
            "to",
            lambda x, *to, **how: (
                x if not how and (x.dtype == torch.uint8) == pixels else move(x, *to, **how)
            ),
        )
    compute = extractor.logits_of if what == "features" else extractor.features
    with fake:
        given = torch.zeros(2, *((extractor.dim,) if what == "features" else shape))
        given = given if what == "features" else given.byte()
        with pytest.raises(RuntimeError, match="device"):
            compute(given)
