"""Models of two times: they begin as one of one time, go to files and back, and jump."""

import dataclasses

import pytest
import torch

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.precondition import Linear, TrigFlow
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.errors import UserError
from cm_ray.networks.architectures import ADM, DDPMpp, NCSNpp
from cm_ray.networks.formats.export import export_model
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import Model, ModelSpec, save_model
from cm_ray.networks.unet import starting_weights
from cm_ray.sampling.samplers import Jumps, Multistep, OneStep
from cm_ray.sampling.text import parse, text_of
from cm_ray.training.students import build_student
from tests.networks.test_unet import trained_like

SIZES = {"channels": 8, "channel_mult": (1, 2), "blocks": 1, "norm_groups": 4, "attention_resolutions": (4,)}
NETWORKS = {"adm": ADM(**SIZES, head_channels=8), "ddpm++": DDPMpp(**SIZES), "ncsn++": NCSNpp(**SIZES)}
TWO = Diffusion(column=Linear(), boundary="two-times")
SPEC = ModelSpec(
    network=NETWORKS["adm"],
    diffusion=TWO,
    shape=(1, 8, 8),
    time_points=((2.0,), (2.5, 0.5)),
    sampler=Jumps(taus=(2.5, 0.5)),
)
ONE = dataclasses.replace(SPEC, diffusion=Diffusion(), time_points=(), sampler=OneStep())


def model(spec=SPEC):
    torch.manual_seed(0)
    made = Model(spec)
    trained_like(made.network)
    return made.eval()


def arguments():
    torch.manual_seed(1)
    t, s = torch.tensor([0.1, 2.0, 60.0]), torch.tensor([0.1, 0.5, 0.0])
    return torch.randn(3, 1, 8, 8) * (1 + t.view(-1, 1, 1, 1)), t, None, s


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_one_time_is_taken_over_to_the_bit(name, conditional):
    network = dataclasses.replace(NETWORKS[name], conditional=conditional)
    before = Diffusion(column=TrigFlow(), boundary="none")
    spec = dataclasses.replace(
        ONE, network=network, diffusion=before, class_names=("a", "b"), sampler=parse("heun:2", before)
    )
    teacher = model(spec)
    two = dataclasses.replace(spec, diffusion=dataclasses.replace(before, boundary="two-times"))
    student = build_student(two, 3, teacher.network.state_dict()).eval()
    x, t, _, s = arguments()
    labels = torch.tensor([0, 1, 1]) if conditional else None
    with torch.no_grad():
        assert torch.equal(student(x, t, labels, s), teacher(x, t, labels))
        student.network.second_embed[-1].bias += 0.1
        assert not torch.equal(student(x, t, labels, s), teacher(x, t, labels))


def test_the_common_weights_of_a_seed_are_those_of_one_time():
    for network in NETWORKS.values():
        one, two = (build_student(dataclasses.replace(each, network=network), 5) for each in (ONE, SPEC))
        common = one.network.state_dict()
        assert all(torch.equal(two.network.state_dict()[name], value) for name, value in common.items())
        added = {*two.network.state_dict()} - {*common}
        assert added == {f"second_embed.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
        assert not two.network.second_embed[-1].weight.any()


def test_weights_of_two_times_keep_their_second_embedding():
    made = model()
    weights = made.network.state_dict()
    assert starting_weights(weights, Model(SPEC).network).keys() == weights.keys()
    fresh = build_student(SPEC, 0, weights).network.state_dict()
    assert torch.equal(fresh["second_embed.2.weight"], weights["second_embed.2.weight"])


@pytest.mark.parametrize("how", ["folder", "safetensors"])
def test_a_model_goes_to_files_and_back_to_the_bit(how, tmp_path):
    made = model()
    if how == "folder":
        path = tmp_path / "model"
        save_model(path, SPEC, made.network.state_dict())
    else:
        path = export_model(made, "safetensors", tmp_path / "model")
    back = load_model(path)
    assert back.spec == SPEC
    with torch.no_grad():
        assert torch.equal(back(*arguments()), made(*arguments()))


def test_the_exported_one_step_is_the_jump_to_zero(tmp_path):
    made = model()
    program = torch.export.load(export_model(made, "torch", tmp_path / "model")).module()
    noise = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        t = torch.full((3,), 80.0)
        ours = made(80 * noise, t, None, torch.zeros_like(t)).clamp(-1, 1)
        torch.testing.assert_close(program(noise), ours, rtol=1e-4, atol=1e-5)


def test_diffusers_cannot_hold_it(tmp_path):
    with pytest.raises(UserError, match="its boundary is two-times"):
        export_model(model(), "diffusers", tmp_path / "pipeline")


def test_samples_are_jumps_and_do_not_depend_on_the_batch():
    made, sampler = model(), sampler_of(SPEC, "jumps@2.5,0.5")
    assert sampler == sampler_of(SPEC) == sampler_of(SPEC, steps=3)
    whole = made.sample(torch.arange(9), seed=3, sampler=sampler)
    few = made.sample(torch.tensor([7, 2]), seed=3, sampler=sampler)
    torch.testing.assert_close(whole[[7, 2]], few, rtol=1e-3, atol=1e-4)
    steps = list(made.sampling_steps(torch.arange(9), seed=3, sampler=sampler))
    assert [step.t for step in steps] == [2.5, 0.5, 0.0]
    assert torch.equal(steps[-1].x, whole)


def test_a_model_chooses_its_kind_of_sampler():
    assert sampler_of(SPEC, taus=(1.0,)) == Jumps(taus=(1.0,))
    assert sampler_of(ONE, taus=(1.0,)) == Multistep(taus=(1.0,))
    assert sampler_of(SPEC, steps=1) == OneStep()
    assert sampler_of(SPEC, "multistep:2") == Multistep(taus=(2.52,)), "its points are those of jumps"
    assert text_of(sampler_of(SPEC, "jumps:4")) == "jumps@2.86,0.976,0.328"
    with pytest.raises(UserError, match="models of two times"):
        sampler_of(ONE, "jumps:2")
    with pytest.raises(UserError, match="is for consistency models"):
        sampler_of(dataclasses.replace(ONE, diffusion=Diffusion(boundary="none")), "jumps:2")
