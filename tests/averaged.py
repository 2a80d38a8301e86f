"""A small run with power-function averages, which the tests of averages share, and copies of it."""

import shutil

import cm_ray as cm
from cm_ray.runs.directory import RunDirectory

CHANGES = {
    "averages": "power",
    "averages.snapshots": 8,
    "averages.candidates": (0.04, 0.07, 0.1, 0.14),
    "averages.samples": 80,
    "batch_size": 16,
    "network.channels": 8,
    "network.blocks": 1,
    "network.head_channels": 8,
    "network.norm_groups": 4,
    "checkpoint.every": 8,
    "evaluation.every": 0,
    "evaluation.samples": 90,
    "evaluation.samplers": ("one-step",),
    "evaluation.grid": 3,
    "tracking.uri": "none",
}


def train_averaged(folder, steps=24, **changes):
    """Train in this process; return the run directory."""
    run = cm.train("ict_digits", out=folder, steps=steps, changes=CHANGES | changes, quiet=True)
    return run.directory


def copied(run, folder):
    """Return a copy of a run, to be written to."""
    shutil.copytree(run.root, folder)
    return RunDirectory(folder)
