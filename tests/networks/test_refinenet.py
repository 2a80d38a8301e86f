"""RefineNet of NCSN and NCSNv2: names and sizes of the public codes, normalisation, their checkpoints."""

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


STAGES = {
    4: [(1, False, False), (2, True, False), (2, True, True), (2, True, True)],
    5: [(1, False, False), (2, True, False), (2, True, False), (4, True, True), (4, True, True)],
    6: [(1, False, False), *[(2, True, False)] * 3, (4, True, True), (4, True, True)],
}
"""Stages of NCSNv2's networks: channels, smaller or dilated, dilated."""


def parameters(n, colours, levels=0, stages=4):
    """The number of parameters, counted from the papers' description of RefineNet."""

    def norm(width):
        return 3 * width * max(levels, 1)

    def inner(width):
        return norm(width) if levels else 0

    def block(a, b, down, dilated):
        between = a if down else b
        beside = convolution(a, b, 3 if dilated else 1) if down or a != b else 0
        return norm(a) + norm(between) + convolution(a, between) + convolution(between, b) + beside

    def units(width, count):
        return 2 * count * (convolution(width, width, bias=False) + inner(width))

    def refine(inputs, outputs, last):
        fusion = sum(convolution(each, outputs) + inner(each) for each in inputs) if len(inputs) > 1 else 0
        pooling = 2 * (convolution(outputs, outputs, bias=False) + inner(outputs))
        return fusion + sum(units(each, 2) for each in inputs) + units(outputs, last) + pooling

    widths, encoder, before = [], 0, n
    for mult, down, dilated in STAGES[stages]:
        widths.append(mult * n)
        encoder += block(before, mult * n, down, dilated) + block(mult * n, mult * n, False, dilated)
        before = mult * n
    decoder = refine(widths[-1:], widths[-1], 1) + refine([n, n], n, 3)
    for index in range(1, stages - 1):
        decoder += refine([widths[index]] * 2, widths[index - 1], 1)
    return convolution(colours, n) + convolution(n, colours) + norm(n) + encoder + decoder


COUNTED = {(0, 4): 29_694_083, (10, 4): 30_117_635, (0, 5): 83_445_379, (0, 6): 94_132_611}


@pytest.mark.parametrize(("n", "colours"), [(4, 3), (6, 1), (128, 3)])
@pytest.mark.parametrize(("levels", "stages"), COUNTED)
def test_the_number_of_parameters_is_that_of_the_description(n, colours, levels, stages):
    with torch.device("meta"):
        network = RefineNet(channels=n, levels=levels, stages=stages).build((colours, 32, 32), 0)
    assert sum(each.numel() for each in network.parameters()) == parameters(n, colours, levels, stages)
    assert parameters(128, 3, levels, stages) == COUNTED[levels, stages]


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


def test_the_names_of_ncsn_and_of_the_deeper_networks_are_those_of_the_public_codes():
    def shapes(**settings):
        with torch.device("meta"):
            weights = RefineNet(**settings).build((3, 32, 32), 0).state_dict()
        return {name: tuple(tensor.shape) for name, tensor in weights.items()}

    conditional = shapes(levels=10)
    for name, shape in {
        "normalizer.embed.weight": (10, 384),
        "res2.0.normalize2.embed.weight": (10, 384),
        "refine1.adapt_convs.0.2_1_norm.embed.weight": (10, 768),
        "refine3.msf.norms.1.embed.weight": (10, 768),
        "refine3.crp.norms.0.embed.weight": (10, 384),
        "refine4.output_convs.3_2_norm.embed.weight": (10, 384),
    }.items():
        assert conditional[name] == shape
    assert not [name for name in conditional if re.search(r"alpha|gamma|beta|refine1\.msf", name)]
    plain = shapes()
    assert {name for name in plain if not re.search("alpha|gamma|beta", name)} < conditional.keys()
    deeper, deepest = shapes(stages=5), shapes(stages=6)
    assert deeper["res3.0.conv2.conv.weight"] == (256, 256, 3, 3)
    assert deeper["res5.0.shortcut.weight"] == (512, 512, 3, 3)
    assert deeper["refine2.msf.convs.1.weight"] == (256, 512, 3, 3)
    assert deeper["refine5.output_convs.3_2_conv.weight"] == (128, 128, 3, 3)
    more = {name for name in deepest if name not in deeper}
    assert {name.split(".")[0] for name in more} == {"res31", "refine31"}
    assert deepest["refine31.msf.convs.0.weight"] == (256, 256, 3, 3)


def test_every_part_of_ncsn_depends_on_the_level():
    """A row of the embeddings is one network without levels where pooling and inner norms are the same."""
    torch.manual_seed(0)
    network = RefineNet(channels=4, levels=3).build(SHAPE, 0).eval()
    x = torch.randn(1, *SHAPE).expand(4, -1, -1, -1)
    with torch.no_grad():
        first, second, third, rounded = network(x, torch.tensor([0.0, 1.0, 2.0, 1.3]))
    assert not torch.allclose(first, second)
    assert not torch.allclose(second, third)
    torch.testing.assert_close(rounded, second)
    norms = [module for module in network.modules() if isinstance(module, InstanceNormPlus)]
    network(x, torch.ones(4)).square().sum().backward()
    for norm in norms:
        rows = norm.embed.weight.grad.abs().sum(1)
        assert rows[1] > 0
        assert rows[[0, 2]].sum() == 0


def test_conditional_normalisation_has_the_rows_of_its_embedding():
    torch.manual_seed(0)
    plain, conditional, x = InstanceNormPlus(5, 0), InstanceNormPlus(5, 3), torch.randn(2, 5, 4, 4)
    gamma, alpha, beta = conditional.embed.weight[2].detach().split(5)
    assert torch.equal(beta, torch.zeros(5))
    assert 0 < (torch.cat([gamma, alpha]) - 1).std() < 0.05
    torch.nn.init.normal_(conditional.embed.weight)
    gamma, alpha, beta = conditional.embed.weight[2].detach().split(5)
    plain.load_state_dict({"gamma": gamma, "alpha": alpha, "beta": beta})
    torch.testing.assert_close(conditional(x, torch.tensor([2, 2])), plain(x, None))


def test_instance_normalisation_plus_is_the_papers():
    """PyTorch's instance normalisation, and beside it the means, normalised over the channels."""
    torch.manual_seed(0)
    norm, x = InstanceNormPlus(5, 0), torch.randn(2, 5, 4, 4) * 3 + torch.randn(2, 5, 1, 1)
    torch.nn.init.normal_(norm.beta)
    means = x.mean((2, 3))
    over = (means - means.mean(1, keepdim=True)) / (means.var(1, keepdim=True) + 1e-5).sqrt()
    plain = torch.nn.functional.instance_norm(x)
    wanted = plain + norm.alpha[:, None, None] * over[..., None, None]
    wanted = norm.gamma[:, None, None] * wanted + norm.beta[:, None, None]
    torch.testing.assert_close(norm(x, None), wanted, rtol=1e-5, atol=1e-5)


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
    with pytest.raises(SettingError, match="refinenet of 4 stages halves images, and 15 x 16"):
        build_network(dataclasses.replace(SPEC, shape=(3, 15, 16)))
    with pytest.raises(SettingError, match="halves images 3 times, and 20 x 16 cannot"):
        RefineNet(channels=4, stages=6).build((3, 20, 16), 0)
    for settings, message in (
        ({"levels": 1}, "levels must be at least 2, or 0 for none, not 1"),
        ({"stages": 7}, "stages must be 4, 5 or 6, not 7"),
    ):
        with pytest.raises(SettingError, match=message):
            RefineNet(**settings)
    with pytest.raises(SettingError, match="channels must be at least 2"):
        RefineNet(channels=1)
