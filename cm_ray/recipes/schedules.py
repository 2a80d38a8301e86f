"""Schedules that the recipes of several data sets share."""

from __future__ import annotations

from dataclasses import replace

from cm_ray.recipes.config import ScheduleConfig

STUDENT_IS_TARGET = ScheduleConfig(scales="constant", target="constant", mu0=0.0)
"""A target that is the student without gradient: mu = 0."""

EDM = replace(STUDENT_IS_TARGET, proposal="continuous", p_mean=-1.2, p_std=1.2, weight="karras")
"""Training of a denoiser.  Karras et al. 2022, table 1."""

ICT = ScheduleConfig(
    scales="doubling",
    s0=10,
    s1=1280,
    target="constant",
    mu0=0.0,
    proposal="lognormal",
    weight="inverse-gap",
)
"""Improved consistency training.  Song & Dhariwal 2023, table 1."""

ECT = replace(STUDENT_IS_TARGET, proposal="continuous", weight="inverse-gap")
"""Easy consistency tuning.  Geng et al. 2024: q = 2, k = 8, b = 1, eight stages."""
