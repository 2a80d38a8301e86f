"""Hyperparameter sweeps without a cluster: search spaces as data, and Optuna's studies.

A new kind of search space, sampler or study belongs here. The spaces themselves are files in
`search_spaces/`, and `cm_ray.cluster.sweeps` runs the trials.
"""

from cm_ray.extras import needs

needs("optuna", "scipy", extra="train")
