"""Guided teachers: their exact student has no loss, and the scale is an input of students."""

import dataclasses

import pytest
import torch

from cm_ray.core.continuous import ContinuousDistillation, SimplifiedDistillation
from cm_ray.core.derivative import Target
from cm_ray.core.diffusion import Diffusion
from cm_ray.core.draw import Draw
from cm_ray.core.guidance import DrawnGuidance, FixedGuidance, Unguided, guided_teacher
from cm_ray.core.methods import ConsistencyDistillation, ProgressiveDistillation
from cm_ray.core.pairs import perturb
from cm_ray.core.precondition import TrigFlow
from cm_ray.errors import SettingError, UserError
from cm_ray.networks.model import Model
from cm_ray.training.drawing import draw_step
from cm_ray.training.starting_models import _check_guidance
from tests.core.gaussian import Gaussian, normals
from tests.training.engines import IMAGES, engine, run, small, specification, teacher, weights

SCALES = torch.tensor([0.0, 1.0, 2.5, 4.0], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 0, 1])
NULL, CLASSES, SIGMA = 0.1, (-0.3, 0.5), 0.4
CONDITIONAL = {"network.conditional": True, "network.label_dropout": 0.25}
DRAWN = {**CONDITIONAL, "guidance": "drawn", "guidance.low": 0.5, "guidance.high": 3.0}


class Classes:
    """Gaussians of one width: guidance moves their mean, and the ODE keeps its closed form."""

    def __init__(self, sigma=SIGMA):
        self.diffusion, self.sigma = Diffusion(boundary="none"), sigma

    def mean(self, labels, scale=None):
        means = torch.tensor([NULL, *CLASSES], dtype=torch.float64)
        mean = means[labels + 1]
        return (mean if scale is None else NULL + scale * (mean - NULL)).view(-1, 1, 1, 1)

    def __call__(self, x_t, t, labels):
        mean = self.mean(labels)
        return mean + Gaussian(0.0, self.sigma).denoise(x_t - mean, t)

    def consistency(self, t_end, scale):
        """Return the consistency function of the guided ODE, to t_end."""
        mean = self.mean(LABELS, scale)
        law = Gaussian(0.0, self.sigma)
        return lambda x_t, t: mean + law.flow(x_t - mean, t, torch.full_like(t, t_end))


def drawn(boundary="skip"):
    x, noise = normals(0, 4, 1, 2, 2), normals(1, 4, 1, 2, 2)
    t = torch.tensor([0.3, 0.9, 3.0, 20.0], dtype=torch.float64)
    diffusion = Diffusion(column=TrigFlow(), boundary=boundary)
    return Draw(x, noise, perturb(x, noise, t), t, 0.7 * t, diffusion, step=10**6, scale=SCALES)


def loss(method, data, student, draw):
    aim = method.aim(draw, Target(student), guided_teacher(data, LABELS, draw.scale))
    return method.compare(student(draw.x_t, draw.t), aim, draw, method.distance)


@pytest.mark.parametrize("method", [ContinuousDistillation(), SimplifiedDistillation(warmup=0)])
def test_the_exact_student_of_a_guided_teacher_has_no_loss_in_continuous_time(method):
    data, end = Classes(), 0.002 if isinstance(method, ContinuousDistillation) else 0.0
    draw = drawn("skip" if end else "zero")
    assert loss(method, data, data.consistency(end, SCALES), draw).max() < 1e-20
    assert loss(method, data, data.consistency(end, torch.ones(4)), draw)[[0, 2, 3]].min() > 1e-9


def test_the_exact_student_of_a_guided_teacher_of_points_has_no_loss():
    """Every class is one image: trajectories are straight, and a step of a solver is exact."""
    data, draw = Classes(sigma=0.0), drawn()
    for solver in ("euler", "heun"):
        method = ConsistencyDistillation(solver=solver)
        assert loss(method, data, data.consistency(0.002, SCALES), draw).max() < 1e-20
        assert loss(method, data, data.consistency(0.002, torch.ones(4)), draw)[[0, 2, 3]].min() > 1e-9
    aim = ProgressiveDistillation().aim(draw, None, guided_teacher(data, LABELS, SCALES))
    torch.testing.assert_close(aim, data.mean(LABELS, SCALES).expand_as(aim))


def test_scales_are_drawn_by_position_and_step():
    config = small("cd", **DRAWN)
    images, positions = torch.zeros(20_000, 1, 1, 1, dtype=torch.uint8), torch.arange(20_000)
    scale = draw_step(config, 3, images, positions).scale
    assert 0.5 <= float(scale.min()) < 0.51
    assert 2.99 < float(scale.max()) <= 3.0
    assert float(scale.mean()) == pytest.approx(1.75, abs=0.02)
    assert torch.equal(draw_step(config, 3, images[500:], positions[500:]).scale, scale[500:])
    assert not torch.equal(draw_step(config, 4, images, positions).scale, scale)
    fixed = small("cd", **CONDITIONAL, guidance=FixedGuidance(scale=1.5))
    assert draw_step(fixed, 0, images[:3], positions[:3]).scale.tolist() == [1.5] * 3
    assert draw_step(small("cd"), 0, images[:3], positions[:3]).scale is None


@pytest.fixture
def calls(monkeypatch):
    """Return the labels and the scales that models are called with from now on, and the models."""
    seen, forward = [], Model.forward

    def watched(self, x_t, t, labels=None, s=None, scale=None, augment=None):
        seen.append((self, labels, scale))
        return forward(self, x_t, t, labels, s, scale, augment)

    monkeypatch.setattr(Model, "forward", watched)
    return seen


@pytest.mark.parametrize("method", ["cd", "scd", "pd"])
def test_student_target_and_teacher_get_what_they_should(method, calls):
    """The student and its target the scale, the teacher labels and none, for each of its evaluations."""
    made = engine(small(method, **DRAWN))
    run(made, 1)
    scale = draw_step(made.config, 0, IMAGES[:8], torch.arange(8)).scale
    taught = [labels for model, labels, given in calls if model is made.teacher and given is None]
    student = [given for model, _, given in calls if model is not made.teacher]
    assert len(taught) + len(student) == len(calls)
    assert all(torch.equal(each, scale) for each in student)
    assert [bool((labels == -1).all()) for labels in taught].count(True) == len(taught) / 2 > 0


@pytest.mark.parametrize("guidance", ["fixed", "drawn"])
def test_a_former_student_is_not_guided_again(guidance, calls):
    made = engine(small("pd", **CONDITIONAL, guidance=guidance))
    run(made, 4)  # the first round ends at 3
    assert len(calls) == 3 * (2 * 2 + 1) + 2 + 1
    scale = draw_step(made.config, 3, IMAGES[:8], torch.arange(8)).scale
    for _, _, given in calls[-3:]:
        assert given is None if guidance == "fixed" else torch.equal(given, scale)


@pytest.mark.parametrize("guidance", ["fixed", "drawn"])
@pytest.mark.parametrize("method", ["cd", "pd"])
def test_a_resumed_run_ends_with_the_same_bits(method, guidance):
    config = small(method, **CONDITIONAL, guidance=guidance)
    whole, first, second = (engine(config) for _ in range(3))
    run(whole)
    run(first, 4)
    second.restore(first.checkpoint())
    run(second)
    assert torch.equal(weights(whole), weights(second))
    plain = engine(small(method, **CONDITIONAL))
    run(plain)
    assert whole.spec.diffusion.guidance == ((1.0, 4.0) if guidance == "drawn" else ())
    if guidance == "fixed":
        assert not torch.equal(weights(plain), weights(whole))


def test_a_fixed_scale_of_one_is_no_guidance_to_the_bit():
    plain, guided = (
        engine(small("cd", **CONDITIONAL, guidance=each)) for each in (Unguided(), FixedGuidance(scale=1.0))
    )
    run(plain, 3), run(guided, 3)
    assert torch.equal(weights(plain), weights(guided))


def test_settings_that_cannot_be():
    for wrong, field in [({"low": 1.5}, "low"), ({"high": 0.5}, "high"), ({"low": 1.0, "high": 1.0}, "high")]:
        with pytest.raises(SettingError, match=field):
            DrawnGuidance(**wrong)
    with pytest.raises(SettingError, match="scale"):
        FixedGuidance(scale=-1.0)
    with pytest.raises(SettingError, match="guidance is of networks with classes"):
        small("cd", guidance="fixed")


def test_teachers_that_cannot_be_guided():
    config = small("cd", **DRAWN)
    given = teacher(specification(config)).spec
    given = dataclasses.replace(given, diffusion=Diffusion(boundary="none"))
    _check_guidance(given, config, "it")
    without = dataclasses.replace(given, network=dataclasses.replace(given.network, label_dropout=0.0))
    with pytest.raises(UserError, match=r"it has not learned to do without a class, which guidance asks"):
        _check_guidance(without, config, "it")
    with pytest.raises(UserError, match=r"network\.label_dropout asks of it"):
        _check_guidance(without, small("cd", **CONDITIONAL), "it")
    for scales, fits in (((0.0, 4.0), True), ((1.0, 4.0), False)):
        taking = dataclasses.replace(without, diffusion=Diffusion(boundary="none", guidance=scales))
        plain = small("cd", **DRAWN | {"network.label_dropout": 0.0})
        if fits:
            _check_guidance(taking, plain, "it")
        else:
            with pytest.raises(UserError, match="guidance scales from 1 to 4"):
                _check_guidance(taking, plain, "it")
