"""What a config must fulfil to be trained: each rule a condition and a sentence that names the setting."""

from __future__ import annotations

import itertools

from cm_ray.core.schedules import HalvingScales
from cm_ray.errors import UserError
from cm_ray.recipes.config import TrainConfig
from cm_ray.sampling.text import own_sampler, parse

Rule = tuple[bool, str]


def check(config: TrainConfig) -> None:
    """Raise UserError, naming the setting, when a config cannot be trained."""
    for rules in (_batch, _run, _method, _schedule, _network_and_optimizer, _evaluation):
        for holds, sentence in rules(config):
            if not holds:
                raise UserError(sentence + ".")
    for text in config.evaluation.samplers:
        try:
            parse(text, config.diffusion, own=own_sampler(config))
        except UserError as error:
            raise UserError(f"--evaluation.samplers: {error}") from error


def _batch(config: TrainConfig) -> list[Rule]:
    workers, parts = config.cluster.num_workers, config.accumulate
    pieces = max(1, workers) * max(1, parts)
    return [
        (workers >= 1, f"--num-workers must be at least 1, not {workers}"),
        (parts >= 1, f"--accumulate must be at least 1, not {parts}"),
        (config.batch_size >= 1, f"--batch-size must be at least 1, not {config.batch_size}"),
        (
            config.batch_size % pieces == 0,
            f"--batch-size {config.batch_size} does not split into {workers} workers x {parts} parts; "
            f"choose a multiple of {pieces}",
        ),
    ]


def _run(config: TrainConfig) -> list[Rule]:
    every, scored = config.checkpoint.every, config.evaluation.every
    return [
        (config.steps >= 1, f"--steps must be at least 1, not {config.steps}"),
        (0 <= config.seed < 2**63, f"--seed must be in [0, 2^63), not {config.seed}"),
        (bool(config.ema_decays), "--ema-decays needs at least one decay"),
        (all(0 <= d < 1 for d in config.ema_decays), f"--ema-decays must be in [0, 1): {config.ema_decays}"),
        (config.log_every >= 1, f"--log-every must be at least 1, not {config.log_every}"),
        (every >= 1, f"--checkpoint.every must be at least 1, not {every}"),
        (config.checkpoint.keep >= 1, f"--checkpoint.keep must be at least 1, not {config.checkpoint.keep}"),
        (scored >= 0, f"--evaluation.every must not be negative, but {scored}"),
        (
            scored % max(1, every) == 0,
            f"--evaluation.every {scored} must be a multiple of --checkpoint.every {every}: "
            "scores belong to checkpoints",
        ),
    ]


def _method(config: TrainConfig) -> list[Rule]:
    method, diffusion, schedule = config.method, config.diffusion, config.schedule
    denoiser = method in ("edm", "pd")
    return [
        (
            denoiser == (diffusion.boundary == "none"),
            f"--diffusion.boundary {diffusion.boundary} does not go with --method {method}: edm and pd make "
            "diffusion models, which have none, and ct and cd make consistency models, which have one",
        ),
        (
            bool(config.teacher.model) or (method not in ("cd", "pd") and config.init_from != "teacher"),
            "Which teacher? --teacher takes a run directory, models:/NAME@ALIAS or a file of weights",
        ),
        (
            not config.teacher.model or method in ("cd", "pd") or config.init_from == "teacher",
            f"--method {method} does not use a teacher: leave --teacher out, or give --init-from teacher",
        ),
        (
            method in ("ct", "cd") or (schedule.target, schedule.mu0) == ("constant", 0.0),
            f"--method {method} has no target network: --schedule.target must be constant and mu0 0",
        ),
        (
            (method == "pd") == (schedule.scales == "halving"),
            f"--schedule.scales {schedule.scales} does not go with --method {method}: pd alone halves",
        ),
        (
            method != "pd" or schedule.proposal == "uniform",
            "--schedule.proposal must be uniform with --method pd",
        ),
        (
            method != "edm" or schedule.proposal == "continuous",
            "--schedule.proposal must be continuous with --method edm",
        ),
        (diffusion.rho > 0, f"--diffusion.rho must be positive, not {diffusion.rho}"),
        (diffusion.sigma_data > 0, f"--diffusion.sigma-data must be positive, not {diffusion.sigma_data}"),
        (
            0 < diffusion.t_min < diffusion.t_max,
            f"--diffusion.t-min {diffusion.t_min} must be in (0, t_max = {diffusion.t_max})",
        ),
    ]


def _schedule(config: TrainConfig) -> list[Rule]:
    schedule = config.schedule
    ratio, rest = divmod(schedule.s1, max(1, schedule.s0))
    halves = rest == 0 and ratio > 0 and ratio & (ratio - 1) == 0
    return [
        (1 <= schedule.s0 <= schedule.s1, f"--schedule.s0 {schedule.s0} must be in [1, s1 = {schedule.s1}]"),
        (
            schedule.s0 >= 2 or schedule.scales != "adaptive",
            "--schedule.s0 must be at least 2 with --schedule.scales adaptive: a grid has two boundaries",
        ),
        (
            schedule.scales != "halving" or halves,
            f"--schedule.s1 {schedule.s1} must be s0 = {schedule.s0} times a power of two: it is halved",
        ),
        (
            schedule.scales != "halving" or not halves or _rounds_have_steps(config),
            f"--steps {config.steps} are too few for the rounds from {schedule.s1} sampling steps to "
            f"{schedule.s0}: every round needs one",
        ),
        (
            0 <= schedule.mu0 < 1 and (schedule.mu0 > 0 or schedule.target == "constant"),
            f"--schedule.mu0 {schedule.mu0} must be in (0, 1), or 0 with --schedule.target constant",
        ),
        (schedule.p_std > 0, f"--schedule.p-std must be positive, not {schedule.p_std}"),
        (schedule.ect_q > 1, f"--schedule.ect-q must be greater than 1, not {schedule.ect_q}"),
        (schedule.ect_stages >= 1, f"--schedule.ect-stages must be at least 1, not {schedule.ect_stages}"),
    ]


def _rounds_have_steps(config: TrainConfig) -> bool:
    starts = HalvingScales(config.schedule.s0, config.schedule.s1, config.steps).starts
    return all(start < end for start, end in itertools.pairwise(starts))


def _network_and_optimizer(config: TrainConfig) -> list[Rule]:
    network, optimizer = config.network, config.optimizer
    rate = optimizer.learning_rate
    return [
        (
            min(network.channels, network.blocks, network.norm_groups) >= 1,
            "--network.channels, blocks and norm-groups must be at least 1",
        ),
        (
            network.head_channels >= 0,
            f"--network.head-channels must be at least 1, or 0 for one head, not {network.head_channels}",
        ),
        *_song(config),
        (network.fourier_scale > 0, f"--network.fourier-scale must be positive, not {network.fourier_scale}"),
        (0 <= network.dropout < 1, f"--network.dropout must be in [0, 1), not {network.dropout}"),
        (
            0 <= optimizer.warmup_steps < config.steps,
            f"--optimizer.warmup-steps {optimizer.warmup_steps} must be in [0, --steps {config.steps})",
        ),
        (rate > 0, f"--optimizer.learning-rate must be positive, not {rate}"),
        (0 < optimizer.beta2 < 1, f"--optimizer.beta2 must be in (0, 1), not {optimizer.beta2}"),
        (
            optimizer.gradient_clip >= 0,
            f"--optimizer.gradient-clip must not be negative, but {optimizer.gradient_clip}",
        ),
    ]


def _song(config: TrainConfig) -> list[Rule]:
    """Refuse crosses of Song et al.'s networks with ADM that nobody has named."""
    network = config.network
    theirs = network.family != "adm"
    family = f"--network.family {network.family} is Song et al.'s network, which"
    return [
        (not theirs or network.head_channels == 0, f"{family} has one head: give --network.head-channels 0"),
        (
            not theirs or not network.scale_shift,
            f"{family} adds the time to the features: give --network.no-scale-shift",
        ),
        (
            not theirs or network.resample_blocks,
            f"{family} changes the resolution inside residual blocks: give --network.resample-blocks",
        ),
    ]


def _evaluation(config: TrainConfig) -> list[Rule]:
    evaluation = config.evaluation
    return [
        (evaluation.batch_size >= 1, f"--evaluation.batch-size must be at least 1: {evaluation.batch_size}"),
        (evaluation.grid >= 1, f"--evaluation.grid must be at least 1, not {evaluation.grid}"),
        (
            evaluation.samples == 0 or evaluation.samples >= 2,
            "--evaluation.samples must be at least 2 for a score, or 0 for as many as there are images",
        ),
        (bool(evaluation.samplers), "--evaluation.samplers needs at least one, such as own"),
    ]
