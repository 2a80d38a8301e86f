"""Hyperparameter sweeps on a cluster: Ray Tune runs the trials, and Optuna chooses their settings.

A new option of sweeps belongs in `sweep_plan`, a new scheduler beside `asha`.
"""

from cm_ray.extras import needs

needs("optuna", "scipy", extra="train")
