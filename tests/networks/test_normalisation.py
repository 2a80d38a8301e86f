"""The fused group normalisation is PyTorch's, value and gradients, and is used where it should be."""

import pytest
import torch
from torch.nn import functional

from cm_ray.networks import normalisation
from cm_ray.networks.architectures import ADM, NCSNpp
from cm_ray.networks.normalisation import GroupNorm
from cm_ray.networks.unet import UNet


def inputs(dtype, size=16):
    """Images far from zero mean, so that a variance by difference of squares would show."""
    generator = torch.Generator().manual_seed(0)
    x = (2 * torch.randn(3, 24, size, size, generator=generator) + 20).to(dtype)
    scale, shift = (torch.randn(3, 24, 1, 1, generator=generator).to(dtype) for _ in range(2))
    return x.contiguous(memory_format=torch.channels_last), scale, shift


def filled(norm):
    generator = torch.Generator().manual_seed(1)
    for parameter in norm.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return norm


def by_definition(norm, x, scale, shift, silu):
    """The same in float64, by PyTorch's own operations."""
    y = functional.group_norm(x, norm.num_groups, norm.weight.double(), norm.bias.double(), norm.eps)
    y = y * (1 + scale) + shift
    return functional.silu(y) if silu else y


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_values_and_gradients_are_group_norms(dtype, tolerance, modulated, silu, monkeypatch):
    """Tolerances: 2^-24 and 2^-8 are the roundings; x is ten standard deviations from zero."""
    monkeypatch.setattr(
        normalisation, "_fuses", lambda x: True
    )  # float32, too: what bfloat16 rounds, it shows
    norm = filled(GroupNorm(8, 24))
    x, scale, shift = inputs(dtype)
    if not modulated:
        scale, shift = torch.zeros_like(scale), torch.zeros_like(shift)
    leaves = [x, scale, shift] if modulated else [x]
    leaves = [leaf.requires_grad_() for leaf in leaves] + list(norm.parameters())
    y = norm(x, (scale, shift) if modulated else None, silu=silu)
    expected = by_definition(norm, x.double(), scale.double(), shift.double(), silu)
    assert y.dtype == dtype
    assert type(y.grad_fn).__name__ == "_FusedNormBackward"
    torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    for ours, theirs in zip(
        torch.autograd.grad((y * weights).sum(), leaves),
        torch.autograd.grad((expected * weights).sum(), leaves),
        strict=True,
    ):
        assert ours.dtype == theirs.dtype
        scale_of = float(theirs.abs().max())
        torch.testing.assert_close(ours / scale_of, theirs / scale_of, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "x",
    [
        inputs(torch.bfloat16, size=8)[0],  # small
        inputs(torch.float32)[0],
        inputs(torch.float64)[0],
        inputs(torch.bfloat16)[0].contiguous(),  # channels first
    ],
)
def test_other_images_take_pytorchs_operations(x):
    """The result is equal to the bit: what float32 has trained stays what it was."""
    norm = filled(GroupNorm(8, 24)).to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    _, scale, shift = inputs(x.dtype)
    plain = functional.group_norm(x, 8, norm.weight, norm.bias, norm.eps)
    assert torch.equal(norm(x), plain)
    modulated = functional.silu(torch.addcmul(shift, plain, 1 + scale))
    assert torch.equal(norm(x, (scale, shift), silu=True), modulated)


@pytest.mark.parametrize(("kind", "more"), [(ADM, {"head_channels": 0}), (NCSNpp, {})])
def test_a_network_computes_the_same_with_and_without(kind, more, monkeypatch):
    """Fused against PyTorch's operations, output and all gradients, to the roundings of 20 layers."""
    config = kind(
        channels=16, channel_mult=(1, 2), blocks=1, attention_resolutions=(16,), norm_groups=4, **more
    )
    torch.manual_seed(0)
    network = UNet(config, (3, 32, 32), 0)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    network.to(memory_format=torch.channels_last)
    x, time = torch.randn(2, 3, 32, 32), torch.randn(2)
    found = []
    for fuses in (True, False):
        monkeypatch.setattr(normalisation, "_fuses", lambda x, fuses=fuses: fuses and x[0, 0].numel() > 100)
        network.zero_grad()
        y = network(x, time)
        y.square().mean().backward()
        grads = [p.grad.clone() for p in network.parameters() if p.requires_grad]
        found.append([y.detach(), *grads])
    assert not torch.equal(found[0][0], found[1][0]), "two ways of computing it"
    for fused, plain in zip(*found, strict=True):
        size = float(plain.abs().max())
        torch.testing.assert_close(fused / size, plain / size, rtol=0, atol=1e-4)
