"""Hyperparameter sweeps on a cluster: Ray Tune runs the trials, and Optuna chooses their settings.

A new option of sweeps belongs in `sweep_plan`, a new scheduler beside `asha`.
"""
