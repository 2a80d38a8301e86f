"""Benchmark of searches for a time point on simulated curves of the published shapes: samples, and regret.

    python benchmarks/time_points_synthetic.py --curves 240

For every grid, the same noisy curves are searched by OpenAI's procedure (the ternary search that gives each
candidate 10,000 samples) and by every other way. Regret is the true curve at the answer less its minimum.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from machine import write_row
from threadpoolctl import threadpool_limits

from cm_ray.command_line.options import run_job
from cm_ray.time_points.integer_search import METHODS, method_named
from cm_ray.time_points.racing import PointResult, fixed_size, raced
from cm_ray.time_points.sample_budget import SampleBudget
from cm_ray.time_points.simulated import PUBLISHED, NoisyCurve, published_curve
from cm_ray.time_points.smooth import smooth

Way = Callable[[int, int, NoisyCurve, SampleBudget], PointResult]

OPENAI = "ternary, fixed"


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """Settings of the benchmark."""

    curves: int = 240
    """Curves of each grid."""
    actors: int = 4
    """Candidates that sections evaluates at once."""
    budget: int = 10_000
    """Samples of an evaluation of fixed size, and most samples of a candidate otherwise."""
    seed: int = 0
    """Seed of the curves and their noise."""


class Trial(NamedTuple):
    """One search of one curve."""

    evaluations: int
    """Candidates that were sampled."""
    rounds: int
    samples: int
    regret: float


def ways(actors: int) -> Iterator[tuple[str, Way]]:
    """Yield every way to search, OpenAI's first."""
    for name in METHODS:
        yield (
            f"{name}, fixed",
            partial(fixed_size, method_named(name, actors=2 if name == "ternary" else actors)),
        )
    for name in METHODS[:-1]:
        yield f"{name}, raced", partial(raced, method_named(name, actors=actors))
    yield "smooth", smooth


def trial(way: Way, shape: str, args: Synthetic, number: int) -> Trial:
    rng = np.random.default_rng([args.seed, number])
    curve = published_curve(shape, rng)
    deviation = rng.uniform(0.03, 0.05)  # of an FID of 10,000 samples
    scores = NoisyCurve(curve, rng, deviation=deviation, budget=args.budget)
    budget = SampleBudget(first=args.budget // 16, full=args.budget)
    found = way(1, len(curve) - 2, scores, budget)
    regret = float(curve[found.best] - curve[1:-1].min())
    return Trial(len(found.counts), found.rounds, found.spent, regret)


def mean_and_error(values: list[float]) -> tuple[float, float]:
    return statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5


def row(size: int, name: str, trials: list[Trial], openai: list[Trial]) -> dict[str, Any]:
    """Return the figures of a way, those beside OpenAI's paired by the curve."""
    regret, error = mean_and_error([trial.regret for trial in trials])
    pairs = zip(trials, openai, strict=True)
    more, more_error = mean_and_error([trial.regret - base.regret for trial, base in pairs])
    return {
        "n": size,
        "way": name,
        "curves": len(trials),
        "evaluations": round(statistics.mean(trial.evaluations for trial in trials), 1),
        "rounds": round(statistics.mean(trial.rounds for trial in trials), 1),
        "samples": round(statistics.mean(trial.samples for trial in trials)),
        "share": round(sum(t.samples for t in trials) / sum(t.samples for t in openai), 3),
        "regret": round(regret, 4),
        "regret_error": round(error, 4),
        "more_regret": round(more, 4),
        "more_regret_error": round(more_error, 4),
    }


def measure(args: Synthetic) -> None:
    print(f"{'N':>4} {'way':19} evals rounds  samples share  regret         more than OpenAI's")
    for size in sorted({shape.size for shape in PUBLISHED.values()}):
        shapes = [name for name, shape in PUBLISHED.items() if shape.size == size]
        found: dict[str, list[Trial]] = {}
        for name, way in ways(args.actors):
            found[name] = [trial(way, shapes[i % len(shapes)], args, i) for i in range(args.curves)]
            figures = row(size, name, found[name], found[OPENAI])
            print(
                "{n:4} {way:19} {evaluations:5} {rounds:6} {samples:8} {share:.3f}  {regret:.4f} ± "
                "{regret_error:.4f} {more_regret:+.4f} ± {more_regret_error:.4f}".format(**figures),
                flush=True,
            )
            path = write_row("time_points_synthetic", figures | dataclasses.asdict(args))
    print(f"written to {path}")


if __name__ == "__main__":
    with threadpool_limits(1):  # small matrices: threads cost more than they save
        run_job(Synthetic, measure, __doc__ or "")
