"""A model samples the same image by index, and goes to a folder and back to the bit."""

import dataclasses
import json

import pytest
import torch

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.precondition import EDM, VE, VP
from cm_ray.drawing.model_labels import label_draw
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.drawing.requests import Request, sample_all, sample_units
from cm_ray.errors import UserError
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import Model, ModelSpec, from_uint8, save_model, to_uint8
from cm_ray.sampling.samplers import Heun, Multistep, OneStep
from cm_ray.sampling.text import parse
from tests.networks.test_unet import TINY, trained_like

SPEC = ModelSpec(network=TINY, diffusion=Diffusion(), shape=(1, 8, 8), time_points=((2.0,), (2.5, 0.5)))
LABELLED = dataclasses.replace(
    SPEC, network=dataclasses.replace(TINY, conditional=True), class_names=("a", "b", "c")
)


DENOISER = dataclasses.replace(
    SPEC, diffusion=Diffusion(boundary="none"), time_points=(), sampler=Heun(steps=3)
)


def request(count, spec=SPEC, **more):
    return Request(count=count, seed=0, sampler=sampler_of(spec), **more)


def model(spec=SPEC):
    torch.manual_seed(0)
    made = Model(spec)
    trained_like(made.network)
    return made.eval()


@pytest.mark.parametrize("spec", [SPEC, LABELLED])
def test_the_boundary_is_exact_through_the_real_network(spec):
    x = torch.randn(4, 1, 8, 8)
    labels = torch.tensor([0, 1, 2, 0]) if spec.classes else None
    assert torch.equal(model(spec)(x, torch.full((4,), 0.002), labels), x)


CHURNED = "heun:4,s_churn=2"


@pytest.mark.parametrize(
    ("spec", "text"),
    [(SPEC, "one-step"), (LABELLED, "one-step"), (LABELLED, "multistep@2.0,0.5")]
    + [(DENOISER, text) for text in ("heun:3", CHURNED, "euler:3", "dpm2:2", "ancestral:4", "pd:2")],
)
def test_sample_i_does_not_depend_on_the_batch(spec, text):
    made, sampler = model(spec), sampler_of(spec, text)
    whole = made.sample(torch.arange(9), seed=3, sampler=sampler)
    few = made.sample(torch.tensor([7, 2]), seed=3, sampler=sampler)
    torch.testing.assert_close(whole[[7, 2]], few, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(whole, made.sample(torch.arange(9), seed=4, sampler=sampler))
    assert whole.abs().max() <= 1.05
    steps = list(made.sampling_steps(torch.arange(9), seed=3, sampler=sampler))
    assert len(steps) == len(sampler.times(spec.diffusion)) - 1, "every intermediate image can be had"
    assert torch.equal(steps[-1].x, whole)


def test_units_cover_a_request():
    made = model()
    pieces = list(sample_units(made, request(7, first=2, unit=3)))
    assert [len(piece) for piece in pieces] == [3, 3, 1]
    whole = to_uint8(made.sample(torch.arange(2, 9), seed=0, sampler=sampler_of(SPEC)))
    assert (torch.cat(pieces).int() - whole.int()).abs().max() <= 1


def test_labels_are_drawn_with_the_seed_or_given():
    made = model(LABELLED)
    images, labels = sample_all(made, request(300))
    assert images.shape == (300, 1, 8, 8)
    assert torch.bincount(labels, minlength=3).min() > 70
    assert torch.equal(labels[:5], made.sample_labels(torch.arange(5), 0))
    _, chosen = sample_all(made, request(4, labels=label_draw(LABELLED, "c")))
    assert chosen.tolist() == [2] * 4
    assert sample_all(model(), request(1))[1] is None


@pytest.mark.parametrize(
    ("spec", "request_", "message"),
    [
        (SPEC, request(1, labels=label_draw(LABELLED, "b")), "drawn of 3 classes, and the model has 0"),
        (SPEC, request(0), "must be at least 1"),
    ],
)
def test_requests_that_do_not_fit(spec, request_, message):
    with pytest.raises(UserError, match=message):
        sample_all(model(spec), request_)


def test_what_is_asked_of_a_model():
    assert [sampler_of(SPEC, steps=k).taus for k in (0, 1, 2, 3)] == [(), (), (2.0,), (2.5, 0.5)]
    assert sampler_of(SPEC, steps=4).taus == (17.5, 2.52, 0.17)  # more than it knows: on a Karras grid
    assert sampler_of(SPEC, taus=(4.0,)) == Multistep((4.0,))
    assert sampler_of(SPEC) == sampler_of(SPEC, steps=1) == sampler_of(SPEC, "own") == OneStep()
    assert sampler_of(DENOISER) == sampler_of(DENOISER, "own") == Heun(steps=3)
    assert sampler_of(DENOISER, steps=18).nfe == 35
    churned = dataclasses.replace(DENOISER, sampler=Heun(3, s_churn=40.0))
    assert sampler_of(churned, steps=18) == Heun(18, s_churn=40.0)
    for wrong, sentence in [
        ({"taus": (1.0, 2.0)}, "must descend between 80 and 0.002"),
        ({"steps": 2, "taus": (1.0,)}, "Give one of a sampler, a number of steps and time points"),
        ({"steps": -1}, "sampling steps must be at least 1, not -1"),
        ({"sampler": "heun:3"}, "is for diffusion models"),
    ]:
        with pytest.raises(UserError, match=sentence):
            sampler_of(SPEC, **wrong)
    with pytest.raises(UserError, match="is for consistency models"):
        sampler_of(DENOISER, taus=(1.0,))


@pytest.mark.parametrize("boundary", ["skip", "piecewise", "none"])
@pytest.mark.parametrize("column", [EDM(), VP(), VE()])
def test_every_preconditioning_goes_through_the_network(column, boundary):
    spec = dataclasses.replace(SPEC, diffusion=Diffusion(column=column, boundary=boundary))
    made, x = model(spec), torch.randn(3, 1, 8, 8)
    assert torch.isfinite(made(x, torch.tensor([0.002, 1.0, 80.0]))).all()
    if boundary != "none":
        assert torch.equal(made(x, torch.full((3,), 0.002)), x)


def test_there_and_back(tmp_path):
    made = model(LABELLED)
    save_model(tmp_path / "m", LABELLED, made.network.state_dict())
    again = load_model(tmp_path / "m")
    assert again.spec == LABELLED
    assert json.loads((tmp_path / "m" / "model.json").read_text())["sampler"] == "one-step"
    assert all(
        torch.equal(a, b)
        for a, b in zip(made.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"model.json", "weights.safetensors"}


@pytest.mark.parametrize("text", ["heun:3", "heun:4,s_churn=2", "pd:8", "ancestral:100"])
def test_the_own_sampler_is_a_text_in_the_folder(text, tmp_path):
    spec = dataclasses.replace(DENOISER, sampler=parse(text, DENOISER.diffusion))
    save_model(tmp_path / "m", spec, model(spec).network.state_dict())
    assert json.loads((tmp_path / "m" / "model.json").read_text())["sampler"] == text
    assert load_model(tmp_path / "m").spec == spec


def test_broken_models_are_named(tmp_path):
    made = model()
    save_model(tmp_path / "m", SPEC, made.network.state_dict())
    other = dataclasses.replace(SPEC, network=dataclasses.replace(TINY, channels=32))
    save_model(tmp_path / "other", other, made.network.state_dict())
    with pytest.raises(UserError, match="belongs to another network: "):
        load_model(tmp_path / "other")
    weights = tmp_path / "m" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(
        UserError, match=r"weights.safetensors is cut off: its header alone has \d+ bytes, and the file 1000"
    ):
        load_model(tmp_path / "m")
    with pytest.raises(UserError, match="holds no model"):
        load_model(tmp_path)


def test_no_such_device(tmp_path):
    save_model(tmp_path / "m", SPEC, model().network.state_dict())
    with pytest.raises(UserError, match="no device 'nonsense'"):
        load_model(tmp_path / "m", "nonsense")


def test_levels_go_there_and_back():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_uint8(from_uint8(levels)), levels)
    assert from_uint8(levels).min() == -1
    assert from_uint8(levels).max() == 1
