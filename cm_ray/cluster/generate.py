"""Generation on Ray: warm actors that sample units of work, whoever does which."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import ray
import torch
from torch import Tensor

from cm_ray.cluster.launch import Plan, user_error
from cm_ray.metrics.extractors import open_extractor
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.networks.model import load_model
from cm_ray.training.sampling import Request, sample_unit


@dataclass(frozen=True, slots=True)
class Generated:
    """Samples in the order of their indices, and their features' statistics if an extractor was named."""

    images: Tensor
    """uint8 (n, c, h, w)."""
    statistics: FeatureStatistics | None


@ray.remote(max_restarts=2, max_task_retries=2)
class Sampler:
    """A model kept warm. A unit's noise belongs to its indices, so it does not matter who does it."""

    def __init__(self, model_folder: str, extractor: str, device: str) -> None:
        torch.set_num_threads(1)
        self.model = load_model(Path(model_folder), device)
        self.extractor = None if extractor == "none" else open_extractor(extractor, device)

    def unit(self, request: Request, first: int, count: int) -> tuple[Tensor, FeatureStatistics | None]:
        """Sample one unit and sum its features."""
        images = sample_unit(self.model, request, first, count)
        if self.extractor is None:
            return images, None
        return images, FeatureStatistics.of(self.extractor.features(images))


class SamplerPool:
    """Actors on what the training workers held: a GPU each, else a CPU core each for the cores they had."""

    def __init__(self, model_folder: Path, extractor: str, plan: Plan) -> None:
        count = plan.num_workers if plan.use_gpu else plan.num_workers * plan.threads
        share = plan.cpus_per_worker * plan.num_workers / count
        options = {"num_cpus": share} | ({"num_gpus": plan.gpus_per_worker} if plan.use_gpu else {})
        device = "cuda" if plan.use_gpu else "cpu"
        self.actors = [
            Sampler.options(**options).remote(str(model_folder), extractor, device)  # type: ignore[attr-defined]
            for _ in range(count)
        ]

    def generate(self, request: Request) -> Generated:
        """Sample all units and add up their statistics in the units' order: the sum is repeatable.

        Raises the UserError of an actor.
        """
        try:
            return self._generate(request)
        except ray.exceptions.RayError as error:
            raise user_error(error) or error from None

    def _generate(self, request: Request) -> Generated:
        pool = ray.util.ActorPool(self.actors)
        units = request.units()
        images, total = [], None
        for unit_images, statistics in pool.map(lambda actor, unit: actor.unit.remote(request, *unit), units):
            images.append(unit_images)
            if statistics is not None:
                total = statistics if total is None else total + statistics
        return Generated(torch.cat(images), total)

    def close(self) -> None:
        """End the actors."""
        for actor in self.actors:
            ray.kill(actor)
