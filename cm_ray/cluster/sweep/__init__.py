"""Hyperparameter sweeps on a cluster: Ray Tune runs the trials, Optuna chooses the settings."""

from cm_ray.extras import needs

needs("optuna", "scipy", extra="train")
