"""Guidance of models by their null class or by a weaker model, from the commands' and Python's side."""

import dataclasses

import pytest
import torch

import cm_ray as cm
from cm_ray.command_line.commands.sample import run
from cm_ray.command_line.settings.sample import Sample
from cm_ray.core.diffusion import Diffusion
from cm_ray.drawing.autoguidance import check_guide, digest_of, guide
from cm_ray.drawing.model_labels import label_draw
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.drawing.requests import Request, sample_all
from cm_ray.errors import UserError
from cm_ray.networks.model import save_model
from cm_ray.sampling.samplers import Euler
from tests.networks.test_null_class import model, spec

TEACHER = dataclasses.replace(spec(), diffusion=Diffusion(boundary="none"), sampler=Euler(2))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return the folders of a model and of a weaker one."""
    root = tmp_path_factory.mktemp("models")
    for name, seed in (("strong", 0), ("weak", 1)):
        made = model(TEACHER)
        torch.manual_seed(seed)
        for parameter in made.network.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        save_model(root / name, TEACHER, made.network.state_dict())
    return root


def test_python_samples_with_guidance(folders):
    strong = cm.load(folders / "strong", device="cpu")
    plain = strong.sample(3, seed=1)
    assert (strong.sample(3, seed=1, guidance=1.0) == plain).all()
    null = strong.sample(3, seed=1, label="null")
    assert (strong.sample(3, seed=1, guidance=0.0) == null).all()
    classes = strong.sample(3, seed=1, guidance=2.0)
    assert (classes != plain).any()
    assert (strong.sample(3, seed=1, sampler="own,guidance=2") == classes).all()
    by_weak = strong.sample(3, seed=1, guidance=2.0, weak=str(folders / "weak"))
    assert (by_weak != classes).any()
    assert (
        strong.sample(3, seed=1, guidance=2.0, weak=cm.load(folders / "weak", device="cpu")) == by_weak
    ).all()
    assert (strong.sample(3, seed=1, guidance=2.0) == classes).all(), "the weaker model is for its own sample"
    weak = cm.load(folders / "weak", device="cpu").sample(3, seed=1)
    assert (strong.sample(3, seed=1, guidance=0.0, weak=str(folders / "weak")) == weak).all()


def test_the_key_of_a_score_has_the_weaker_model_by_its_digest(folders):
    strong, weak = (cm.load(folders / name, device="cpu") for name in ("strong", "weak"))
    sampler = strong.sampler("heun:3", guidance=2.0, weak=weak)
    assert sampler.weak == digest_of(weak.torch_model) != digest_of(strong.torch_model)
    assert len(sampler.weak) == 12


def test_the_command_samples_with_guidance(folders, tmp_path):
    outs = {}
    for name, more in {
        "plain": {},
        "guided": {"guidance": 2.0},
        "text": {"sampler": "euler:2,guidance=2"},
        "weak": {"guidance": 2.0, "weak": str(folders / "weak")},
    }.items():
        common = {"model": str(folders / "strong"), "samples": 2, "device": "cpu", "out": tmp_path / name}
        run(Sample(**common, **more))
        outs[name] = (tmp_path / f"{name}.npz").read_bytes()
    assert outs["guided"] == outs["text"]
    assert len({*outs.values()}) == 3


def test_guidance_towards_no_class_is_refused():
    made = model(TEACHER)
    request = Request(count=2, seed=0, sampler=Euler(2, guidance=2.0), labels=label_draw(TEACHER, "null"))
    with pytest.raises(UserError, match="goes towards a class"):
        sample_all(made, request)
    with pytest.raises(UserError, match="can do without them"):
        sampler_of(dataclasses.replace(TEACHER, network=spec(share=0.0).network), "heun:2,guidance=2")


def test_models_that_cannot_guide():
    for weak, sentence in [
        (dataclasses.replace(spec(), sampler=cm.OneStep()), "is no diffusion model"),
        (dataclasses.replace(TEACHER, shape=(3, 8, 8)), "makes images of"),
        (dataclasses.replace(TEACHER, class_names=("a", "b", "c")), "has other classes"),
    ]:
        with pytest.raises(UserError, match=sentence):
            check_guide(TEACHER, weak, "small")
    check_guide(
        TEACHER, dataclasses.replace(TEACHER, class_names=("a", "b"), network=_unconditional()), "small"
    )


def test_an_unconditional_model_guides_a_conditional_one():
    weak = model(dataclasses.replace(TEACHER, network=_unconditional()))
    strong = model(TEACHER)
    sampler = Euler(2, guidance=0.0, weak=guide(strong, weak, "small"))
    indices = torch.arange(2)
    found = strong.sample(indices, seed=0, sampler=sampler)
    assert torch.equal(found, weak.sample(indices, seed=0, sampler=Euler(2)))


def _unconditional():
    return dataclasses.replace(spec(share=0.0).network, conditional=False)
