"""Methods with the settings of their papers, which the recipes of several data sets share."""

from __future__ import annotations

from cm_ray.core.distance import AdaptiveL2, Norm, PseudoHuber
from cm_ray.core.methods import ConsistencyTraining
from cm_ray.core.proposals import Grid, LognormalIntervals, Tuned
from cm_ray.core.schedules import ConstantDecay, Doubling
from cm_ray.core.truncated import TruncatedTraining
from cm_ray.core.two_times import MeanFlow, SortedTimes
from cm_ray.core.weights import InverseGap

ICT = ConsistencyTraining(
    times=Grid(scales=Doubling(s0=10, s1=1280), proposal=LognormalIntervals(mean=-1.1, std=2.0)),
    distance=PseudoHuber(),
    weight=InverseGap(),
    target=ConstantDecay(mu=0.0),
)
"""Improved consistency training.  Song & Dhariwal 2023, table 1."""

ECT = ConsistencyTraining(
    times=Tuned(q=2.0, k=8.0, b=1.0, stages=8),
    distance=Norm(),
    weight=InverseGap(),
    target=ConstantDecay(mu=0.0),
)
"""Easy consistency tuning.  Geng et al. 2024."""

MEANFLOW = MeanFlow(times=SortedTimes(mean=-2.0, std=2.0, apart=0.75), distance=AdaptiveL2(p=0.75, c=1e-3))
"""MeanFlow for CIFAR-10.  Geng et al. 2025, appendix A."""

TCM = TruncatedTraining()
"""Truncated consistency models, the second stage for CIFAR-10.  Lee et al. 2024."""
