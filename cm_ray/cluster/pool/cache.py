"""On-disk cache of finished sampling requests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cm_ray.cluster.pool.actor import PutModel
from cm_ray.cluster.pool.pool import Progress, SamplerPool
from cm_ray.cluster.pool.result import Outputs, SampleResult
from cm_ray.drawing.requests import Request
from cm_ray.metrics.extractors.extractor import Extractor
from cm_ray.sampling.text import file_name, text_of


@dataclass(frozen=True)
class ResultCache:
    """A model on a pool, with an on-disk cache of its finished requests."""

    pool: SamplerPool
    model: PutModel
    extractor: Extractor
    """The extractor that the pool's actors use; only its key is read here."""
    outputs: Outputs
    folder: Path
    """Folder with one file for each finished request."""

    def generate_all(
        self, requests: Sequence[Request], progress: Progress | None = None
    ) -> Iterator[tuple[int, SampleResult]]:
        """Yield the index and the result of every request, cached ones first.

        If the process is killed, only unfinished requests are lost. Raises UserError as
        `SamplerPool.generate_all` does.
        """
        missing = []
        for index, request in enumerate(requests):
            if cached := SampleResult.load(self.file(request), self.outputs):
                yield index, cached
            else:
                missing.append(index)
        left = [requests[index] for index in missing]
        for number, result in self.pool.generate_all(self.model, left, self.outputs, progress):
            result.save(self.file(left[number]))
            yield missing[number], result

    def file(self, request: Request) -> Path:
        """Return the file of a request's result.

        The kind of device is part of its name, because the samples of two devices differ by rounding.
        """
        extractor = self.extractor
        key = (
            *(self.pool.kind, self.model.digest),
            *(extractor.name, extractor.weights_sha256, extractor.preprocess),
            *(text_of(request.sampler), request.seed, request.unit, request.precision),
            request.labels and request.labels.weights,
            request.channels,
        )
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        stem = f"{file_name(request.sampler)[:80]}-{request.first}-{request.count}"
        return self.folder / f"{stem}-{digest}.safetensors"
