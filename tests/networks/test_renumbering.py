"""A network with other class numbers does the same for the same class, to the bit."""

import dataclasses

import pytest
import torch
from torch import nn

from cm_ray.core.diffusion import Diffusion
from cm_ray.errors import UserError
from cm_ray.networks.architectures import DDPMpp, NCSNpp
from cm_ray.networks.custom import custom_network
from cm_ray.networks.model import Model, ModelSpec
from cm_ray.networks.renumbering import renumbered
from tests.networks.test_unet import TINY, trained_like

FAMILIES = [
    dataclasses.replace(TINY, conditional=True),
    *(
        kind(
            channels=8,
            channel_mult=(1, 2),
            blocks=1,
            attention_resolutions=(),
            norm_groups=4,
            conditional=True,
        )
        for kind in (DDPMpp, NCSNpp)
    ),
]


class Own(nn.Module):
    """A network whose weights nobody else knows."""

    def __init__(self, shape, classes):
        super().__init__()
        self.rows = nn.Embedding(classes, 1)

    def forward(self, x, time, labels=None):
        """Shift the images by the class."""
        return x + self.rows(labels)[..., None, None]


def model_of(network):
    spec = ModelSpec(
        network=network,
        diffusion=Diffusion(),
        shape=(1, 8, 8),
        class_names=("trouser", "coat", "hat"),
        class_counts=(5, 0, 7),
    )
    torch.manual_seed(0)
    made = Model(spec)
    trained_like(made.network)
    return made.eval()


@pytest.mark.parametrize("network", FAMILIES, ids=lambda network: network.family)
def test_every_class_is_computed_as_before(network):
    before = model_of(network)
    after = renumbered(before, (2, 0, 1), ("hat", "trouser", "coat"))
    assert after.spec.class_names == ("hat", "trouser", "coat")
    assert after.spec.class_counts == (7, 5, 0)
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0.5, 3.0, 60.0])
    with torch.no_grad():
        wanted = before(x, t, torch.tensor([2, 0, 1]))
        assert torch.equal(after(x, t, torch.tensor([0, 1, 2])), wanted)
        assert not torch.equal(before(x, t, torch.tensor([0, 1, 2])), wanted)
    assert not after.training


def test_names_alone_may_change():
    before = model_of(FAMILIES[0])
    after = renumbered(before, (0, 1, 2), ("a", "b", "c"))
    assert (after.spec.class_names, after.spec.class_counts) == (("a", "b", "c"), (5, 0, 7))
    for name, value in before.network.state_dict().items():
        assert torch.equal(after.network.state_dict()[name], value)


def test_a_network_of_ones_own_keeps_its_numbers():
    own = Model(
        ModelSpec(
            network=custom_network(Own, conditional=True),
            diffusion=Diffusion(),
            shape=(1, 8, 8),
            class_names=("trouser", "coat"),
        )
    )
    with pytest.raises(UserError, match=r"of your own cannot be renumbered; .* as it does: trouser, coat"):
        renumbered(own, (1, 0), ("coat", "trouser"))
    assert renumbered(own, (0, 1), ("a", "b")).spec.class_names == ("a", "b")
