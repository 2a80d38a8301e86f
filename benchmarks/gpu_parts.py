"""The parts of `benchmarks/gpu.py` beside whole steps: waiting, copies, updates of weights, samples."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from gpu_cases import Case, engine_of, free, stepper
from timing import random_images, timed
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from cm_ray.core.ema import update_average
from cm_ray.metrics.extractors.inception import InceptionExtractor
from cm_ray.metrics.frechet import frechet_distance
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.networks.model import to_uint8
from cm_ray.sampling.samplers import OneStep
from cm_ray.training.batch import Batch
from cm_ray.training.engine import Engine

FID_SAMPLES = 50_000
SAMPLE_BATCHES = (128, 256, 512, 1024, 2048)


class Rows(Protocol):
    """A run of the benchmark, which keeps rows."""

    device: str
    small: bool

    def add(self, section: str, case: str, **values: Any) -> None:
        """Keep a row."""


def waits(run: Rows, case: Case) -> None:
    """Train steps of the engine's own loop while PyTorch raises an error on every wait for the GPU."""
    engine = engine_of(case)
    batch = random_images(engine)
    engine.one_step(batch)
    steps = engine.train(iter(lambda: batch, None))
    with _no_waits(case.device):
        for _ in range(4):
            next(steps)
    engine.check_finite()
    how = "no wait in 4 steps" if case.device == "cuda" else "not checked: no GPU"
    run.add("waits", f"{case.workload}, eager, {case.batch_size}", result=how)


@contextlib.contextmanager
def _no_waits(device: str) -> Iterator[None]:
    if device != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def copies(run: Rows, case: Case) -> None:
    """Time steps whose images come from the host, in turn with steps whose images are on the device."""
    engine = engine_of(case)
    host = random_images(engine)
    there = Batch(host.images.to(case.device), host.labels.to(case.device))
    ways = {name: _some(stepper(case, engine, batch)) for name, batch in (("host", host), ("there", there))}
    for steps in ways.values():
        steps()
    pairs = [
        (timed(ways["host"], case.device), timed(ways["there"], case.device))
        for _ in range(1 if run.small else 5)
    ]
    run.add(
        "data",
        f"{case.workload}, eager, {case.batch_size}",
        from_host_over_on_device=round(statistics.median(a / b for a, b in pairs), 4),
        **_profiled(ways["host"] if case.device == "cuda" else stepper(case, engine, host), case.device),
    )


def _some(step: Callable[[], object]) -> Callable[[], None]:
    def steps() -> None:
        for _ in range(4):
            step()

    return steps


def _profiled(steps: Callable[[], object], device: str) -> dict[str, float]:
    """Return the shares of the time in which the GPU copies from the host, and in which it computes."""
    activity = ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity]) as recorded:
        timed(steps, device)
    events = [e for e in recorded.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    if not events:
        return {}
    whole = max(e.time_range.end for e in events) - min(e.time_range.start for e in events)
    copied = sum(e.time_range.elapsed_us() for e in events if "HtoD" in e.name)
    busy = sum(e.time_range.elapsed_us() for e in events if "Memcpy" not in e.name)
    return {"copying_share": round(copied / whole, 5), "computing_share": round(busy / whole, 4)}


def updates(run: Rows, case: Case) -> None:
    """Time optimizer and averages: a tensor at a time, all tensors by foreach, and one kernel."""
    engine = engine_of(case)
    parameters = list(engine.student.network.parameters())
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 1e-3)
    current, average = [p.detach() for p in parameters], engine.averages[0]
    flat = torch.cat([p.reshape(-1) for p in current])
    other = flat.clone()

    def one_by_one() -> None:
        for old, new in zip(average, current, strict=True):
            old.lerp_(new, 0.001)

    _check_averages(average, current)
    fused = case.device == "cuda"
    ways: dict[str, Callable[[], object]] = {
        "average, a loop": one_by_one,
        "average, foreach": lambda: update_average(average, current, 0.999),
        "average, one flat tensor": lambda: other.lerp_(flat, 0.001),
        "RAdam, a loop": torch.optim.RAdam(parameters, lr=1e-9, foreach=False).step,
        "RAdam, foreach": torch.optim.RAdam(parameters, lr=1e-9, foreach=True).step,
        "AdamW, fused": torch.optim.AdamW(parameters, lr=1e-9, fused=fused).step,
    }
    for name, way in ways.items():
        way()
        seconds = statistics.median(timed(way, case.device) for _ in range(3 if run.small else 20))
        run.add("updates", name, ms=round(1000 * seconds, 3), parameters=flat.numel())


def _check_averages(average: list[Tensor], current: list[Tensor]) -> None:
    wanted = [old + (new - old) * 0.5 for old, new in zip(average, current, strict=True)]
    update_average(average, current, 0.5)
    for ours, theirs in zip(average, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


def one_step_samples(run: Rows, case: Case) -> None:
    """Time one-step samples, as uint8 images, at several batch sizes."""
    engine: Engine = engine_of(case)
    model, best = engine.averaged_model(), 0.0
    with model.computing_in("bfloat16"):
        short = model.sample(torch.arange(4, device=case.device), seed=0, sampler=OneStep())
    with model.computing_in("float32"):
        exact = model.sample(torch.arange(4, device=case.device), seed=0, sampler=OneStep())
    if not bool((short - exact).norm() < 0.1 * exact.norm()):
        raise ValueError("samples in bfloat16 differ from those in float32 by more than 10 %")
    del engine
    free()
    model.precision = "bfloat16"
    for rows in (4,) if run.small else SAMPLE_BATCHES:
        indices = torch.arange(rows, device=case.device)
        try:
            seconds = _best(
                lambda indices=indices: to_uint8(model.sample(indices, seed=0, sampler=OneStep())), case
            )
        except torch.OutOfMemoryError:
            break
        best = max(best, rows / seconds)
        run.add("samples", f"{case.workload}, one step, {rows}", images_per_s=round(rows / seconds, 1))
    run.add("samples", f"{case.workload}, 50,000", sampling_s=round(FID_SAMPLES / best, 1))


def _best(call: Callable[[], object], case: Case) -> float:
    call()
    return min(timed(call, case.device) for _ in range(1 if case.small else 3))


def features_of_fid(run: Rows) -> None:
    """Time the features of FID: Inception-v3 with random weights, whose arithmetic is that of the published.

    And the distance of 2,048 features, which is computed on the CPU.
    """
    extractor, rows = InceptionExtractor.random(run.device), 2 if run.small else 512
    images = torch.randint(0, 256, (rows, 3, 32, 32), dtype=torch.uint8, device=run.device)
    extractor.features(images)
    seconds = min(timed(lambda: extractor.features(images), run.device) for _ in range(1 if run.small else 3))
    features = torch.randn(64 if run.small else 4096, 64 if run.small else 2048)
    halves = [FeatureStatistics.of(half) for half in features.chunk(2)]
    distance = timed(lambda: frechet_distance(*halves), "cpu")
    run.add(
        "samples",
        f"Inception with random weights, {rows}",
        images_per_s=round(rows / seconds, 1),
        features_50k_s=round(FID_SAMPLES * seconds / rows, 1),
        distance_s=round(distance, 2),
    )
