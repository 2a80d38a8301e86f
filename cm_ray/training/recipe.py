"""From a config's words to the parts of `core` that they name."""

from __future__ import annotations

import torch

from cm_ray.config import TrainConfig
from cm_ray.core import distance as distances
from cm_ray.core import times
from cm_ray.core.types import Distance


def scales(config: TrainConfig) -> times.Scales:
    """Return N(k)."""
    schedule = config.schedule
    if schedule.scales == "constant":
        return times.ConstantScales(schedule.s1 + 1)
    kind = times.AdaptiveScales if schedule.scales == "adaptive" else times.DoublingScales
    return kind(schedule.s0, schedule.s1, config.steps)


def target_decay(config: TrainConfig, num_scales: times.Scales) -> times.TargetDecay:
    """Return mu(k)."""
    schedule = config.schedule
    if schedule.target == "constant":
        return times.ConstantDecay(schedule.mu0)
    return times.AdaptiveDecay(schedule.mu0, schedule.s0, num_scales)


def proposal(config: TrainConfig) -> times.Proposal:
    """Return the distribution of the trained pairs."""
    schedule = config.schedule
    if schedule.proposal == "uniform":
        return times.UniformProposal()
    return times.LognormalProposal(schedule.p_mean, schedule.p_std)


def weight(config: TrainConfig) -> times.Weight:
    """Return lambda."""
    return times.UniformWeight() if config.schedule.weight == "uniform" else times.InverseGapWeight()


def distance(config: TrainConfig, device: torch.device) -> Distance:
    """Return d, on the device. Raises UserError when LPIPS's weights are not to be had."""
    if config.distance.name == "l1":
        return distances.L1()
    if config.distance.name == "l2":
        return distances.L2()
    if config.distance.name == "pseudo-huber":
        return distances.PseudoHuber(config.distance.c)
    from cm_ray.networks.perceptual import lpips_distance

    return lpips_distance(config.distance).to(device)
