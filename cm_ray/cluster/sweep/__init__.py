"""Hyperparameter sweeps on a cluster: Ray Tune runs the trials, Optuna chooses the settings."""
