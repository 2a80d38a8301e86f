"""A score and its key, which says what was measured and how. Only scores with the same key compare."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cm_ray.errors import UserError
from cm_ray.metrics.estimate import Estimate
from cm_ray.metrics.extractors.extractor import Extractor
from cm_ray.metrics.extractors.published_weights import INCEPTION_2015
from cm_ray.metrics.extractors.resizing import RESIZINGS
from cm_ray.storage.shapes import misfit
from cm_ray.version import __version__

KINDS = {
    "FD": "lower",
    "FDinf": "lower",
    "KID": "lower",
    "SWD": "lower",
    "IS": "higher",
    "precision": "higher",
    "recall": "higher",
}
"""Kinds of scores, and which direction is better.

Fréchet distance, the same for infinitely many samples, kernel distance, sliced Wasserstein distance,
Inception score, improved precision and recall.
"""

FID_SAMPLES = 50_000
"""Number of samples that a Fréchet distance needs to be called FID."""

COMPARED = (
    "extractor",
    "weights_sha256",
    "preprocess",
    "n",
    "seed",
    "reference",
    "labels",
    "nfe",
    "precision",
)
"""Entries of a key that say how a score was measured; scores compare when these are equal.

`nfe`, the number of network evaluations per sample, is among them because models compare at equal cost only;
`seed`, because it decides the noise of the samples and so pairs the scores. `labels` says how often a class
is drawn: data (as often as in the reference), balanced (equally often), names of classes, null for samples of
the null class, or none for models without classes and for images; none compares with data, since nobody chose
the classes. `precision` is the arithmetic in which the samples were drawn, "" for given images; features are
always extracted in float32.
"""

_NUMBERS = ("n", "seed", "nfe")
DESCRIPTIVE = ("sampler", "version")
"""Entries of a key that say what was measured, apart from the model.

They are the sampler with its times, which a search varies in order to compare, and the version of cm_ray.
"""

ROW: Mapping[str, Any] = {
    "name?": str,
    "kind?": str,
    "value": float,
    "error?": (float, None),
    "settings?": dict,
    "key": {name: int if name in _NUMBERS else str for name in (*COMPARED, *DESCRIPTIVE)},
}
"""The shape of a row of a score in files; see `cm_ray.storage.shapes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A number that says how good samples are, with its key."""

    value: float
    """The number; finite."""
    key: Mapping[str, Any]
    """The entries of `COMPARED` and `DESCRIPTIVE`, as JSON values."""
    kind: str = "FD"
    """One of `KINDS`."""
    error: float | None = None
    """Standard error of the value, finite; None when it is not known. See `cm_ray.metrics.estimate`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the kind, as JSON values; scores compare only when these are equal as well."""

    def __post_init__(self) -> None:
        """Raise ValueError on a value or error that is not finite, an unknown kind, or a wrong key."""
        if not math.isfinite(self.value):
            raise ValueError(f"a score must be finite, not {self.value}")
        if self.error is not None and not math.isfinite(self.error):
            raise ValueError(f"a score's error must be finite, not {self.error}")
        if self.kind not in KINDS:
            raise ValueError(f"a score is one of {', '.join(KINDS)}, not {self.kind}")
        if set(self.key) != {*COMPARED, *DESCRIPTIVE}:
            raise ValueError(f"a score's key must have {COMPARED + DESCRIPTIVE}, not {tuple(self.key)}")

    @property
    def name(self) -> str:
        """``<kind>-<extractor>-<n>``, such as ``FD-digits-1797``; ``FID-50k`` only when `is_fid` is true."""
        if self.is_fid:
            return f"FID-{self.key['n'] // 1000}k"
        return f"{self.kind}-{self.key['extractor']}-{self.key['n']}"

    @property
    def is_fid(self) -> bool:
        """True when this is what the literature calls FID.

        That is: the Fréchet distance between features of the published Inception (checked by SHA-256), of
        images resized by a named method, of at least 50,000 samples of all classes, to a named reference.
        """
        return bool(
            self.kind == "FD"
            and self.key["extractor"] == "inception-2015"
            and self.key["weights_sha256"] == INCEPTION_2015.sha256
            and str(self.key["preprocess"]).split(":")[0] in RESIZINGS
            and self.key["n"] >= FID_SAMPLES
            and self.key["reference"]
            and self.key["labels"] in ("none", "data", "balanced")
        )

    @property
    def metric(self) -> str:
        """Name and sampler, such as ``FD-digits-1797/one-step``."""
        return f"{self.name}/{self.key['sampler']}"

    @property
    def compared(self) -> dict[str, Any]:
        """The part of the key that must be equal for two scores to compare."""
        entries = {entry: self.key[entry] for entry in COMPARED}
        if entries["labels"] == "none":
            entries["labels"] = "data"
        return {"kind": self.kind, "settings": dict(self.settings)} | entries

    def to_row(self) -> dict[str, Any]:
        """Return the score as JSON values: name, kind, value, error, settings, key."""
        return {
            "name": self.name,
            "kind": self.kind,
            "value": self.value,
            "error": self.error,
            "settings": dict(self.settings),
            "key": dict(self.key),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Score:
        """Return the score that `to_row` wrote. Raises ValueError when the row is not one of a score.

        A row without a kind is a Fréchet distance.
        """
        if problem := misfit(row, ROW):
            raise ValueError(f"this is not the row of a score: {problem}")
        score = cls(
            value=float(row["value"]),
            key=row["key"],
            kind=row.get("kind", "FD"),
            error=row.get("error"),
            settings=row.get("settings", {}),
        )
        if row.get("name") != score.name:
            raise ValueError(f"a score named {row.get('name')} has the key of {score.name}")
        return score

    @classmethod
    def from_file(cls, row: Mapping[str, Any], file: object) -> Score:
        """Return the score of a row in a file. Raises UserError, naming the file, on another row."""
        try:
            return cls.from_row(row)
        except ValueError as error:
            raise UserError(f"{file} is damaged ({error}); restore it or remove it.") from error


def score_from_estimate(kind: str, measured: Estimate, key: Mapping[str, Any]) -> Score:
    """Return the score of a kind from its estimate and the `score_key` of the samples."""
    return Score(value=measured.value, key=key, kind=kind, error=measured.error, settings=measured.settings)


def score_key(
    extractor: Extractor,
    *,
    n: int,
    seed: int,
    reference: str,
    labels: str,
    sampler: str,
    nfe: int,
    precision: str = "float32",
) -> dict[str, Any]:
    """Return the key that all scores of one set of `n` samples share.

    seed: seed of their noise.  reference: fingerprint of the reference images.  labels: the draw of their
    labels, see `COMPARED`.  sampler: its text.  nfe: number of network evaluations per sample.  precision:
    the arithmetic of the network while it was sampled; "" for given images.
    """
    return {
        "extractor": extractor.name,
        "weights_sha256": extractor.weights_sha256,
        "preprocess": extractor.preprocess,
        "n": n,
        "seed": seed,
        "reference": reference,
        "labels": labels,
        "nfe": nfe,
        "precision": precision,
        "sampler": sampler,
        "version": __version__,
    }


def comparable(a: Score, b: Score) -> bool:
    """Return True when two scores were measured in the same way, so that their values can be compared."""
    return a.compared == b.compared


def better(a: Score, b: Score) -> bool:
    """Return True when `a` is strictly better than `b`: lower, or higher, as `KINDS` says.

    Raises UserError, with the entries that differ, when the scores do not compare.
    """
    if not comparable(a, b):
        raise UserError(f"{a.metric} and {b.metric} do not compare: {key_differences(a, b)}.")
    return a.value < b.value if KINDS[a.kind] == "lower" else a.value > b.value


def key_differences(a: Score, b: Score) -> str:
    """Return a text that lists the entries in which the measurement of two scores differs."""
    x, y = a.compared, b.compared
    return ", ".join(f"{entry} is {x[entry]} and {y[entry]}" for entry in x if x[entry] != y[entry])
