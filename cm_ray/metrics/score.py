"""A score and its key: what was measured, with what. Only scores of the same key compare."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cm_ray
from cm_ray.errors import UserError
from cm_ray.metrics.extractors import Extractor

MEASURING = ("extractor", "weights_sha256", "preprocess", "n", "seed", "reference", "evaluations")
"""Entries of a key that say how it was measured; scores compare when these are equal. `evaluations`
belongs here, as one evaluation of the network is another product than two; `seed`, as it makes the noise of
the samples and so pairs the scores."""

DESCRIBING = ("sampler", "version")
"""Entries that say what was measured, beside the model: the sampler with its times, which a search varies in
order to compare, and the version of cm_ray."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A Fréchet distance, lower is better, and its key."""

    value: float
    """The distance; finite."""
    key: Mapping[str, Any]
    """The entries of `MEASURING` and `DESCRIBING`, JSON values."""

    def __post_init__(self) -> None:
        """Raise ValueError when the value is not finite or the key lacks an entry or has another one."""
        if not math.isfinite(self.value):
            raise ValueError(f"a score must be finite, not {self.value}")
        if set(self.key) != {*MEASURING, *DESCRIBING}:
            raise ValueError(f"a score's key has {MEASURING + DESCRIBING}, not {tuple(self.key)}")

    @property
    def name(self) -> str:
        """FD-<extractor>-<n>; never FID-50k, which stands for the real Inception features."""
        return f"FD-{self.key['extractor']}-{self.key['n']}"

    @property
    def metric(self) -> str:
        """Name and sampler: ``FD-digits-1797/one-step``."""
        return f"{self.name}/{self.key['sampler']}"

    @property
    def measuring(self) -> dict[str, Any]:
        """The part of the key that must be equal for two scores to compare."""
        return {entry: self.key[entry] for entry in MEASURING}

    def to_row(self) -> dict[str, Any]:
        """Return the score as JSON values: name, value, key."""
        return {"name": self.name, "value": self.value, "key": dict(self.key)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Score:
        """Return the score that `to_row` made. Raises ValueError when it is none."""
        try:
            score = cls(value=float(row["value"]), key=row["key"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is not a row of a score: {row}") from error
        if row.get("name") != score.name:
            raise ValueError(f"a score named {row.get('name')} has the key of {score.name}")
        return score


def frechet_score(
    value: float, extractor: Extractor, *, n: int, seed: int, reference: str, sampler: str, evaluations: int
) -> Score:
    """Return the score of `n` samples.

    value: their `frechet_distance` to the reference.  seed: of their noise.  reference: fingerprint of the
    images compared with.  sampler: as text, see `cm_ray.sampling`.  evaluations: of the network, per sample.
    """
    key = {
        "extractor": extractor.name,
        "weights_sha256": extractor.weights_sha256,
        "preprocess": extractor.preprocess,
        "n": n,
        "seed": seed,
        "reference": reference,
        "evaluations": evaluations,
        "sampler": sampler,
        "version": cm_ray.__version__,
    }
    return Score(value=value, key=key)


def comparable(a: Score, b: Score) -> bool:
    """Tell whether two scores were measured in the same way."""
    return a.measuring == b.measuring


def better(a: Score, b: Score) -> bool:
    """Tell whether `a` is strictly better, that is lower, than `b`.

    Raises UserError, naming the entries, when their keys differ: the numbers mean different things.
    """
    if not comparable(a, b):
        raise UserError(f"{a.metric} and {b.metric} do not compare: {key_differences(a, b)}.")
    return a.value < b.value


def key_differences(a: Score, b: Score) -> str:
    """Return, in words, the entries in which two scores' measuring differs."""
    return ", ".join(
        f"{entry} is {a.key[entry]} and {b.key[entry]}" for entry in MEASURING if a.key[entry] != b.key[entry]
    )
