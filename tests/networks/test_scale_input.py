"""Students that take the guidance scale: they begin as their teachers, and go to files and back."""

import dataclasses

import pytest
import torch

from cm_ray.core.diffusion import Diffusion
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.errors import UserError
from cm_ray.networks.architectures import EDM2
from cm_ray.networks.formats.export import export_model
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import save_model
from cm_ray.sampling.samplers import Multistep, OneStep
from cm_ray.training.students import build_student
from tests.networks.test_null_class import model, spec
from tests.networks.test_two_time_models import NETWORKS

SCALES = (0.0, 4.0)
FAMILIES = {**NETWORKS, "edm2": EDM2(channels=8, channel_mult=(1, 2), blocks=1, head_channels=8)}
STUDENT = dataclasses.replace(spec(), diffusion=Diffusion(guidance=SCALES))


def arguments():
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    return x, torch.tensor([0.1, 2.0, 60.0]), torch.tensor([0, 1, 2])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_teacher_is_taken_over_to_the_bit(name):
    network = dataclasses.replace(FAMILIES[name], conditional=True)
    of = dataclasses.replace(spec(), network=network, diffusion=Diffusion(boundary="none"))
    before = model(of)
    taking = dataclasses.replace(of, diffusion=Diffusion(boundary="none", guidance=SCALES))
    student = build_student(taking, 3, before.network.state_dict()).eval()
    added = {*student.network.state_dict()} - {*before.network.state_dict()}
    assert {each.split(".")[0] for each in added} == {"scale_embed"}
    x, t, labels = arguments()
    with torch.no_grad():
        wanted = before(x, t, labels)
        for scale in (0.0, 1.0, 3.0):
            assert torch.equal(student(x, t, labels, None, torch.full((3,), scale)), wanted)
        for parameter in student.network.scale_embed.parameters():
            parameter += 0.1
        answers = [student(x, t, labels, None, torch.full((3,), scale)) for scale in (1.0, 3.0)]
        assert not torch.equal(*answers)
        assert torch.equal(student(x, t, labels), answers[0]), "a scale of 1 is the default"


def test_the_common_weights_of_a_seed_are_those_without_a_scale():
    one, other = (build_student(each, 5).network.state_dict() for each in (spec(), STUDENT))
    assert all(torch.equal(other[name], value) for name, value in one.items())


@pytest.mark.parametrize("how", ["folder", "safetensors"])
def test_it_goes_to_files_and_back_to_the_bit(how, tmp_path):
    made, path = model(STUDENT), tmp_path / "model"
    if how == "folder":
        save_model(path, STUDENT, made.network.state_dict())
    else:
        path = export_model(made, "safetensors", path)
    back = load_model(path)
    assert back.spec == STUDENT
    indices = torch.arange(3)
    for sampler in (OneStep(), OneStep(guidance=3.0), Multistep((1.0,), guidance=0.5)):
        assert torch.equal(*(each.sample(indices, seed=1, sampler=sampler) for each in (back, made)))


def test_samples_follow_the_scale():
    made, indices = model(STUDENT), torch.arange(3)
    samplers = [sampler_of(STUDENT, "one-step", guidance=scale) for scale in (1, 3)]
    samples = [made.sample(indices, seed=1, sampler=sampler) for sampler in samplers]
    assert not torch.equal(*samples)
    assert sampler_of(STUDENT, "multistep:2,guidance=3").nfe == 2
    with pytest.raises(UserError, match="guidance scales from 0 to 4"):
        sampler_of(STUDENT, "one-step,guidance=5")
    with pytest.raises(UserError, match="for students whose network takes the scale"):
        sampler_of(spec(), "one-step,guidance=2")


def test_a_function_without_a_scale_takes_none():
    x, t, labels = arguments()
    with pytest.raises(ValueError, match="takes no guidance scale"):
        model(spec())(x, t, labels, None, torch.ones(3))


def test_diffusers_cannot_hold_it(tmp_path):
    with pytest.raises(UserError, match="guidance"):
        export_model(model(STUDENT), "diffusers", tmp_path / "pipeline")
