"""A precision is the same arithmetic in convolutions and matrix products, for this context alone."""

import dataclasses

import pytest
import torch

from cm_ray.drawing.requests import Request, sample_all
from cm_ray.errors import UserError
from cm_ray.networks.arithmetic import arithmetic
from cm_ray.networks.model import Model, ModelSpec
from cm_ray.sampling.samplers import OneStep
from tests.training.engines import small, specification

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def switches():
    """Return what the program does: of matrix products, of convolutions, and the search for algorithms."""
    cudnn = torch.backends.cudnn
    return torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic


@pytest.fixture(params=[False, True], ids=["plain program", "other switches"])
def program(request, monkeypatch):
    """Set the switches as PyTorch does, and as a user's program may have done."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if request.param else "highest")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", not request.param)
    yield switches()
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("precision", "inside"),
    [("float32", ("highest", False, True, False)), ("tf32", ("high", True, True, False))],
)
def test_a_gpu_has_one_precision_for_both_kinds_of_products(precision, inside, program, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with arithmetic(precision, GPU):
        assert switches() == inside
    assert switches() == program
    with pytest.raises(KeyError), arithmetic(precision, GPU):
        raise KeyError
    assert switches() == program


def test_a_program_that_wants_the_same_bits_keeps_its_algorithms(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    with arithmetic("float32", GPU):
        assert switches()[2:] == (False, True)


def test_the_backward_pass_has_the_switches_and_no_autocast():
    with arithmetic("float16", GPU, autocast=False):
        assert switches()[:2] == ("highest", False)
        assert not torch.is_autocast_enabled("cuda")


def test_tf32_is_refused_where_there_is_none(monkeypatch):
    with pytest.raises(
        UserError, match="tf32 is arithmetic of NVIDIA GPUs, and the device is cpu; take float"
    ):
        arithmetic("tf32", CPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(UserError, match="Tesla T4 has no TF32"):
        arithmetic("tf32", GPU)


def test_an_unknown_precision_is_refused():
    with pytest.raises(UserError, match="no precision 'bfloat': did you mean 'bfloat16'"):
        arithmetic("bfloat", CPU)


def test_samples_are_drawn_in_the_precision_of_their_request():
    torch.manual_seed(0)
    model = Model(specification(small("paper"))).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    seen = []
    model.network.out[2].register_forward_hook(lambda module, inputs, y: seen.append(y.dtype))
    request = Request(count=4, seed=0, sampler=OneStep())
    float32, short = (
        sample_all(model, dataclasses.replace(request, precision=precision))[0].int()
        for precision in ("float32", "bfloat16")
    )
    assert seen == [torch.float32, torch.bfloat16]
    assert model.precision == "float32"
    assert 0 < (float32 - short).abs().max() <= 8  # of 255 levels


def test_specifications_do_not_name_a_precision():
    """The same weights are the same model in any arithmetic."""
    assert "precision" not in {field.name for field in dataclasses.fields(ModelSpec)}
