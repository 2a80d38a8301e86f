"""Scores that are told, not measured, and that check how they are asked."""

import math
from dataclasses import dataclass

import numpy as np

from cm_ray.time_points.noisy_search import PointSampleRange


@dataclass(frozen=True)
class Part:
    """Ranges of samples of one candidate."""

    of: object
    ranges: tuple

    def __add__(self, other):
        assert self.of == other.of
        return Part(self.of, self.ranges + other.ranges)

    @property
    def count(self):
        return sum(count for _, count in self.ranges)


class Told:
    """Scores of candidates, or of points, without noise but for replicates of a given standard error.

    bias: what every score has too much, by the number of its samples.
    """

    def __init__(self, value, *, error=0.0, bias=lambda count: 0.0):
        self.value, self.error, self.bias = value, error, bias
        self.requests = []

    def sample(self, requests):
        assert requests, "nothing is asked for in vain"
        taken = {(self.of(r), i) for r in self.requests for i in (r.first, r.first + r.count - 1)}
        for request in requests:
            assert request.count > 0
            assert (self.of(request), request.first) not in taken, "no sample is taken twice"
        assert len({(self.of(r), r.first) for r in requests}) == len(requests)
        self.requests += requests
        return [Part(self.of(r), ((r.first, r.count),)) for r in requests]

    def score(self, part):
        ends = [first + count for first, count in part.ranges]
        assert ends[:-1] == [first for first, _ in part.ranges[1:]], "samples follow each other"
        value = self.value(part.of) + self.bias(part.count)
        if math.isinf(value):
            return np.full(9, value)
        rng = np.random.default_rng(abs(hash((part.of, part.count))))
        own = rng.standard_normal(8)
        return value + np.array([0.0, *self.error * (own - own.mean()) / own.std(ddof=1)])

    @staticmethod
    def of(request):
        return request.points if isinstance(request, PointSampleRange) else request.candidate

    @property
    def spent(self):
        return sum(request.count for request in self.requests)
