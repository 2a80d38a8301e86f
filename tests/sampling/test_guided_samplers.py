"""Samplers with guidance: their texts, their cost, what they evaluate, and for which models they are."""

import dataclasses

import pytest
import torch

from cm_ray.core.diffusion import Diffusion
from cm_ray.errors import SettingError, UserError
from cm_ray.sampling.sampler import check_guidance
from cm_ray.sampling.samplers import Euler, Heun, Multistep, OneStep, Progressive, sample
from cm_ray.sampling.score_samplers import AdaptiveODE, PredictorCorrector
from cm_ray.sampling.text import file_name, parse, text_of
from tests.core.gaussian import Gaussian, Mixture, normals

DENOISER, CONSISTENCY = Diffusion(boundary="none"), Diffusion()
STUDENT = Diffusion(guidance=(0.0, 4.0))
CLASSES = Mixture()


class Model:
    """The exact denoiser of two classes, and of both together for the label -1; it counts its evaluations."""

    def __init__(self):
        self.diffusion, self.count = DENOISER, 0

    def __call__(self, x_t, t, labels):
        self.count += 1
        parts = [
            CLASSES.denoise(x_t, t),
            *(Gaussian(m, CLASSES.sigma).denoise(x_t, t) for m in CLASSES.means),
        ]
        return torch.stack(parts)[labels + 1, torch.arange(len(labels))]


def drawn(sampler, labels=(0, 1, 1), **options):
    f = Model()
    torch.manual_seed(0)
    return sample(f, normals(0, 3, 1, 2, 2), sampler, torch.tensor(labels), **options), f.count


@pytest.mark.parametrize(
    ("text", "sampler", "nfe"),
    [
        ("heun:18,guidance=2", Heun(guidance=2.0), 70),
        ("heun:4,guidance=1.5,s_churn=40", Heun(4, s_churn=40.0, guidance=1.5), 14),
        ("euler:4,guidance=0", Euler(4, guidance=0.0), 8),
        ("euler:4,guidance=2,weak=0123abc", Euler(4, guidance=2.0, weak="0123abc"), 8),
        ("pc:10,guidance=3,sde=vp", PredictorCorrector(10, "vp", guidance=3.0), 40),
        ("ode,guidance=3", AdaptiveODE(guidance=3.0), 0),
        ("pd:4,guidance=3", Progressive(4, guidance=3.0), 4),
        ("one-step,guidance=3", OneStep(guidance=3.0), 1),
        ("multistep@2.0,0.8,guidance=3", Multistep((2.0, 0.8), guidance=3.0), 3),
    ],
)
def test_texts_and_costs(text, sampler, nfe):
    assert parse(text, DENOISER if sampler.for_denoisers else STUDENT) == sampler
    assert text_of(sampler) == text
    assert sampler.nfe == nfe


def test_a_scale_of_one_is_not_written():
    assert parse("heun:18,guidance=1", DENOISER) == Heun()
    assert parse("own,guidance=2", DENOISER, own=Euler(3)) == Euler(3, guidance=2.0)
    assert file_name(Heun(guidance=2.5)) == "heun-18-guidance=2.5"
    for wrong in (-1.0, float("nan")):
        with pytest.raises(SettingError, match="guidance must be finite and not negative"):
            Heun(guidance=wrong)
    with pytest.raises(UserError, match="guidance must be finite"):
        parse("euler:4,guidance=-1", DENOISER)


@pytest.mark.parametrize("sampler", [Heun(3), Euler(4), PredictorCorrector(3), Heun(3, s_churn=10.0)])
def test_samples_are_those_of_the_guided_denoiser(sampler):
    """A scale of 0 is the model without a class, to the bit, and evaluations are counted as the key says."""
    plain, count = drawn(sampler)
    null, _ = drawn(sampler, (-1, -1, -1))
    assert count == sampler.nfe
    zero, twice = drawn(dataclasses.replace(sampler, guidance=0.0))
    assert torch.equal(zero, null)
    assert twice == dataclasses.replace(sampler, guidance=0.0).nfe == 2 * count
    assert torch.equal(drawn(dataclasses.replace(sampler, guidance=1.0))[0], plain)
    assert not torch.equal(drawn(dataclasses.replace(sampler, guidance=2.0))[0], plain)


def test_autoguidance_goes_away_from_the_weaker_model():
    """D_weak + w (D - D_weak), of a weaker model that blurs the data."""

    def weak(x_t, t, labels):
        return Gaussian(0.0, 0.9).denoise(x_t, t)

    found, count = drawn(Euler(5, guidance=2.0), weak=weak)

    class Wanted(Model):
        def __call__(self, x_t, t, labels):
            return 2 * super().__call__(x_t, t, labels) - weak(x_t, t, labels)

    wanted = sample(Wanted(), normals(0, 3, 1, 2, 2), Euler(5), torch.tensor([0, 1, 1]))
    torch.testing.assert_close(found, wanted)
    assert count == 5


def test_the_scale_is_an_input_of_students():
    seen = []

    def f(x_t, t, labels, scale=None):
        seen.append(scale)
        return x_t / (1 + t.view(-1, 1, 1, 1))

    f.diffusion = STUDENT
    sample(f, normals(0, 3, 1, 2, 2), Multistep((1.0,), guidance=2.5), torch.tensor([0, 1, 1]))
    assert [each.tolist() for each in seen] == [[2.5] * 3] * 2
    sample(f, normals(0, 3, 1, 2, 2), OneStep(), torch.tensor([0, 1, 1]))
    assert seen[-1] is None


@pytest.mark.parametrize(
    ("sampler", "diffusion", "sentence"),
    [
        (Heun(guidance=2.0), DENOISER, "needs a model with classes that can do without them"),
        (OneStep(guidance=2.0), CONSISTENCY, "is for diffusion models, and for students"),
        (Progressive(4, guidance=2.0), DENOISER, "is for diffusion models, and for students"),
        (OneStep(guidance=5.0), STUDENT, "guidance scales from 0 to 4 as an input"),
        (Heun(guidance=2.0), dataclasses.replace(STUDENT, boundary="none"), "as an input; sample it by pd:4"),
        (Heun(weak="ab"), DENOISER, "guides by a scale other than 1"),
    ],
)
def test_models_that_cannot_be_guided(sampler, diffusion, sentence):
    with pytest.raises(UserError, match=sentence):
        check_guidance(sampler, diffusion, null_class=False)


def test_models_that_can():
    for sampler, diffusion, null in [
        (Heun(guidance=2.0), DENOISER, True),
        (Heun(guidance=2.0, weak="ab"), DENOISER, False),
        (OneStep(guidance=4.0), STUDENT, False),
        (Heun(), DENOISER, False),
    ]:
        assert check_guidance(sampler, diffusion, null_class=null) is sampler


def test_a_named_weaker_model_must_be_given():
    with pytest.raises(UserError, match="guided by the model 0123"):
        drawn(Heun(2, guidance=2.0, weak="0123"))
