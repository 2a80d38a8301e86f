"""From a config's words to the parts of `core` that they name."""

from __future__ import annotations

import torch

from cm_ray.core import distance as distances
from cm_ray.core import objectives, proposals, schedules, solvers, weights
from cm_ray.core.types import Distance
from cm_ray.recipes.config import TrainConfig


def objective(config: TrainConfig) -> objectives.Objective:
    """Return what the student is asked for."""
    if config.method == "edm":
        return objectives.Denoising()
    if config.method == "ct":
        return objectives.ConsistencyTraining()
    if config.method == "pd":
        return objectives.ProgressiveDistillation(config.diffusion.rho)
    euler = config.teacher.solver == "euler"
    return objectives.ConsistencyDistillation(solvers.euler_step if euler else solvers.heun_step)


def has_target(config: TrainConfig) -> bool:
    """Tell whether the target network is another than the student."""
    stopped = config.schedule.target == "constant" and config.schedule.mu0 == 0
    return config.method in ("ct", "cd") and not stopped


def rounds(config: TrainConfig) -> schedules.HalvingScales | None:
    """Return the rounds of progressive distillation, None for other methods."""
    if config.method != "pd":
        return None
    return schedules.HalvingScales(config.schedule.s0, config.schedule.s1, config.steps)


def scales(config: TrainConfig) -> schedules.Scales:
    """Return N(k)."""
    schedule = config.schedule
    if schedule.scales == "constant":
        return schedules.ConstantScales(schedule.s1 + 1)
    kinds: dict[str, type[schedules.AdaptiveScales | schedules.DoublingScales | schedules.HalvingScales]] = {
        "adaptive": schedules.AdaptiveScales,
        "doubling": schedules.DoublingScales,
        "halving": schedules.HalvingScales,
    }
    return kinds[schedule.scales](schedule.s0, schedule.s1, config.steps)


def target_decay(config: TrainConfig) -> schedules.TargetDecay:
    """Return mu(k)."""
    schedule = config.schedule
    if schedule.target == "constant":
        return schedules.ConstantDecay(schedule.mu0)
    return schedules.AdaptiveDecay(schedule.mu0, schedule.s0, scales(config))


def learning_rate(config: TrainConfig) -> schedules.LearningRate:
    """Return the learning rate as a function of the step."""
    optimizer, halving = config.optimizer, rounds(config)
    starts = tuple(halving.starts) if halving else (0, config.steps)
    return schedules.LearningRate(
        optimizer.learning_rate, optimizer.warmup_steps, optimizer.decay == "linear", starts
    )


def time_pairs(config: TrainConfig) -> proposals.TimePairs:
    """Return the distribution of the trained times."""
    schedule, diffusion = config.schedule, config.diffusion
    if schedule.proposal == "continuous":
        lognormal = proposals.LognormalTimes(
            schedule.p_mean, schedule.p_std, diffusion.t_min, diffusion.t_max
        )
        if config.method == "edm":
            return lognormal
        return proposals.TunedPairs(
            lognormal, schedule.ect_q, schedule.ect_k, schedule.ect_b, schedule.ect_stages, config.steps
        )
    index = (
        proposals.UniformProposal()
        if schedule.proposal == "uniform"
        else proposals.LognormalProposal(schedule.p_mean, schedule.p_std)
    )
    return proposals.GridPairs(scales(config), index, diffusion.t_min, diffusion.t_max, diffusion.rho)


def weight(config: TrainConfig) -> weights.Weight:
    """Return lambda."""
    kinds: dict[str, weights.Weight] = {
        "uniform": weights.UniformWeight(),
        "snr": weights.SnrWeight(),
        "snr+1": weights.SnrPlusOneWeight(),
        "karras": weights.KarrasWeight(config.diffusion.sigma_data),
        "truncated-snr": weights.TruncatedSnrWeight(),
        "inverse-gap": weights.InverseGapWeight(),
    }
    return kinds[config.schedule.weight]


def distance(config: TrainConfig, device: torch.device) -> Distance:
    """Return d, on the device. Raises UserError when LPIPS's weights are not to be had."""
    if config.distance.name == "l1":
        return distances.L1()
    if config.distance.name == "l2":
        return distances.L2()
    if config.distance.name == "norm":
        return distances.Norm()
    if config.distance.name == "pseudo-huber":
        return distances.PseudoHuber(config.distance.c)
    from cm_ray.networks.perceptual import lpips_distance

    return lpips_distance(config.distance).to(device)
