"""The U-Net is ADM's by its published sizes, takes what it should, and refuses the rest in a sentence."""

import dataclasses

import pytest
import torch

from cm_ray import recipes
from cm_ray.errors import UserError
from cm_ray.networks import families
from cm_ray.networks.architectures import ADM
from cm_ray.networks.blocks import AttentionBlock, sinusoidal_embedding
from cm_ray.networks.unet import UNet

TINY = ADM(
    channels=16, channel_mult=(1, 2), blocks=1, attention_resolutions=(4,), head_channels=8, norm_groups=4
)


@pytest.mark.parametrize(
    ("recipe", "shape", "classes", "tensors", "millions"),
    [
        (recipes.ct_imagenet64(), (3, 64, 64), 1000, 541, 295.90),
        (recipes.ct_lsun256(), (3, 256, 256), 0, 566, 526.30),
    ],
)
def test_published_sizes(recipe, shape, classes, tensors, millions):
    """OpenAI's ImageNet-64 and LSUN-256 checkpoints have this many tensors and parameters."""
    with torch.device("meta"):
        network = UNet(recipe.network, shape, classes)
    assert len(network.state_dict()) == tensors
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=5e-3)


def test_names_are_openais():
    names = set(UNet(dataclasses.replace(TINY, conditional=True), (1, 8, 8), 3).state_dict())
    for name in [
        "time_embed.0.weight",
        "label_emb.weight",
        "input_blocks.0.0.weight",
        "input_blocks.1.0.in_layers.0.weight",
        "input_blocks.1.0.emb_layers.1.weight",
        "input_blocks.1.0.out_layers.3.weight",
        "input_blocks.3.0.skip_connection.weight",
        "middle_block.1.qkv.weight",
        "middle_block.1.proj_out.weight",
        "output_blocks.0.0.in_layers.2.weight",
        "out.2.weight",
    ]:
        assert name in names


def trained_like(network):
    """Fill the zero-initialised layers, so that every path counts."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


@pytest.mark.parametrize("size", [8, 16, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("changes", [{}, {"resample_blocks": False, "scale_shift": False}])
def test_takes_sizes_and_channels(size, channels, changes):
    network = trained_like(UNet(dataclasses.replace(TINY, **changes), (channels, size, size), 0))
    x = torch.randn(2, channels, size, size)
    out = network(x, torch.tensor([1.0, -3.0]))
    assert out.shape == x.shape
    alone = network(x[1:], torch.tensor([-3.0]))
    torch.testing.assert_close(out[1:], alone, rtol=1e-4, atol=1e-5)


def test_begins_at_zero():
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(UNet(TINY, (1, 8, 8), 0)(x, torch.zeros(2)), torch.zeros_like(x))


def test_every_parameter_is_used():
    network = trained_like(UNet(dataclasses.replace(TINY, conditional=True), (1, 8, 8), 3))
    network(torch.randn(3, 1, 8, 8), torch.randn(3), torch.tensor([0, 1, 2])).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_labels_and_times_matter():
    network = trained_like(UNet(dataclasses.replace(TINY, conditional=True), (1, 8, 8), 3))
    x, time = torch.randn(1, 1, 8, 8), torch.zeros(1)
    a = network(x, time, torch.tensor([0]))
    assert not torch.allclose(a, network(x, time, torch.tensor([1])))
    assert not torch.allclose(a, network(x, time + 100, torch.tensor([0])))
    with pytest.raises(ValueError, match="needs labels"):
        network(x, time)
    with pytest.raises(ValueError, match="takes none"):
        UNet(TINY, (1, 8, 8), 0)(x, time, torch.tensor([0]))


def test_gradient_checkpointing_changes_nothing():
    torch.manual_seed(0)
    plain = trained_like(UNet(TINY, (1, 8, 8), 0))
    thrifty = UNet(dataclasses.replace(TINY, gradient_checkpointing=True), (1, 8, 8), 0)
    thrifty.load_state_dict(plain.state_dict())
    x, time = torch.randn(2, 1, 8, 8), torch.randn(2)
    for network in (plain, thrifty):
        network(x, time).square().sum().backward()
    for a, b in zip(plain.parameters(), thrifty.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_attention_is_ordered_three_heads_dim():
    """Against attention written out: channel 3hd's order decides whether published weights work."""
    torch.manual_seed(0)
    block = trained_like(AttentionBlock(16, dataclasses.replace(TINY, head_channels=4), families.ADM))
    x = torch.randn(2, 16, 3, 3)
    flat = block.norm(x).flatten(2)
    qkv = torch.einsum("oc,bcp->bop", block.qkv.weight[:, :, 0, 0], flat) + block.qkv.bias[:, None]
    heads = []
    for head in range(4):
        q, k, v = (qkv[:, part * 16 + head * 4 : part * 16 + head * 4 + 4] for part in range(3))
        attention = torch.softmax(torch.einsum("bdp,bdq->bpq", q, k) / 2, dim=-1)
        heads.append(torch.einsum("bpq,bdq->bdp", attention, v))
    mixed = torch.cat(heads, dim=1)
    out = torch.einsum("oc,bcp->bop", block.proj_out.weight[:, :, 0, 0], mixed) + block.proj_out.bias[:, None]
    torch.testing.assert_close(block(x, None), x + out.reshape(x.shape), rtol=1e-4, atol=1e-5)


def test_embedding_is_cosine_then_sine():
    out = sinusoidal_embedding(torch.tensor([2.0]), 4)
    angles = torch.tensor([2.0, 2.0 / 100])
    torch.testing.assert_close(out[0], torch.cat([angles.cos(), angles.sin()]))


@pytest.mark.parametrize(
    ("changes", "shape", "message"),
    [
        ({}, (1, 7, 7), "cannot be halved 1 times"),
        ({}, (1, 8, 7), "images of 8x7 pixels cannot be halved 1 times"),
        ({"norm_groups": 5}, (1, 8, 8), "network.norm_groups 5 does not divide"),
        ({"head_channels": 12}, (1, 8, 8), "network.head_channels 12 does not divide"),
        ({"channel_mult": ()}, (1, 8, 8), "at least one level"),
    ],
)
def test_what_does_not_fit_is_said(changes, shape, message):
    with pytest.raises(UserError, match=message):
        UNet(dataclasses.replace(TINY, **changes), shape, 0)
