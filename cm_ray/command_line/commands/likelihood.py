"""The command that computes likelihoods."""

from __future__ import annotations

from cm_ray.cluster.evaluation.likelihood import measure_likelihood
from cm_ray.command_line.settings.likelihood import LikelihoodSettings
from cm_ray.errors import plain, spoken


def run(settings: LikelihoodSettings) -> None:
    """Compute the likelihoods, and print their mean and the files."""
    result = measure_likelihood(settings)
    row = result.row
    print(f"{row['value']:.4f} ± {row['error']:.4f} bits/dim, the mean of {result.count:,} images")
    print(f"{row['evaluations']:.0f} network evaluations for an image")
    for path in result.files:
        print(plain(spoken(f"{path}")))
