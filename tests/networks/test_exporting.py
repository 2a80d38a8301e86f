"""Files written for other tools compute what the model does, read by these tools."""

import dataclasses
import importlib.util

import pytest
import torch

from cm_ray.errors import UserError
from cm_ray.networks.architectures import GroupNormUNet, NCSNpp
from cm_ray.networks.formats import exporting
from cm_ray.networks.formats.exporting import OneStep, write_onnx, write_program, write_safetensors
from cm_ray.networks.formats.reading import SPEC_KEY, load_model, network_digest
from cm_ray.networks.model import SPEC, WEIGHTS, save_model
from tests.networks.test_model import DENOISER, LABELLED, model
from tests.networks.test_model import SPEC as PLAIN

SHARED = [field.name for field in dataclasses.fields(GroupNormUNet)]
NCSNPP = dataclasses.replace(
    PLAIN, network=NCSNpp(**{field: getattr(PLAIN.network, field) for field in SHARED})
)


def inputs(spec, count):
    noise = torch.randn(count, *spec.shape, generator=torch.Generator().manual_seed(count))
    return (noise, torch.arange(count) % spec.classes) if spec.classes else (noise,)


def test_one_step_is_the_models_own_sample():
    made = model(PLAIN)
    noise = torch.randn(1, *PLAIN.shape)
    *_, last = PLAIN.sampler.trajectory(lambda x, t: made(x, t), lambda draw: noise, PLAIN.diffusion)
    with torch.no_grad():
        assert torch.equal(OneStep(made)(noise), last.x)


@pytest.mark.parametrize("spec", [pytest.param(LABELLED, marks=pytest.mark.slow), NCSNPP])
def test_a_program_of_pytorch(spec, tmp_path):
    made = model(spec)
    write_program(tmp_path / "m.pt2", made)
    program = torch.export.load(tmp_path / "m.pt2").module()
    for count in (1, 2, 5):
        with torch.no_grad():
            ours, theirs = OneStep(made)(*inputs(spec, count)), program(*inputs(spec, count))
        assert ours.abs().mean() > 0.02
        assert (ours - theirs).abs().max() <= 1e-5


@pytest.mark.parametrize("spec", [LABELLED, pytest.param(NCSNPP, marks=pytest.mark.slow)])
def test_onnx(spec, tmp_path):
    """Run by the reference of another house."""
    import onnxruntime

    made = model(spec)
    write_onnx(tmp_path / "m.onnx", made)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    names = [one.name for one in session.get_inputs()]
    assert names == ["noise", "labels"][: len(names)]
    for count in (1, 3):
        given = inputs(spec, count)
        with torch.no_grad():
            ours = OneStep(made)(*given)
        (theirs,) = session.run(None, {n: x.numpy() for n, x in zip(names, given, strict=True)})
        assert (ours - torch.from_numpy(theirs)).abs().max() <= 1e-4


def test_onnx_needs_its_packages(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'cm_ray\[onnx\]'"):
        write_onnx(tmp_path / "m.onnx", model(PLAIN))
    assert not any(tmp_path.iterdir())


def test_what_is_too_big_for_onnx_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(exporting, "_MOST_BYTES", 100)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    with pytest.raises(UserError, match="GB of weights are too large for an ONNX file"):
        write_onnx(tmp_path / "m.onnx", model(PLAIN))


def test_a_diffusion_model_has_no_one_step(tmp_path):
    with pytest.raises(UserError, match="is a diffusion model, and the one-step sampler is for"):
        write_program(tmp_path / "m.pt2", model(DENOISER))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("spec", [LABELLED, DENOISER, NCSNPP])
def test_one_file_tells_what_it_is(spec, tmp_path):
    made = model(spec)
    write_safetensors(tmp_path / "m.safetensors", made)
    again = load_model(tmp_path / "m.safetensors")
    assert again.spec == spec
    assert all(
        torch.equal(a, b)
        for a, b in zip(made.state_dict().values(), again.state_dict().values(), strict=True)
    )
    save_model(tmp_path / "n", again.spec, again.network.state_dict())
    save_model(tmp_path / "m", spec, made.network.state_dict())
    assert (tmp_path / "m" / WEIGHTS).read_bytes() == (tmp_path / "n" / WEIGHTS).read_bytes()
    assert (tmp_path / "m" / SPEC).read_bytes() == (tmp_path / "n" / SPEC).read_bytes()


def test_broken_metadata_are_said(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", metadata={SPEC_KEY: "{"})
    with pytest.raises(UserError, match=r"The metadata of .*m.safetensors is not valid JSON"):
        load_model(tmp_path / "m.safetensors")


def test_a_digest_is_of_the_file(tmp_path):
    for name, spec in [("a", LABELLED), ("b", PLAIN)]:
        write_safetensors(tmp_path / f"{name}.safetensors", model(spec))
    digests = [network_digest(tmp_path / f"{name}.safetensors") for name in "aab"]
    assert digests[0] == digests[1] != digests[2]
    with pytest.raises(FileNotFoundError):
        network_digest(tmp_path / "c.safetensors")
