"""Requests that are done once: what came of them lies in a folder and survives whatever ends the process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cm_ray.cluster.pool.pool import Progress, PutModel, SamplerPool
from cm_ray.cluster.pool.result import Gathered, Wanted
from cm_ray.core.sampler_texts import file_name, text_of
from cm_ray.metrics.extractors.extractor import Extractor
from cm_ray.sampling.requests import Request


@dataclass(frozen=True)
class Remembered:
    """A model on a pool, with a memory."""

    pool: SamplerPool
    model: PutModel
    extractor: Extractor
    """What the pool's actors extract features with; here for its key alone."""
    wanted: Wanted
    folder: Path
    """Where what came of requests is kept, a file each."""

    def generate_all(
        self, requests: Sequence[Request], progress: Progress | None = None
    ) -> Iterator[tuple[int, Gathered]]:
        """Yield the place of every request and what came of it: first what is remembered.

        A kill loses the requests that were not finished. Raises UserError as `SamplerPool.generate_all`.
        """
        missing = []
        for place, request in enumerate(requests):
            if kept := Gathered.load(self.file(request), self.wanted):
                yield place, kept
            else:
                missing.append(place)
        left = [requests[place] for place in missing]
        for number, gathered in self.pool.generate_all(self.model, left, self.wanted, progress):
            gathered.save(self.file(left[number]))
            yield missing[number], gathered

    def file(self, request: Request) -> Path:
        """Return where what came of a request is kept; what other devices make differs by rounding."""
        extractor = self.extractor
        key = (
            *(self.pool.kind, self.model.digest),
            *(extractor.name, extractor.weights_sha256, extractor.preprocess),
            *(text_of(request.sampler), request.seed, request.label, request.unit),
        )
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        stem = f"{file_name(request.sampler)[:80]}-{request.first}-{request.count}"
        return self.folder / f"{stem}-{digest}.safetensors"
