"""A training, its samples and edits make no tensor on a device of their own.

The tensors are PyTorch's fake ones, which compute shapes, types and devices alone. They lie on a device type
that the engine does not know, so that what is made on the CPU, and would fail on a GPU, fails here.
"""

import contextlib

import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)

from cm_ray.editing.model_edits import edited, interpolation_steps
from cm_ray.editing.tasks import plan_edit
from cm_ray.networks.model import to_uint8
from cm_ray.sampling.samplers import DPM2, Ancestral, Euler, Heun, Multistep, OneStep
from cm_ray.training import engine as engines
from tests.training.fake_device import DEVICE, a_batch, an_engine, extractor_of

pytestmark = pytest.mark.usefixtures("modules_move")


@pytest.mark.parametrize("change", ["paper", "edm", "cd", "pd", "conditional", "dropout"])
def test_a_step_stays_on_its_device(change, fake):
    with fake:
        made = an_engine(change)
        stats = made.one_step(a_batch())
    assert stats.loss.device.type == DEVICE.type
    for average in made.averages:
        assert {tensor.device.type for tensor in average} == {DEVICE.type}


@pytest.mark.parametrize("what", ["positions", "labels"])
def test_a_tensor_on_the_cpu_is_noticed(what, fake, monkeypatch):
    if what == "positions":
        draw_step = engines.draw_step
        monkeypatch.setattr(engines, "draw_step", lambda c, k, x, p: draw_step(c, k, x, p.cpu()))
    else:
        monkeypatch.setattr(engines, "to_device", lambda x, d: x.to(d) if x.dtype == torch.uint8 else x)
    with fake:
        made = an_engine("conditional")
        with pytest.raises(RuntimeError, match="device"):
            made.one_step(a_batch())


@pytest.mark.parametrize("change", ["paper", "edm", "cd", "dropout"])
def test_the_steady_state_waits_for_nothing(change, fake):
    """Fake tensors have no values: to read one, for which a GPU would be waited for, is an error."""
    with fake:
        made = an_engine(change)
        for _ in range(3):
            made.one_step(a_batch())


@pytest.mark.parametrize("waits", [lambda x: x.mean().item(), lambda x: x[x > 0], torch.nonzero, bool])
def test_a_wait_is_noticed(waits, fake, monkeypatch):
    draw_step = engines.draw_step
    with fake:
        made = an_engine("paper")
        made.one_step(a_batch())
        monkeypatch.setattr(engines, "draw_step", lambda *args: waited(draw_step(*args), waits))
        with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
            made.one_step(a_batch())


def waited(draw, waits):
    """Return the draw after something that a GPU would be waited for."""
    waits(draw.t.max() if waits is bool else draw.x_t)
    return draw


SAMPLERS = (
    *(OneStep(), Multistep((2.0, 0.8)), Euler(steps=3), Heun(steps=3, s_churn=10.0)),
    *(DPM2(steps=3), Ancestral(steps=3)),
)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samples_stay_on_their_device(sampler, fake, monkeypatch):
    with fake:
        model = an_engine("conditional").averaged_model()
    times = sampler.times(model.spec.diffusion)  # numbers, which fake tensors do not have
    monkeypatch.setattr(type(sampler), "times", lambda self, diffusion: times)
    monkeypatch.setattr("cm_ray.networks.model.finite", lambda images: images)  # fake pixels have no values
    with fake:
        indices = torch.arange(4, device=DEVICE)
        images = model.sample(indices, seed=0, sampler=sampler, labels=torch.zeros_like(indices))
        assert to_uint8(images).device.type == DEVICE.type


@pytest.mark.parametrize(
    ("task", "options"),
    [("inpaint", {}), ("upscale", {"factor": 2}), ("stroke", {}), ("denoise", {"sigma": 0.5})],
)
def test_edits_stay_on_their_device(task, options, fake):
    with fake:
        model = an_engine("conditional").averaged_model()
    steps = {"steps": 3} if task in ("inpaint", "upscale") else {}
    edit = plan_edit(task, model.spec.diffusion, model.spec.shape, **steps, **options)
    with fake:
        images = torch.zeros(2, 1, 8, 8, device=DEVICE)
        mask = torch.ones(2, 1, 8, 8, dtype=torch.bool, device=DEVICE) if task == "inpaint" else None
        indices = torch.arange(2, device=DEVICE)
        labels = torch.zeros_like(indices)
        results = edited(model, edit, images, indices=indices, seed=0, mask=mask, labels=labels)
        assert results.device.type == DEVICE.type


def test_interpolations_stay_on_their_device(fake):
    with fake:
        model = an_engine("paper").averaged_model()
        alpha, indices = torch.ones(2, device=DEVICE) / 2, torch.arange(2, device=DEVICE)
        for step in interpolation_steps(model, OneStep(), alpha, indices=indices, seeds=(0, 1)):
            assert step.x.device.type == DEVICE.type


@pytest.mark.parametrize("images_on", ["cpu", DEVICE])
@pytest.mark.parametrize(
    "name", ["digits", "cifar-resnet20", pytest.param("random-inception", marks=pytest.mark.exhaustive)]
)
def test_features_are_extracted_on_the_device_of_the_network(name, images_on, fake, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda device, enabled: contextlib.nullcontext())
    with fake:
        extractor, shape = extractor_of(name)
        images = torch.zeros(2, *shape, dtype=torch.uint8, device=images_on)
        features = extractor.features(images)
        assert features.device.type == DEVICE.type
        logits = extractor.logits_of(torch.zeros(2, extractor.dim))  # the driver has features on its CPU
        assert logits.device.type == DEVICE.type
