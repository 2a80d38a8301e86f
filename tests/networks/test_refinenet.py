"""NCSNv2's RefineNet: names and sizes of the public code, its normalisation, reading of its checkpoints."""

import dataclasses
import re

import pytest
import torch

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.precondition import VE
from cm_ray.errors import SettingError
from cm_ray.networks.formats.reading import read_model
from cm_ray.networks.model import Model, ModelSpec, build_network
from cm_ray.networks.refinenet import InstanceNormPlus
from cm_ray.networks.score_networks import RefineNet

SHAPE = (3, 16, 16)
SPEC = ModelSpec(
    network=RefineNet(channels=4),
    diffusion=Diffusion(column=VE(), boundary="none", t_min=0.02, t_max=100.0),
    shape=SHAPE,
)


def convolution(inputs, outputs, size=3, bias=True):
    return inputs * outputs * size**2 + bias * outputs


def parameters(n, colours):
    """The number of parameters, counted from the paper's description: RefineNet of four levels."""
    m, norm = 2 * n, 3

    def block(a, b, down, dilated):
        between = a if down else b
        beside = convolution(a, b, 3 if dilated else 1) if down or a != b else 0
        return norm * (a + between) + convolution(a, between) + convolution(between, b) + beside

    def refine(inputs, outputs, units):
        fusion = sum(convolution(each, outputs) for each in inputs) if len(inputs) > 1 else 0
        units = sum(4 * convolution(each, each, bias=False) for each in inputs) + 2 * units * convolution(
            outputs, outputs, bias=False
        )
        return fusion + units + 2 * convolution(outputs, outputs, bias=False)

    encoder = (
        2 * block(n, n, False, False)
        + block(n, m, True, False)
        + block(m, m, False, False)
        + 2 * (block(m, m, True, True) + block(m, m, False, True))
    )
    decoder = refine([m], m, 1) + refine([m, m], m, 1) + refine([m, m], n, 1) + refine([n, n], n, 3)
    return convolution(colours, n) + convolution(n, colours) + norm * n + encoder + decoder


@pytest.mark.parametrize(("n", "colours"), [(4, 3), (6, 1), (128, 3)])
def test_the_number_of_parameters_is_that_of_the_description(n, colours):
    with torch.device("meta"):
        network = RefineNet(channels=n).build((colours, 32, 32), 0)
    assert sum(each.numel() for each in network.parameters()) == parameters(n, colours)
    assert parameters(128, 3) == 29_694_083


def test_the_names_are_those_of_the_public_code():
    with torch.device("meta"):
        weights = RefineNet(channels=128).build((3, 32, 32), 0).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name, shape in {
        "begin_conv.weight": (128, 3, 3, 3),
        "normalizer.alpha": (128,),
        "res1.0.conv2.bias": (128,),
        "res2.0.conv1.weight": (128, 128, 3, 3),
        "res2.0.conv2.conv.weight": (256, 128, 3, 3),
        "res2.0.shortcut.conv.weight": (256, 128, 1, 1),
        "res3.0.shortcut.weight": (256, 256, 3, 3),
        "res4.1.normalize2.gamma": (256,),
        "refine1.adapt_convs.0.1_1_conv.weight": (256, 256, 3, 3),
        "refine2.msf.convs.1.bias": (256,),
        "refine3.crp.convs.1.weight": (128, 128, 3, 3),
        "refine4.output_convs.3_2_conv.weight": (128, 128, 3, 3),
        "end_conv.bias": (3,),
    }.items():
        assert shapes[name] == shape
    assert not [name for name in shapes if re.search(r"refine1\.msf|res1\.\d\.shortcut|\d_conv\.bias", name)]


def test_instance_normalisation_plus_is_the_papers():
    """PyTorch's instance normalisation, and beside it the means, normalised over the channels."""
    torch.manual_seed(0)
    norm, x = InstanceNormPlus(5), torch.randn(2, 5, 4, 4) * 3 + torch.randn(2, 5, 1, 1)
    torch.nn.init.normal_(norm.beta)
    means = x.mean((2, 3))
    over = (means - means.mean(1, keepdim=True)) / (means.var(1, keepdim=True) + 1e-5).sqrt()
    plain = torch.nn.functional.instance_norm(x)
    wanted = plain + norm.alpha[:, None, None] * over[..., None, None]
    wanted = norm.gamma[:, None, None] * wanted + norm.beta[:, None, None]
    torch.testing.assert_close(norm(x), wanted, rtol=1e-5, atol=1e-5)


def test_it_is_a_denoiser_of_column_ve():
    torch.manual_seed(0)
    model, x, t = Model(SPEC).eval(), torch.randn(2, *SHAPE), torch.tensor([0.5, 9.0])
    with torch.no_grad():
        raw = model.network(x, t)
        torch.testing.assert_close(model(x, t), x + t[:, None, None, None] * raw)
    assert raw.shape == x.shape


def test_a_checkpoint_of_the_public_code_is_read(tmp_path):
    """A list: state dict of a DataParallel with its buffer of levels, optimizer, epoch, step, averages."""
    torch.manual_seed(1)
    weights = build_network(SPEC).state_dict()
    averages = {name: tensor + 1 for name, tensor in weights.items()}
    saved = {f"module.{name}": tensor for name, tensor in weights.items()}
    saved["module.sigmas"] = torch.ones(232)
    file = tmp_path / "checkpoint.pth"
    torch.save([saved, {"state": {}, "param_groups": []}, 3, 7], file)
    assert_read(file, weights)
    torch.save([saved, {"state": {}, "param_groups": []}, 3, 7, averages], file)
    assert_read(tmp_path / "checkpoint.pth#4", averages)


def assert_read(path, weights):
    spec, found = read_model(path, assumed=SPEC)
    assert spec == SPEC
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_odd_sizes_are_refused():
    with pytest.raises(SettingError, match="refinenet halves images, and 15 x 16 is odd"):
        build_network(dataclasses.replace(SPEC, shape=(3, 15, 16)))
    with pytest.raises(SettingError, match="channels must be at least 2"):
        RefineNet(channels=1)
