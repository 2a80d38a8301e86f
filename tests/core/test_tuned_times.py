"""Easy consistency tuning: times that come nearer in stages, and never so near that they are equal."""

import pytest
import torch

from cm_ray import recipes
from cm_ray.core import proposals
from cm_ray.core.proposals import Tuned
from cm_ray.core.times import NoiseLevels
from cm_ray.settings.tree import override

UNIFORMS = torch.cat([torch.tensor([2.0**-24, 1 - 2.0**-24]), torch.arange(1, 4096) / 4096])
STEPS = 800


def pairs(q, stage, stages=8):
    times = override(recipes.ect_digits(), {"times.q": q, "times.stages": stages}).method.times
    step = stage * STEPS // stages
    assert times.stage(step, STEPS) == stage
    return times(UNIFORMS, step, STEPS, NoiseLevels())


@pytest.mark.parametrize("stage", range(8))
@pytest.mark.parametrize("q", [2.0, 16.0, 256.0])
def test_times_differ_in_every_stage(q, stage):
    t, s = pairs(q, stage)
    assert t.dtype == s.dtype == torch.float32
    assert bool((t > s).all())
    assert float(s.min()) >= torch.tensor(0.002)
    assert float((s / t)[s > 0.002].max()) <= 0.999 * (1 + 1e-6)


def test_without_a_limit_late_stages_would_train_nothing(monkeypatch):
    monkeypatch.setattr(proposals, "_LARGEST_RATIO", 1.0)
    equal = [float((t == s).float().mean()) for t, s in (pairs(256.0, stage) for stage in range(8))]
    assert equal[0] == 0
    assert equal[4:] == [1.0] * 4


def test_the_limit_leaves_earlier_stages_as_they_are(monkeypatch):
    """The ratio with q = 2 of the last stage is at most 1 - 1/256."""
    limited = [pairs(2.0, stage) for stage in range(8)]
    monkeypatch.setattr(proposals, "_LARGEST_RATIO", 1.0)
    for stage, (t, s) in enumerate(limited):
        free_t, free_s = pairs(2.0, stage)
        assert torch.equal(t, free_t)
        assert torch.equal(s, free_s)


def test_the_ratio_is_that_of_the_paper():
    """r/t = 1 - n(t)/q^a with n(t) = 1 + k sigmoid(-b t), written out, in stage a = 3."""
    t, s = pairs(2.0, 2)
    gap = (1 + 8 / (1 + t.double().exp())) / 2.0**3
    wanted = (t.double() * (1 - gap)).clamp(min=0.002)
    torch.testing.assert_close(s.double(), wanted, rtol=1e-5, atol=1e-7)
    assert Tuned(k=8.0, b=1.0, q=2.0, stages=8) == recipes.ect_digits().method.times
