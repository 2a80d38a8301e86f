"""The uncertainty of a training's loss, which is trained with the student, but is no part of the model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cm_ray.core.noise import derived_seed
from cm_ray.core.types import Times
from cm_ray.core.uncertainty import LearnedUncertainty, uncertain_loss
from cm_ray.networks.model import Model
from cm_ray.networks.uncertainty_network import UncertaintyNetwork
from cm_ray.recipes.recipe import Recipe


class LossUncertainty:
    """The knowledge that a training has of its loss at each noise level; nothing, unless the recipe says so.

    wrap: returns the data-parallel module of one. The weights are a function of the seed.
    """

    def __init__(
        self, config: Recipe, device: torch.device, wrap: Callable[[nn.Module], nn.Module] | None
    ) -> None:
        self.network: UncertaintyNetwork | None = None
        if isinstance(config.uncertainty, LearnedUncertainty):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derived_seed(config.seed, "uncertainty"))
                self.network = UncertaintyNetwork(config.uncertainty.channels).to(device)
        self.replica = wrap(self.network) if wrap and self.network else self.network

    def __call__(self, losses: Times, t: Times) -> Times:
        """Return the per-sample losses (b,) under the uncertainty at their times."""
        return losses if self.replica is None else uncertain_loss(losses, self.replica(t))

    def beside(self, student: nn.Module) -> nn.Module:
        """Return a module of all that is trained: a student, and this if there is any."""
        return student if self.network is None else nn.ModuleList([student, self.network])

    def parameters(self) -> list[nn.Parameter]:
        """Return the trained weights and the frequencies."""
        return [] if self.network is None else list(self.network.parameters())

    def before_step(self, student: Model) -> None:
        """Let a student change its weights before a step, and normalise those of this."""
        student.before_step()
        if self.network is not None:
            self.network.before_step()

    def weight_groups(self) -> dict[str, dict[str, Tensor]]:
        """Return the group of weights that a checkpoint has more."""
        return {} if self.network is None else {"uncertainty": self.network.state_dict()}
