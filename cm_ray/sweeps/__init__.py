"""Hyperparameter sweeps without a cluster: search spaces as data, and Optuna's studies.

A new kind of search space or of study belongs here; spaces themselves are files in `search_spaces/`. Running
trials is `cm_ray.cluster.sweep`.
"""

from cm_ray.extras import needs

needs("optuna", "scipy", extra="train")
