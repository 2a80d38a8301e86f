"""Generation on Ray: warm actors that sample units of work, whoever does which."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import ray
import torch
from torch import Tensor

from cm_ray.cluster.launch import Plan, user_error
from cm_ray.metrics.extractors import open_extractor
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.networks.model import load_model
from cm_ray.training.sampling import Request, sample_unit


class Unit(NamedTuple):
    """What an actor made of a unit of work."""

    images: Tensor
    """uint8 (count, c, h, w)."""
    statistics: FeatureStatistics | None
    seconds: float
    """Spent on sampling; features are not in it."""


@dataclass(frozen=True, slots=True)
class Generated:
    """Samples in the order of their indices, and their features' statistics if an extractor was named."""

    images: Tensor
    """uint8 (n, c, h, w)."""
    statistics: FeatureStatistics | None
    seconds_per_1000: float
    """Seconds in which one actor samples 1,000 images: the median of its units, features not counted."""


@ray.remote(max_restarts=2, max_task_retries=2)
class Sampler:
    """A model and an extractor kept warm. A unit's noise belongs to its indices, whoever samples it."""

    def __init__(self, extractor: str, device: str) -> None:
        torch.set_num_threads(1)
        self.device, self.folder = device, ""
        self.extractor = None if extractor == "none" else open_extractor(extractor, device)

    def unit(self, model_folder: str, request: Request, first: int, count: int) -> Unit:
        """Sample one unit with the model in a folder, and sum its features."""
        if model_folder != self.folder:
            self.model, self.folder = load_model(Path(model_folder), self.device), model_folder
        started = time.perf_counter()
        images = sample_unit(self.model, request, first, count)
        seconds = time.perf_counter() - started
        features = None if self.extractor is None else self.extractor.features(images)
        return Unit(images, None if features is None else FeatureStatistics.of(features), seconds)


class SamplerPool:
    """Actors on what the training workers held: a GPU each, else a CPU core each for the cores they had."""

    def __init__(self, extractor: str, plan: Plan) -> None:
        count = plan.num_workers if plan.use_gpu else plan.num_workers * plan.threads
        share = plan.cpus_per_worker * plan.num_workers / count
        options = {"num_cpus": share} | ({"num_gpus": plan.gpus_per_worker} if plan.use_gpu else {})
        device = "cuda" if plan.use_gpu else "cpu"
        self.actors = [
            Sampler.options(**options).remote(extractor, device)  # type: ignore[attr-defined]
            for _ in range(count)
        ]

    def generate(self, model_folder: Path, request: Request) -> Generated:
        """Sample all units and add up their statistics in the units' order: the sum is repeatable.

        Raises the UserError of an actor.
        """
        try:
            return self._generate(str(model_folder), request)
        except ray.exceptions.RayError as error:
            raise user_error(error) or error from None

    def _generate(self, model_folder: str, request: Request) -> Generated:
        pool = ray.util.ActorPool(self.actors)
        units: list[Unit] = list(
            pool.map(lambda actor, unit: actor.unit.remote(model_folder, request, *unit), request.units())
        )
        total: FeatureStatistics | None = None
        for unit in units:
            if unit.statistics is not None:
                total = unit.statistics if total is None else total + unit.statistics
        images = torch.cat([unit.images for unit in units])
        return Generated(images, total, 1000 * statistics.median(u.seconds / len(u.images) for u in units))

    def close(self) -> None:
        """End the actors."""
        for actor in self.actors:
            ray.kill(actor)
