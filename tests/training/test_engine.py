"""Averages, rounds, teachers and distances of the training step."""

import dataclasses

import pytest
import torch

from cm_ray.core.precondition import VE, VP
from cm_ray.networks.perceptual import perceptual_distance
from cm_ray.sampling.samplers import Progressive
from cm_ray.training.batch import Batch
from tests.training.engines import LABELS, batches, engine, run, small, teacher, weights


def test_averages_follow_the_student():
    made = engine(small())
    expected = weights(made).clone()
    for _ in made.train(batches(made)):
        expected = 0.5 * expected + 0.5 * weights(made)
    averaged = torch.cat([value.flatten() for value in made.averaged_weights(0).values()])
    torch.testing.assert_close(averaged, expected, rtol=1e-4, atol=1e-6)
    model = made.averaged_model(1)
    assert torch.equal(model.network.out[2].weight, made.averaged_weights(1)["out.2.weight"])


def test_point_mass_data_are_learnt():
    """The optimum for data of one image is f equal to it everywhere, and the loss goes to 0."""
    config = small("10-scales", "fast", steps=150)
    made = engine(config)
    one = Batch(torch.full((8, 1, 8, 8), 200, dtype=torch.uint8), LABELS[:8])
    losses = [float(stats.loss) for stats in made.train(one for _ in range(150))]
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


def test_rounds_of_progressive_distillation():
    """The student of a round is the teacher of the next; the averages and the optimizer begin anew."""
    made = engine(small("pd"))
    assert made.round_starts == [0, 3, 6]
    first = made.teacher
    seen = []
    for stats in made.train(batches(made)):
        seen.append((stats.gauges["num_scales"], stats.gauges["learning_rate"], made.round_ended()))
        if stats.step == 3:
            assert made.averaged_spec().sampler == Progressive(steps=2)
            assert not made.in_last_round()
            assert made.teacher is first
            ended = weights(made)
        if stats.step == 4:
            of_teacher = torch.cat([p.flatten() for p in made.teacher.parameters()])
            assert torch.equal(of_teacher, ended)
            assert {int(state["step"]) for state in made.optimizer.state.values()} == {1}
            torch.testing.assert_close(
                made.averages[0][0],
                (made._parameters()[0] + made.teacher.state_dict()["network.time_embed.0.weight"]) / 2,
            )
    assert [scales for scales, _, _ in seen] == [3, 3, 3, 2, 2, 2]
    assert [rate for _, rate, _ in seen] == pytest.approx([1e-3, 2e-3 / 3, 1e-3 / 3] * 2)
    assert [end for _, _, end in seen] == [False, False, True, False, False, True]
    assert made.averaged_model().spec.sampler == Progressive(steps=1)
    assert made.in_last_round()


@pytest.mark.parametrize("method", ["cd", "pd"])
@pytest.mark.parametrize("column", [VP(), VE()], ids=["vp", "ve"])
def test_teachers_of_the_other_columns_are_distilled(method, column):
    config = small(method)
    spec = engine(config).spec
    diffusion = dataclasses.replace(spec.diffusion, column=column)
    other = teacher(dataclasses.replace(spec, diffusion=diffusion))
    made = engine(config, teacher=other)
    assert made.teacher.spec.diffusion.column == column
    loss = run(made, 1)[0].loss
    assert torch.isfinite(loss)
    assert loss != run(engine(config), 1)[0].loss, "another teacher, another lesson"


def test_progressive_distillation_by_lpips():
    """The distance is any: LPIPS here, of a random trunk, on images resized for it."""
    config = small("pd", "small-lpips")
    made = engine(config, distance=perceptual_distance(config.method.distance, random_trunk=True))
    before = weights(made).clone()
    assert all(torch.isfinite(stats.loss) for stats in run(made, 2))
    assert not torch.equal(weights(made), before)


def test_a_method_without_its_teacher_says_so():
    made = engine(small("cd"), teacher=None)
    with pytest.raises(ValueError, match="method cd needs a teacher"):
        made.one_step(next(batches(made)))
