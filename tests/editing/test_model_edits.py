"""Editing through a real network: what is kept is kept, and image i is the same in whatever batch."""

import dataclasses

import pytest
import torch

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.noise import Purpose, normal
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.editing.model_edits import edit_steps, edited, interpolation_steps, shown_before
from cm_ray.editing.replacement import luminance, patch_means
from cm_ray.editing.tasks import Edit, plan_edit
from cm_ray.errors import UserError
from cm_ray.networks.model import Model, ModelSpec, from_uint8, to_uint8
from cm_ray.sampling.samplers import Heun, Multistep
from tests.networks.test_unet import TINY, trained_like

GREY = ModelSpec(network=TINY, diffusion=Diffusion(), shape=(1, 8, 8), time_points=((2.0,),))
COLOUR = dataclasses.replace(GREY, shape=(3, 16, 16))
LABELLED = dataclasses.replace(
    COLOUR, network=dataclasses.replace(TINY, conditional=True), class_names=("a", "b", "c")
)
DENOISER = dataclasses.replace(
    LABELLED, diffusion=Diffusion(boundary="none"), sampler=Heun(steps=3), time_points=()
)
INDICES = torch.arange(6)


def model(spec):
    torch.manual_seed(0)
    made = Model(spec)
    trained_like(made.network)
    return made


def images(spec, count=6):
    generator = torch.Generator().manual_seed(5)
    return from_uint8(torch.randint(0, 256, (count, *spec.shape), generator=generator, dtype=torch.uint8))


def half(spec, count=6):
    mask = torch.zeros(count, 1, *spec.shape[1:], dtype=torch.bool)
    mask[..., : spec.shape[2] // 2] = True
    return mask


def plan(task, spec, **settings):
    return plan_edit(task, spec.diffusion, spec.shape, **settings)


@pytest.mark.parametrize("spec", [GREY, COLOUR, LABELLED])
def test_what_is_known_is_kept(spec):
    made, y, mask = model(spec), images(spec), half(spec)
    result = edited(made, plan("inpaint", spec, steps=3), y, indices=INDICES, seed=0, mask=mask)
    kept = mask.expand_as(y)
    assert torch.equal(to_uint8(result)[kept], to_uint8(y)[kept])
    assert torch.equal(result[kept], y[kept])
    assert not torch.allclose(result[~kept], y[~kept], atol=0.1)
    result = edited(made, plan("upscale", spec, factor=4, steps=3), y, indices=INDICES, seed=0)
    torch.testing.assert_close(patch_means(result, 4), patch_means(y, 4), rtol=0, atol=1e-5)
    if spec.shape[0] == 3:
        result = edited(made, plan("colorize", spec, steps=3), y, indices=INDICES, seed=0)
        torch.testing.assert_close(luminance(result), luminance(y), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("inpaint", {"steps": 3}),
        ("colorize", {"steps": 3}),
        ("upscale", {"steps": 3}),
        ("stroke", {}),
        ("denoise", {"sigma": 0.5}),
    ],
)
def test_image_i_of_a_seed_is_edited_the_same_in_whatever_batch(task, settings):
    made, y, mask, edit = model(LABELLED), images(LABELLED), half(LABELLED), plan(task, LABELLED, **settings)
    masks = {"mask": mask} if task == "inpaint" else {}
    whole = edited(made, edit, y, indices=INDICES, seed=3, **masks)
    few = torch.tensor([4, 1])
    masks = {"mask": mask[few]} if masks else {}
    again = edited(made, edit, y[few], indices=few, seed=3, **masks)
    torch.testing.assert_close(whole[few], again, rtol=1e-3, atol=1e-4)
    steps = list(edit_steps(made, edit, y[few], indices=few, seed=3, **masks))
    assert len(steps) == len(edit.times) - 1
    assert torch.equal(steps[-1].x, again)
    other = edited(made, edit, y[few], indices=few, seed=4, labels=made.sample_labels(few, 3), **masks)
    assert torch.allclose(other, again) == (task == "denoise"), "denoising draws nothing"


@pytest.mark.parametrize("task", ["inpaint", "colorize", "upscale"])
def test_a_diffusion_model_keeps_what_is_known_and_image_i_is_the_same_in_whatever_batch(task):
    made, y, mask = model(DENOISER), images(DENOISER), half(DENOISER)
    edit, few = plan(task, DENOISER, sampler="pc:3"), torch.tensor([4, 1])
    masks = {"mask": mask} if task == "inpaint" else {}
    whole = edited(made, edit, y, indices=INDICES, seed=3, **masks)
    parts = {"inpaint": lambda x: x * mask, "colorize": luminance, "upscale": lambda x: patch_means(x, 2)}
    kept = parts[task]
    torch.testing.assert_close(kept(whole), kept(y), rtol=0, atol=1e-5)
    assert not torch.allclose(whole, y, atol=0.1)
    masks = {"mask": mask[few]} if masks else {}
    steps = list(edit_steps(made, edit, y[few], indices=few, seed=3, **masks))
    assert len(steps) == len(edit.times) - 1 == 3
    torch.testing.assert_close(whole[few], steps[-1].x, rtol=1e-3, atol=1e-4)


def test_nothing_kept_is_a_sample():
    made = model(GREY)
    nothing = torch.zeros(6, 1, 8, 8, dtype=torch.bool)
    edit = plan("inpaint", GREY, taus=(80.0, 2.0))
    made_anew = edited(made, edit, images(GREY), indices=INDICES, seed=3, mask=nothing)
    sampler = Multistep((2.0,))
    with torch.no_grad():
        noise = lambda draw: normal(3, draw, INDICES, Purpose.EDIT, GREY.shape)  # noqa: E731
        *_, sampled = sampler.trajectory(made, noise, GREY.diffusion)
    torch.testing.assert_close(made_anew, sampled.x, rtol=1e-4, atol=1e-5)


def test_the_noise_that_made_a_sample_does_not_edit_it():
    """Else editing a sample with its own seed would make it again, whatever the mask."""
    made, sampler, nothing = model(GREY), GREY.sampler, torch.zeros(6, 1, 8, 8, dtype=torch.bool)
    sample = made.sample(INDICES, seed=0, sampler=sampler)
    edit = plan("inpaint", GREY, taus=(80.0,))
    result = edited(made, edit, sample, indices=INDICES, seed=0, mask=nothing)
    assert (result - sample).flatten(1).norm(dim=1).min() > 0.5


def test_denoising_is_the_models_answer():
    made, y = model(GREY), images(GREY)
    answer = edited(made, plan("denoise", GREY, sigma=0.5), y, indices=INDICES, seed=0)
    with torch.no_grad():
        assert torch.equal(answer, made(y, torch.full((6,), 0.5)).clamp(-1, 1))


@pytest.mark.parametrize("text", ["one-step", "multistep:3", "heun:3"])
def test_interpolation_ends_in_the_samples_of_both_seeds(text):
    spec = DENOISER if text == "heun:3" else LABELLED
    made, sampler, labels = model(spec), sampler_of(spec, text), torch.full((6,), 1)
    alpha = torch.tensor([0.0, 0, 0.5, 0.5, 1, 1])
    indices = torch.tensor([7, 9, 7, 9, 7, 9])
    *_, last = interpolation_steps(made, sampler, alpha, indices=indices, seeds=(3, 8), labels=labels)
    for seed, rows in ((3, slice(0, 2)), (8, slice(4, 6))):
        ends = made.sample(indices, seed=seed, sampler=sampler, labels=labels)[rows]
        assert torch.equal(last.x[rows], ends)
    assert not torch.allclose(last.x[2], last.x[0], atol=0.01)
    with pytest.raises(UserError, match="needs a class; give a label"):
        next(interpolation_steps(made, sampler, alpha, indices=indices, seeds=(3, 8)))


def test_what_is_shown_before():
    y, mask = images(COLOUR), half(COLOUR)
    before = shown_before(Edit(task="inpaint", times=(0.002, 80.0)), y, mask)
    assert torch.equal(before, torch.where(mask, y, torch.zeros(())))
    grey = shown_before(Edit(task="colorize", times=(0.002, 80.0)), y)
    assert torch.equal(grey[:, 0], grey[:, 2])
    torch.testing.assert_close(grey[:, :1], luminance(y))
    assert torch.equal(shown_before(Edit(task="stroke", times=(0.002, 5.0)), y), y)


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="needs a mask"):
        edited(model(GREY), plan("inpaint", GREY), images(GREY), indices=INDICES, seed=0)
