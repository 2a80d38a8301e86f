"""Benchmark of the time and the memory of a training step, compared with a plain program and the peak speed.

    python benchmarks/train_step.py                       # the comparison, float32 and bfloat16
    python benchmarks/train_step.py --compiled            # torch.compile too: many minutes of compiling
    python benchmarks/train_step.py --threads 1           # on a machine that is shared
    python benchmarks/train_step.py --networks small cifar10 --methods ct cd --batch-size 4
    python benchmarks/train_step.py --lpips --methods ct --batch-size 2    # LPIPS at 224 pixels, its share

A step is whole: student, target, in distillation the teacher (Heun), backward, RAdam, target update, three
averages. The network `small` (ADM, 32x32, 64 channels) is also trained by `plain_step.py`, a plain program
without LPIPS; all cases of a network take their steps in turn, so that a machine that is shared or warms
up treats them alike. The peak is that of matrix products of 2048 x 2048, measured between them.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from machine import write_row
from plain_step import Draw, PlainTraining, PlainUNet
from timing import counted_flops, matmul_flops, random_images, timed

from cm_ray import recipes
from cm_ray.budget.measured_memory import measured_memory
from cm_ray.budget.memory import training_memory, untrained_distance
from cm_ray.command_line.options import run_job
from cm_ray.core.averages import ConstantEMA
from cm_ray.networks.model import Model, ModelSpec, from_uint8
from cm_ray.recipes.recipe import Recipe
from cm_ray.settings.tree import override
from cm_ray.training.engine import Engine

Precision = Literal["float32", "bfloat16"]
Network = Literal["small", "digits", "cifar10", "imagenet64"]

SMALL = {
    "network": "adm",
    "network.channels": 64,
    "network.channel_mult": (1, 2, 2),
    "network.blocks": 2,
    "network.head_channels": 0,
    "network.scale_shift": True,
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PEAK_SIZE = 2048


@dataclass(frozen=True, kw_only=True)
class TrainStep:
    """Settings of the benchmark."""

    networks: tuple[Network, ...] = ("small",)
    """small: ADM at 32x32, 7.66 M parameters; the others as in the recipes."""
    methods: tuple[Literal["ct", "cd"], ...] = ("ct", "cd")
    """Consistency training, distillation."""
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    """Precisions of the networks' computations."""
    compiled: bool = False
    """Time every case with torch.compile, too."""
    lpips: bool = False
    """Train by LPIPS at 224 pixels, with random weights, in place of l2; without the plain program."""
    batch_size: int = 16
    """Images per step."""
    rounds: int = 5
    """Steps that are timed of each case; one more comes before."""
    threads: int = 0
    """PyTorch's threads; 0: as many as there are cores. On a shared machine, one, and `processor_seconds`."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device of the steps."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A case of the benchmark: the model and the settings of one step."""

    network: Network
    method: Literal["ct", "cd"]
    precision: Precision
    compiled: bool
    batch_size: int
    device: Literal["cpu", "cuda"]
    lpips: bool = False


def configured(case: Case) -> Recipe:
    """Return the settings of the recipe, but for the distance, a fixed target and fixed times."""
    base = {"digits": "ct_digits", "imagenet64": "ct_imagenet64"}.get(case.network, "ct_cifar10")
    changes: dict[str, Any] = {
        "batch_size": case.batch_size,
        "accumulate": 1,
        "precision": case.precision,
        "compile": case.compiled,
        "averages": ConstantEMA(decays=(0.999, 0.9999, 0.9999432)),
        "distance": "lpips" if case.lpips else "l2",
        "augmentation": "none",
        "network.conditional": False,
        "target": "constant",  # a step late in the training: N and mu do not move
        "target.mu": 0.99,
        "times.scales": "constant",
        "times.scales.n": 11 if case.network == "digits" else 201 if case.network == "imagenet64" else 151,
    }
    if case.method == "cd":
        changes |= {"method": "cd", "teacher.model": "given"}
    return override(recipes.named(base), changes | (SMALL if case.network == "small" else {}))


def engine_of(case: Case) -> Engine:
    config, side = configured(case), {"digits": 8, "imagenet64": 64}.get(case.network, 32)
    channels = 1 if case.network == "digits" else 3
    spec = ModelSpec(network=config.network, diffusion=config.diffusion, shape=(channels, side, side))
    denoiser = dataclasses.replace(config.diffusion, boundary="none")
    teacher = Model(dataclasses.replace(spec, diffusion=denoiser)) if case.method == "cd" else None
    distance = untrained_distance(config)
    if isinstance(distance, torch.nn.Module):
        distance.to(case.device)
    return Engine(config, spec, device=case.device, teacher=teacher, distance=distance)


def plain_stepper(case: Case, engine: Engine) -> Callable[[], object]:
    """Return the plain program's step, with draws of its own."""
    network = PlainUNet(3, 32, 64, (1, 2, 2), 2, (16,)).to(case.device)
    dtype = DTYPES[case.precision] if case.precision != "float32" else None
    training = PlainTraining(
        network, engine.config.optimizer.learning_rate, engine.config.averages.decays_at(0), dtype
    )
    images = random_images(engine).images
    method, total = engine.method, engine.config.steps

    def step() -> object:
        x = from_uint8(images.to(case.device))
        uniforms = torch.rand(len(x), device=x.device)
        t, s = method.times(uniforms, 0, total, engine.config.noise)
        return training.one_step(x, Draw(torch.randn_like(x), t, s), method.target_decay(0, total))

    return step


class OnePass(torch.nn.Module):
    """LPIPS by one pass of its trunk over both images, as some programs have it; for comparison."""

    def __init__(self, distance: Any) -> None:
        super().__init__()
        self.distance = distance

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Return the distances (b,)."""
        halves = [features.chunk(2) for features in self.distance.features(torch.cat([a, b]))]
        return self.distance.of_features(*zip(*halves, strict=True))


def distance_seconds(engine: Engine, distance: Any) -> float:
    """Return what a distance to the regression target takes in a step, forwards and backwards."""
    shape = (engine.config.batch_size, *engine.spec.shape)
    a, b = (torch.randn(shape, device=engine.device) for _ in range(2))
    a.requires_grad_()
    return min(timed(lambda: distance(a, b).mean().backward(), engine.device) for _ in range(3))


def averages_seconds(engine: Engine, device: str) -> float:
    """Return what moving the target and all averages takes."""
    return min(timed(lambda: engine.update_averages(0.99), device) for _ in range(5))


@dataclass
class Timed:
    """A case, what takes its steps, and how long they took."""

    name: str
    case: Case
    step: Callable[[], object]
    engine: Engine | None
    seconds: list[float] = dataclasses.field(default_factory=list)
    processor_seconds: list[float] = dataclasses.field(default_factory=list)


def competitors(args: TrainStep, network: Network, method: Literal["ct", "cd"]) -> Iterator[Timed]:
    """Yield all that take turns: every precision, eager and compiled, and the plain program."""
    for precision in args.precisions:
        for compiled in (False, True) if args.compiled else (False,):
            case = Case(
                network=network,
                method=method,
                precision=precision,
                compiled=compiled,
                batch_size=args.batch_size,
                device=args.device,
                lpips=args.lpips,
            )
            engine = engine_of(case)
            batch = random_images(engine)
            name = f"{precision} compiled" if compiled else precision
            yield Timed(name, case, lambda engine=engine, batch=batch: engine.one_step(batch), engine)
            if network == "small" and method == "ct" and not compiled and not args.lpips:
                yield Timed(f"plain {precision}", case, plain_stepper(case, engine), None)


def compared(args: TrainStep, network: Network, method: Literal["ct", "cd"]) -> list[dict[str, Any]]:
    """Time the cases of a network in turn; return a row each."""
    cases = list(competitors(args, network, method))
    flops = counted_flops(next(c.engine for c in cases if c.engine))
    peaks: dict[str, list[float]] = {precision: [] for precision in args.precisions}
    for entry in cases:
        entry.step()
    for _ in range(args.rounds):
        for entry in cases:
            started = time.process_time()
            entry.seconds.append(timed(entry.step, args.device))
            entry.processor_seconds.append(time.process_time() - started)
        for precision in args.precisions:
            peaks[precision].append(matmul_flops(DTYPES[precision], args.device, PEAK_SIZE))
    best = {precision: max(found) for precision, found in peaks.items()}
    return [row(entry, cases, flops, best[entry.case.precision], args) for entry in cases]


def row(entry: Timed, cases: list[Timed], flops: float, peak: float, args: TrainStep) -> dict[str, Any]:
    """Return what a case came to. times_plain: how much faster than the plain program, by rounds."""
    seconds, case = statistics.median(entry.seconds), entry.case
    made: dict[str, Any] = {"case": entry.name, **dataclasses.asdict(case), "rounds": args.rounds}
    made |= {
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 4),
        "fastest_seconds": round(min(entry.seconds), 4),
        "processor_seconds": round(min(entry.processor_seconds), 4),
        "images_per_s": round(args.batch_size / seconds, 2),
        "tflop": round(flops / 1e12, 4),
        "peak_gflop_per_s": round(peak / 1e9, 1),
        "share_of_peak": round(flops / seconds / peak, 3),
    }
    for other in cases:
        if other.engine is None:
            ratios = [theirs / ours for ours, theirs in zip(entry.seconds, other.seconds, strict=True)]
            made[f"times_{other.name.replace(' ', '_')}"] = round(statistics.median(ratios), 3)
    if entry.engine is not None:
        config, spec = entry.engine.config, entry.engine.spec
        memory = training_memory(config, spec, args.batch_size, args.device)
        fastest = min(entry.seconds)  # as those of the parts are: a busy machine changes medians more
        made |= {
            "parameters": memory.parameters,
            "distance_share": round(distance_seconds(entry.engine, entry.engine.distance) / fastest, 4),
            "averages_share": round(averages_seconds(entry.engine, args.device) / fastest, 4),
            "peak_mib": round(measured_memory(config, spec, args.batch_size, args.device) / 2**20),
            "estimated_mib": round(memory.step / 2**20),
        }
    if entry.engine is not None and case.lpips:
        one, two = (
            distance_seconds(entry.engine, form)
            for form in (OnePass(entry.engine.distance), entry.engine.distance)
        )
        made["one_pass_over_two"] = round(one / two, 3)
    return made


def measure(args: TrainStep) -> None:
    """Print and keep a row for every case."""
    if args.threads:
        torch.set_num_threads(args.threads)
    for network in args.networks:
        for method in args.methods:
            for made in compared(args, network, method):
                print(f"{network} {method} {made['case']}")
                for name, value in list(made.items())[8:]:
                    print(f"    {name:24} {value}")
                path = write_row("train_step", made)
    print(f"written to {path}")


if __name__ == "__main__":
    run_job(TrainStep, measure, __doc__ or "")
