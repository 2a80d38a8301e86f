"""Benchmark of searches for a time point on simulated curves and on a real model: samples, and regret.

    python benchmarks/time_points.py --model runs/demo

Simulated: see `time_points_synthetic`. Real: every candidate of a grid is sampled 20,000 times for each seed;
every way to search then searches each seed's samples, as if it had asked for them. The curve of the other
seeds' samples is the judge: regret is that curve at the answer less its minimum. Wall times are of searches
that sample for themselves, as is the speed of two actors against one. Samples stay in --folder: a repeated
call goes on.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from machine import write_row
from time_points_synthetic import OPENAI, Synthetic, Trial, Way, measure, row, ways
from torch import Tensor

from cm_ray.cluster.pool.cache import ResultCache
from cm_ray.cluster.pool.pool import SamplerPool
from cm_ray.cluster.pool.reference import reference_set, run_of, scoring_setup
from cm_ray.cluster.pool.sizing import Actors, plan_actors
from cm_ray.cluster.runtime.connect import connected
from cm_ray.cluster.runtime.nodes import node_resources
from cm_ray.cluster.time_points.point_scores import OUTPUTS, PointScores, resampled_means
from cm_ray.cluster.training.prepare import prepare_shards
from cm_ray.command_line.options import run_job
from cm_ray.drawing import requests
from cm_ray.metrics.frechet import FrechetReference, frechet_influence
from cm_ray.networks.formats.reading import load_model
from cm_ray.recipes.measuring import ActorSettings, MeasuringSettings
from cm_ray.runs.console import shown
from cm_ray.sampling.multistep import multistep_of
from cm_ray.time_points.noisy_search import PointSampleRange
from cm_ray.time_points.openai_indices import taus
from cm_ray.time_points.sample_budget import Array, SampleBudget, SampleRange
from cm_ray.tracking.locate import locate_model

SAMPLES = 20_000
"""Samples of a candidate for each seed: the most that a search and its confirmation need."""
BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Benchmark(Synthetic):
    """Settings of the benchmark."""

    model: str = ""
    """A consistency model's run directory; empty: simulated curves only."""
    simulated: bool = True
    """Also search simulated curves."""
    grids: tuple[int, ...] = (18, 40)
    """Boundaries of the real model's grids."""
    seeds: int = 2
    """Seeds for each grid, two at least."""
    live: bool = True
    """Also time searches that sample from the model."""
    folder: str = ""
    """Folder of the real samples; empty for a temporary folder."""


class Real:
    """A model on a pool of actors, and what its samples are compared with."""

    def __init__(self, args: Benchmark, pool: SamplerPool, folder: Path) -> None:
        self.pool, self.folder = pool, folder
        self.place = locate_model(args.model)
        self.spec = load_model(self.place).spec
        self.setup = scoring_setup(MeasuringSettings(), run_of(self.place))
        shards, manifest = prepare_shards(self.setup.data)
        self.reference: FrechetReference = reference_set(
            pool, shards, manifest, self.setup.extractor, ()
        ).frechet
        self.model = pool.put(self.place)

    def cache(self, folder: Path) -> ResultCache:
        """Return the cache of the model's results in a folder."""
        return ResultCache(self.pool, self.model, self.setup.extractor, OUTPUTS, folder)

    def request(self, size: int, index: int, first: int, count: int, seed: int) -> requests.Request:
        """Return a request for samples of a candidate."""
        ends = {"t_min": self.spec.diffusion.t_min, "t_max": self.spec.diffusion.t_max}
        sampler = multistep_of(taus((index,), size, rho=self.spec.diffusion.rho, **ends), self.spec.diffusion)
        return requests.Request(first=first, count=count, seed=seed, sampler=sampler, unit=BATCH)

    def features(self, size: int, seed: int) -> dict[int, Tensor]:
        """Return the features of all candidates (SAMPLES, dim)."""
        asked = [self.request(size, i, 0, SAMPLES, seed) for i in range(1, size - 1)]
        with shown("image") as progress:
            made = dict(self.cache(self.folder).generate_all(asked, progress))
        return {i + 1: one.features for i, one in made.items() if one.features is not None}


class Replay:
    """Samples of one seed that are there already, for any search."""

    def __init__(self, features: dict[int, Tensor], reference: FrechetReference) -> None:
        self.features, self.reference = features, reference

    def sample(self, requests: Sequence[SampleRange]) -> list[tuple[tuple[int, int, int], ...]]:
        """Return candidate, first and last sample of each request."""
        return [((request.candidate, request.first, request.first + request.count),) for request in requests]

    def score(self, parts: tuple[tuple[int, int, int], ...]) -> Array:
        """Return the distance and its replicates."""
        features = torch.cat([self.features[i][first:stop] for i, first, stop in parts])
        value, influence = frechet_influence(features, self.reference)
        return np.concatenate([[value], value + resampled_means(influence)])


class Live:
    """Samples that are made when a search asks for them."""

    def __init__(self, real: Real, size: int, seed: int, folder: Path) -> None:
        self.scores = PointScores(
            real.cache(folder),
            real.reference,
            lambda asked: real.request(size, asked.points[0], asked.first, asked.count, seed),
            lambda measurement: None,
        )
        self.score = self.scores.score

    def sample(self, requests: Sequence[SampleRange]) -> list[object]:
        """Sample on the actors."""
        return list(
            self.scores.sample([PointSampleRange((r.candidate,), r.first, r.count) for r in requests])
        )


def searched(way: Way, size: int, scores: object, truth: Array, budget: SampleBudget) -> Trial:
    found = way(1, size - 2, scores, budget)  # type: ignore[arg-type]
    return Trial(len(found.counts), found.rounds, found.spent, float(truth[found.best - 1] - truth.min()))


def timed(
    way: Way, real: Real, size: int, truth: Array, budget: SampleBudget, seed: int
) -> tuple[float, Trial]:
    folder = Path(tempfile.mkdtemp(dir=real.folder))
    started = time.perf_counter()
    found = searched(way, size, Live(real, size, seed, folder), truth, budget)
    seconds = time.perf_counter() - started
    shutil.rmtree(folder)
    return seconds, found


def measure_grid(args: Benchmark, real: Real, size: int) -> None:
    """Print and write a row for each way to search a grid."""
    features = {seed: real.features(size, seed) for seed in range(100, 100 + args.seeds)}
    curves = np.array(
        [
            [frechet_influence(of_seed[i], real.reference)[0] for i in range(1, size - 1)]
            for of_seed in features.values()
        ]
    )
    judges = (curves.sum(0) - curves) / (args.seeds - 1)  # of each seed, the mean of the others
    budget = SampleBudget(first=args.budget // 16, full=args.budget)
    spread = float((curves - curves.mean(1, keepdims=True)).std(0, ddof=1).mean())
    best = [int(judge.argmin()) + 1 for judge in judges]
    print(
        f"N = {size}: best indices {best} of {curves.mean(0).round(3).tolist()}; a seed's error {spread:.4f}"
    )
    found: dict[str, list[Trial]] = {}
    for name, way in ways(args.actors):
        replays = [Replay(of_seed, real.reference) for of_seed in features.values()]
        found[name] = [searched(way, size, *one, budget) for one in zip(replays, judges, strict=True)]
        figures = row(size, name, found[name], found[OPENAI])
        figures |= {"data": "digits", "seeds": args.seeds, "seed_error": round(spread, 4)}
        if args.live and name != "exhaustive, fixed":
            seconds, live = timed(way, real, size, judges[0], budget, seed=500)
            figures |= {"seconds": round(seconds, 1), "seconds_samples": live.samples}
        print(
            "{n:4} {way:19} {evaluations:5} {rounds:6} {samples:8} {share:.3f}  {regret:.4f} "
            "{more_regret:+.4f}".format(**figures),
            f" {figures.get('seconds', '-')} s",
            flush=True,
        )
        write_row("time_points", figures)


def measure_actors(args: Benchmark, folder: Path) -> None:
    """Print and write how much faster two actors are than one: the same samples, in turns."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(3):
        for count in seconds:
            actors = Actors(count=count, cpus=1)
            with SamplerPool(
                scoring_setup(MeasuringSettings(), run_of(locate_model(args.model))).opener, actors
            ) as pool:
                real = Real(args, pool, folder)
                request = real.request(18, 9, 0, 16 * BATCH, seed=7)
                pool.generate(real.model, real.request(18, 9, 0, 2 * BATCH, seed=7), OUTPUTS)  # all are warm
                started = time.perf_counter()
                pool.generate(real.model, request, OUTPUTS)
                seconds[count].append(time.perf_counter() - started)
    medians = {count: statistics.median(values) for count, values in seconds.items()}
    ratio = medians[1] / medians[2]
    print(f"one actor {medians[1]:.2f} s, two {medians[2]:.2f} s: {ratio:.2f} times as fast")
    write_row("time_points", {"actors": medians, "ratio": round(ratio, 3), "images": 16 * BATCH})


def run(args: Benchmark) -> None:
    if args.simulated:
        measure(args)
    if not args.model:
        return
    folder = Path(args.folder or tempfile.mkdtemp()).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with connected():
        if args.live:
            measure_actors(args, folder)
        opener = scoring_setup(MeasuringSettings(), run_of(locate_model(args.model))).opener
        with SamplerPool(opener, plan_actors(ActorSettings(), node_resources())) as pool:
            real = Real(args, pool, folder)
            for size in args.grids:
                measure_grid(args, real, size)


if __name__ == "__main__":
    run_job(Benchmark, run, __doc__ or "")
