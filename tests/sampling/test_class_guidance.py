"""Guidance by a classifier of noisy images: on mixtures in closed form, and by networks."""

import dataclasses

import pytest
import torch

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.guidance import towards_class
from cm_ray.drawing.autoguidance import guide_by_classifier
from cm_ray.drawing.model_labels import label_draw
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.drawing.requests import Request, sample_all
from cm_ray.errors import SettingError, UserError
from cm_ray.networks.model import Model, ModelSpec, from_uint8
from cm_ray.networks.noise_classifier import (
    ClassifierSpec,
    NoiseClassifier,
    load_classifier,
    save_classifier,
)
from cm_ray.sampling.sampler import check_guidance
from cm_ray.sampling.samplers import Heun, OneStep
from cm_ray.sampling.score_samplers import PredictorCorrector
from cm_ray.sampling.text import parse, text_of
from cm_ray.training.noise_classifier import ClassifierTraining, accuracy, train_noise_classifier
from tests.core.gaussian import Gaussian, Mixture, full, normals
from tests.networks.test_unet import TINY, trained_like

DATA = Mixture()
LEVELS = Diffusion(boundary="none")
SPEC = ModelSpec(network=TINY, diffusion=LEVELS, shape=(1, 8, 8), class_names=("a", "b", "c"))
CLASSES = ClassifierSpec(
    shape=(1, 8, 8), class_names=("a", "b", "c"), t_min=0.002, t_max=80.0, channels=8, levels=2
)


def log_probabilities(x_t, t):
    """ln p(y | x_t) of every pixel, for each component of the mixture."""
    return torch.log_softmax(DATA._exponents(x_t, t), -1)


def slope(x_t, t, labels):
    with torch.enable_grad():
        x = x_t.detach().requires_grad_()
        chosen = log_probabilities(x, t)[torch.arange(len(x)), ..., :]
        picked = chosen.movedim(-1, 1)[torch.arange(len(x)), labels]
        return torch.autograd.grad(picked.sum(), x)[0]


def marginal(x_t, t, *_):
    return DATA.denoise(x_t, t)


def test_the_exact_classifier_makes_the_denoiser_of_its_class():
    x, labels = normals(0, 2, 1, 4, 4), torch.tensor([0, 1])
    for t in (0.05, 0.5, 3.0):
        times = full(x, t)
        found = towards_class(marginal(x, times), slope(x, times, labels), times, 1.0)
        wanted = torch.stack(
            [Gaussian(DATA.means[label], DATA.sigma).denoise(x, times)[label] for label in (0, 1)]
        )
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_a_scale_is_a_power_of_the_probability():
    """The score of p(x) p(y|x)^3, by automatic differentiation."""
    x, t, label = normals(1, 1, 1, 3, 3), torch.full((1,), 0.4, dtype=torch.float64), torch.tensor([1])
    with torch.enable_grad():
        y = x.clone().requires_grad_()
        logs = DATA.log_density(y, t) + 3 * log_probabilities(y, t)[..., 1]
        (score,) = torch.autograd.grad(logs.sum(), y)
    found = towards_class(marginal(x, t), slope(x, t, label), t, 3.0)
    torch.testing.assert_close(found, x + t**2 * score, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", [Heun(steps=40), PredictorCorrector(200)])
def test_samples_have_the_law_of_their_class(sampler):
    guided = dataclasses.replace(sampler, class_scale=1.0, classifier="exact")
    labels = torch.tensor([0, 1]).repeat_interleave(2)
    f = guided.guiding(marginal, slope=slope)
    *_, last = guided.trajectory(lambda x, t: f(x, t, labels), lambda i: normals(i, 4, 1, 16, 16), LEVELS)
    for label, rows in ((0, slice(0, 2)), (1, slice(2, 4))):
        assert Gaussian(DATA.means[label], DATA.sigma).p_value(last.x[rows]) > 0.01


def classifier(spec=CLASSES):
    torch.manual_seed(2)
    made = NoiseClassifier(spec)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made.eval()


def test_the_slope_is_that_of_the_logarithm():
    made = classifier().double()
    x, t, labels = normals(3, 2, 1, 8, 8), torch.tensor([0.1, 2.0]).double(), torch.tensor([2, 0])
    found, along, h = made.slope(x, t, labels), normals(4, 2, 1, 8, 8), 1e-5

    def value(x):
        return torch.log_softmax(made(x, t), 1)[torch.arange(2), labels]

    with torch.no_grad():
        difference = (value(x + h * along) - value(x - h * along)) / (2 * h)
    torch.testing.assert_close((found * along).flatten(1).sum(1), difference, rtol=1e-5, atol=1e-8)


def test_a_classifier_is_saved_and_read(tmp_path):
    made, x, t = classifier(), torch.randn(2, 1, 8, 8), torch.tensor([0.1, 2.0])
    save_classifier(tmp_path / "c", made)
    read = load_classifier(tmp_path / "c")
    assert read.spec == CLASSES
    with torch.no_grad():
        assert torch.equal(read(x, t), made(x, t))
    with pytest.raises(UserError, match="holds no classifier; make one with cm-ray classifier"):
        load_classifier(tmp_path)
    (tmp_path / "c" / "classifier.json").write_text("{}")
    with pytest.raises(UserError, match="is damaged; make the classifier again"):
        load_classifier(tmp_path / "c")


def test_training_is_repeated_to_the_bit_and_learns():
    """Black, grey and white images, which noise of 0.3 does not hide."""
    labels = torch.arange(60) % 3
    images = (labels * 127).to(torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8).contiguous()
    settings = ClassifierTraining(steps=40, batch_size=16, learning_rate=1e-2)
    said = []
    made, again = (
        train_noise_classifier(CLASSES, images, labels, settings, device="cpu", say=said.append)
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), again.parameters(), strict=True))
    assert len(said) == 20
    assert accuracy(made, images, labels, 0.3) == 1.0
    assert accuracy(made, images, labels, 80.0) < 0.7
    towards = made.slope(from_uint8(images[:3]), torch.full((3,), 0.3), torch.full((3,), 2))
    assert towards.mean() > 0, "brighter pixels are more likely white"


def model(spec=SPEC):
    torch.manual_seed(0)
    made = Model(spec).eval()
    trained_like(made.network)
    return made


def test_a_model_without_classes_gets_those_of_its_classifier():
    made = model()
    digest = guide_by_classifier(made, classifier(), "it")
    sampler = sampler_of(SPEC, "heun:3", class_scale=2.0, classifier=digest)
    assert text_of(sampler) == f"heun:3,class_scale=2,classifier={digest}"
    assert parse(text_of(sampler), LEVELS) == sampler
    assert (sampler.nfe, sampler_of(SPEC, "heun:3", classifier=digest).class_scale) == (10, 1.0)
    request = Request(count=4, seed=0, sampler=sampler, labels=label_draw(made.asked_by(sampler), "c"))
    images, labels = sample_all(made, request)
    assert labels.tolist() == [2] * 4
    plain = dataclasses.replace(request, sampler=Heun(steps=3), labels=None)
    assert sample_all(made, plain)[1] is None
    assert not torch.equal(sample_all(made, plain)[0], images)
    with pytest.raises(UserError, match="trained without classes"):
        label_draw(made.asked_by(Heun(steps=3)), "c")
    x, t, labels = torch.randn(2, 1, 8, 8), torch.tensor([0.5, 3.0]), torch.tensor([1, 2])
    with torch.no_grad():
        wanted = made(x, t) + 2 * t[:, None, None, None] ** 2 * made.classifier.slope(x, t, labels)
        torch.testing.assert_close(made.guided(sampler)(x, t, labels), wanted)


def test_what_cannot_be_guided():
    made = model()
    for changes, message in (
        ({"shape": (1, 16, 16)}, "reads images of"),
        ({"t_max": 5.0}, "it knows noise levels from 0.002 to 5, and the model those from 0.002 to 80"),
    ):
        with pytest.raises(UserError, match=message):
            guide_by_classifier(made, classifier(dataclasses.replace(CLASSES, **changes)), "it")
    conditional = dataclasses.replace(SPEC, network=dataclasses.replace(TINY, conditional=True))
    other = classifier(dataclasses.replace(CLASSES, class_names=("x", "y")))
    with pytest.raises(UserError, match="it has other classes than the model"):
        guide_by_classifier(model(conditional), other, "it")
    with pytest.raises(UserError, match="A classifier guides diffusion models"):
        guide_by_classifier(model(dataclasses.replace(SPEC, diffusion=Diffusion())), classifier(), "it")
    with pytest.raises(UserError, match="A classifier and its scale go together"):
        check_guidance(Heun(steps=3, class_scale=2.0), LEVELS, null_class=False)
    with pytest.raises(UserError, match="take heun:18, say"):
        check_guidance(OneStep(class_scale=2.0, classifier="ab"), Diffusion(), null_class=False)
    with pytest.raises(UserError, match="guided by the classifier ab; give it as classifier"):
        Heun(steps=3, class_scale=2.0, classifier="ab").guiding(made)
    with pytest.raises(SettingError, match="class_scale must be finite and not negative"):
        Heun(class_scale=-1.0)
