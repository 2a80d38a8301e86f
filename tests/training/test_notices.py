"""A notice that a node will be taken away: a checkpoint at once, from which the run ends with equal bits."""

import dataclasses

import pytest
import torch

from cm_ray.runs.checkpoint import CheckpointStore
from cm_ray.runs.directory import RunDirectory
from cm_ray.settings.tree import override
from cm_ray.training import notices
from cm_ray.training.communication import SingleWorker
from cm_ray.training.loop import TrainingLoop
from tests.training.engines import batches, engine, small

STEPS = 12
CHECKPOINTS = {
    "checkpoint.every": STEPS,
    "checkpoint.keep": 5,
    "evaluation.every": 0,
    "evaluation.extractor": "none",
    "evaluation.grid": 3,
}


class Cloud(SingleWorker):
    """Communication of a worker whose nodes are announced to leave at given steps."""

    def __init__(self, leaving):
        self.leaving, self.made, self.asked = leaving, None, []

    def leaving_nodes(self):
        step = self.made.step
        self.asked.append(step)
        return frozenset(node for node, since in self.leaving.items() if step >= since)


def loop(folder, leaving):
    """Return a loop that makes a checkpoint by itself at the end alone."""
    config = override(small("paper", steps=STEPS, log_every=4), CHECKPOINTS)
    made = engine(config)
    run, cloud = RunDirectory(folder), Cloud(leaving)
    cloud.made = made
    run.root.mkdir(exist_ok=True)
    return TrainingLoop(
        recipe=config,
        run=run,
        engine=made,
        batches=lambda start: batches(made),
        data=None,
        communication=cloud,
    )


@pytest.fixture(autouse=True)
def asked_at_every_step(monkeypatch):
    monkeypatch.setattr(notices, "EVERY_S", 0.0)


def checkpoints(folder):
    return CheckpointStore(RunDirectory(folder).checkpoints, 5)


def test_a_notice_makes_a_checkpoint_from_which_the_run_ends_with_the_same_bits(tmp_path):
    list(loop(tmp_path / "whole", {}).steps())
    assert checkpoints(tmp_path / "whole").steps() == [STEPS]
    disturbed = tmp_path / "disturbed"
    for stats in loop(disturbed, {"node": 5}).steps():
        if stats.step == 5:
            assert checkpoints(disturbed).steps() == [5], "it is there before the next step"
        if stats.step == 7:
            break  # the node is gone
    again = loop(disturbed, {})
    assert [stats.step for stats in again.steps()] == list(range(6, STEPS + 1))
    one, two = (checkpoints(folder).load(STEPS).tensors for folder in (tmp_path / "whole", disturbed))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.equal(two[name], tensor), name


def test_every_node_makes_one_checkpoint(tmp_path):
    list(loop(tmp_path, {"a": 3, "b": 3, "c": 8}).steps())
    assert checkpoints(tmp_path).steps() == [3, 8, STEPS]


def test_questions_are_asked_by_the_clock_and_at_most_twice_as_many_steps_apart(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(notices.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(notices, "EVERY_S", 2.0)
    cloud = Cloud({})
    cloud.made = dataclasses.make_dataclass("Engine", [("step", int)])(0)
    asking = notices.Notices(cloud, 10)
    for step in range(11, 60):
        clock[0] += 0.25 if step < 40 else 1.0
        cloud.made.step = step
        assert not asking.new(step)
    # one, two, four, then the eight steps of two seconds; slower steps are noticed at the next question
    assert cloud.asked == [11, 13, 17, 25, 33, 41, 45, 47, 49, 51, 53, 55, 57, 59]
