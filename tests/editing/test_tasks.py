"""Tasks of editing: their times, and what no model can do."""

import pytest

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.times import karras_times
from cm_ray.editing.tasks import factors, plan_edit, supported_tasks
from cm_ray.errors import UserError, as_options
from cm_ray.sampling.score_samplers import Langevin, PredictorCorrector

CONSISTENCY, DENOISER = Diffusion(), Diffusion(boundary="none")
GREY, COLOUR = (1, 8, 8), (3, 32, 48)


@pytest.mark.parametrize("task", ["inpaint", "colorize", "upscale"])
def test_the_default_is_a_karras_grid_of_40(task):
    assert plan_edit(task, CONSISTENCY, COLOUR).times == tuple(karras_times(40).tolist())
    assert plan_edit(task, CONSISTENCY, COLOUR, steps=5).times == tuple(karras_times(6).tolist())
    assert plan_edit(task, CONSISTENCY, COLOUR, taus=(80.0, 3.0)).times == (0.002, 3.0, 80.0)


def test_strokes_start_at_the_papers_times():
    assert plan_edit("stroke", CONSISTENCY, COLOUR).times == (0.002, 2.24, 5.38)
    assert plan_edit("stroke", CONSISTENCY, COLOUR, taus=(1.0,)).times == (0.002, 1.0)


def test_denoising_is_one_evaluation_and_diffusion_models_can_do_it():
    for diffusion in (CONSISTENCY, DENOISER):
        assert plan_edit("denoise", diffusion, GREY, sigma=0.5).times == (0.002, 0.5)


def test_factors_divide_height_and_width():
    assert plan_edit("upscale", CONSISTENCY, COLOUR).factor == 2
    assert plan_edit("upscale", CONSISTENCY, COLOUR, factor=16).factor == 16
    assert factors(COLOUR) == [2, 4, 8, 16]
    assert factors(GREY) == [2, 4, 8]
    assert factors((1, 7, 8)) == []


@pytest.mark.parametrize(
    ("task", "settings", "sentence"),
    [
        (
            "upscale",
            {"factor": 3},
            "A factor of 3 does not divide images of 48x32 pixels; give one of 2, 4, 8, 16",
        ),
        ("upscale", {"factor": -2}, "A factor of -2 does not divide"),
        ("inpaint", {"factor": 2}, "is for upscale, not for inpaint"),
        ("inpaint", {"sigma": 2.0}, "is for denoise, not for inpaint"),
        ("inpaint", {"steps": -1}, "Give 1 to 1000 steps"),
        ("inpaint", {"steps": 1001}, "Give 1 to 1000 steps"),
        ("inpaint", {"steps": 2, "taus": (1.0,)}, "steps and taus exclude each other"),
        ("inpaint", {"taus": (80.1,)}, "must be above 0.002 and at most 80, not 80.1"),
        ("inpaint", {"taus": (1.0, 2.0)}, "taus must descend"),
        ("inpaint", {"taus": (1.0, 0.002)}, "taus must descend and stay above 0.002"),
        ("inpaint", {"taus": (float("nan"),)}, "must be above 0.002"),
        ("inpaint", {"taus": (1.0, float("nan"))}, "taus must descend"),
        ("stroke", {"steps": 3}, "stroke takes taus in place of steps"),
        ("denoise", {}, "denoise asks for the noise of the images; give its sigma, as 0.5"),
        ("denoise", {"sigma": 0.001}, "sigma must be above 0.002 and at most 80, not 0.001"),
        ("denoise", {"sigma": 81.0}, "at most 80, not 81"),
        ("denoise", {"sigma": 1.0, "steps": 2}, "denoise is one evaluation"),
    ],
)
def test_settings_that_mean_nothing(task, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        plan_edit(task, CONSISTENCY, COLOUR, **settings)


def test_models_that_cannot():
    with pytest.raises(UserError, match="colorize is for models of colour images"):
        plan_edit("colorize", CONSISTENCY, GREY)
    with pytest.raises(UserError, match="stroke is for consistency models, and this is a diffusion model"):
        plan_edit("stroke", DENOISER, GREY)
    with pytest.raises(UserError, match="taus are for consistency models"):
        plan_edit("inpaint", DENOISER, GREY, taus=(1.0,))
    with pytest.raises(UserError, match="8x7 pixels; no factor does"):
        plan_edit("upscale", CONSISTENCY, (1, 7, 8))


def test_diffusion_models_edit_by_samplers_of_scores():
    for settings, sampler in (
        ({}, PredictorCorrector(100)),
        ({"steps": 40}, PredictorCorrector(20)),
        ({"steps": 2}, PredictorCorrector(2)),
        ({"sampler": "pc:5,sde=vp,snr=0.1"}, PredictorCorrector(5, sde="vp", snr=0.1)),
        ({"sampler": Langevin(6, repeats=2)}, Langevin(6, repeats=2)),
    ):
        edit = plan_edit("upscale", DENOISER, COLOUR, factor=4, **settings)
        assert (edit.sampler, edit.times, edit.factor) == (sampler, sampler.times(DENOISER), 4)
        assert edit.nfe == sampler.nfe
    assert plan_edit("inpaint", CONSISTENCY, COLOUR, steps=5).nfe == 5
    assert supported_tasks(DENOISER, COLOUR) == ["inpaint", "colorize", "upscale", "denoise"]
    assert supported_tasks(DENOISER, (1, 7, 8)) == ["inpaint", "denoise"]


@pytest.mark.parametrize(
    ("task", "diffusion", "settings", "sentence"),
    [
        ("inpaint", CONSISTENCY, {"sampler": "pc:5"}, "sampler edits by diffusion models, and not denoise"),
        ("denoise", DENOISER, {"sampler": "pc:5", "sigma": 1.0}, "sampler edits by diffusion models"),
        ("inpaint", DENOISER, {"sampler": "heun:5"}, "heun:5 cannot put back what is known; give pc:100"),
        ("inpaint", DENOISER, {"sampler": "ode"}, "ode cannot put back what is known"),
        ("inpaint", DENOISER, {"sampler": "pc:5", "steps": 5}, "sampler and steps exclude each other"),
        ("inpaint", DENOISER, {"steps": 1}, "Each step of a diffusion model is two evaluations"),
    ],
)
def test_samplers_that_cannot_edit(task, diffusion, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        plan_edit(task, diffusion, COLOUR, **settings)


def test_a_command_names_its_options():
    """The number of evaluations is `steps` in Python and an option of another name on the command line."""
    with as_options(lambda: {"nfe", "taus", "sigma"}):
        with pytest.raises(UserError) as refused:
            plan_edit("denoise", CONSISTENCY, GREY)
        assert str(refused.value) == "denoise asks for the noise of the images; give its --sigma, as 0.5."
        with pytest.raises(UserError) as refused:
            plan_edit("inpaint", CONSISTENCY, GREY, steps=2, taus=(1.0,))
        assert str(refused.value) == "--nfe and --taus exclude each other; give one of them."
