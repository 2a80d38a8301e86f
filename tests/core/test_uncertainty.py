"""The learned uncertainty of a loss: where its minimum is, its gradients, and that it is learned."""

import pytest
import torch

from cm_ray.core.methods import Denoising
from cm_ray.core.uncertainty import LearnedUncertainty, uncertain_loss
from cm_ray.errors import SettingError
from cm_ray.networks.preconditioned import Denoiser
from cm_ray.networks.uncertainty_network import UncertaintyNetwork


def test_the_minimum_is_the_logarithm_of_the_loss():
    loss = torch.tensor([0.01, 1.0, 30.0], dtype=torch.float64)
    u = loss.log().requires_grad_()
    least = uncertain_loss(loss, u)
    torch.testing.assert_close(least.detach(), 1 + loss.log())
    (slope,) = torch.autograd.grad(least.sum(), u)
    torch.testing.assert_close(slope, torch.zeros_like(slope))
    assert (uncertain_loss(loss, u.detach() + 0.1) > least.detach()).all()
    assert (uncertain_loss(loss, u.detach() - 0.1) > least.detach()).all()


def test_gradients_are_those_of_the_loss_over_its_size():
    loss = torch.tensor([0.01, 30.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(uncertain_loss(loss, loss.detach().log()).sum(), loss)
    torch.testing.assert_close(slope, 1 / loss.detach())
    assert torch.equal(uncertain_loss(loss, torch.zeros(2)).detach(), loss.detach())


def test_it_learns_how_large_the_loss_is_at_each_noise_level():
    """Losses t^2/(1 + t^2) times exponentially distributed numbers of mean 1: u becomes ln of the first."""
    torch.manual_seed(0)
    network = UncertaintyNetwork(64)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(400):
        network.before_step()
        t = (torch.randn(512) * 1.2 - 1.2).exp()
        losses = t**2 / (1 + t**2) * torch.distributions.Exponential(1.0).sample((512,))
        optimizer.zero_grad()
        uncertain_loss(losses, network(t)).mean().backward()
        optimizer.step()
    t = torch.tensor([0.1, 0.3, 1.0])
    torch.testing.assert_close(network(t).detach(), (t**2 / (1 + t**2)).log(), rtol=0, atol=0.3)
    assert network(torch.zeros(1)).isfinite().all()
    weight = network.linear.weight.detach()
    assert float(weight.square().mean().sqrt()) == pytest.approx(1, abs=0.1)


class Still(torch.nn.Module):
    """F(x, time) = a x with one weight."""

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(0.3))

    def forward(self, x, time):
        """Return a x."""
        return self.a * x


def test_a_loop_of_ones_own_has_it_too():
    student, network, x = Denoiser(Still()), UncertaintyNetwork(8), torch.randn(4, 1, 4, 4)
    method, seen = Denoising(), []

    def watched(t):
        seen.append(t)
        return network(t)

    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    plain = method(student, x, generator=generators[0])
    found = method(student, x, generator=generators[1], uncertainty=watched)
    torch.testing.assert_close(found, uncertain_loss(plain, network(seen[0])))
    found.mean().backward()
    assert network.linear.weight.grad.abs().sum() > 0


def test_its_features_are_at_least_one():
    with pytest.raises(SettingError, match="channels must be at least 1"):
        LearnedUncertainty(channels=0)
