"""Actors are replaced when they or their nodes die, and no task is lost; hopeless work ends in a sentence."""

import os
import signal
import time

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError

from cm_ray.cluster.pool import supervisor as module
from cm_ray.cluster.pool.supervisor import MOST_DEATHS_IN_A_ROW, Supervisor
from cm_ray.cluster.runtime.connect import cause_of
from cm_ray.errors import UserError
from tests.cluster.hosts import host, occupied
from tests.cluster.light_actors import Broken, OftenBroken, Worker

pytestmark = pytest.mark.ray


@pytest.fixture
def supervise(ray_cluster):
    made = []

    def start(count, cpus=0.25, worker=Worker):
        kind = ray_cluster.remote(num_cpus=cpus, max_restarts=0, max_task_retries=0)(worker)
        made.append(Supervisor(kind.remote, count))
        return made[-1]

    yield start
    for supervisor in made:
        supervisor.end()


def doubles(supervisor, tasks, submit=lambda actor, task: actor.double.remote(task)):
    found = dict(supervisor.finished(submit, tasks))
    return {number: result[0] for number, result in found.items()}


def test_a_task_that_kills_ends_with_a_sentence_and_others_are_done(supervise):
    """The second task is innocent: it waits at the actor that the first one kills."""
    supervisor, done = supervise(2), {}

    def submit(actor, task):
        return actor.die_of.remote(task, {3})

    def all_of_them():
        for number, result in supervisor.finished(submit, range(40)):
            done[number] = result[0]

    with pytest.raises(UserError, match=r"4 actors died while they worked on the same images .*error code 2"):
        all_of_them()
    assert 3 not in done
    assert done == {number: 2 * number for number in done}
    assert done  # which of the others are done before the last death, is chance


def test_deaths_of_actors_that_work_are_survived(supervise, tmp_path, capsys):
    """More deaths than a place can have in a row: each actor finishes something between two deaths."""
    supervisor, tasks = supervise(1), range(MOST_DEATHS_IN_A_ROW + 2)
    before = supervisor.actors
    found = doubles(supervisor, tasks, lambda actor, task: actor.die_in_turn.remote(task, tmp_path))
    assert found == {number: 2 * number for number in tasks}
    assert not set(before) & set(supervisor.actors)
    said = capsys.readouterr().err
    assert said.count("an actor died (Worker unexpectedly exits") == 1, "the same cause is said once"


def test_actors_that_never_start_end_with_the_cause(supervise):
    with pytest.raises(UserError, match=r"Actors died 4 times .*No module named 'module_that_is_not_there'"):
        doubles(supervise(1, worker=Broken), range(3))


def test_a_place_that_never_works_is_given_up(ray_cluster, tmp_path):
    kind = ray_cluster.remote(num_cpus=0.25, max_restarts=0)(OftenBroken)
    supervisor = Supervisor(lambda: kind.remote(tmp_path), 2)

    def submit(actor, task):
        return actor.double.remote(task)

    try:
        for _ in supervisor.finished(submit, range(10_000)):
            if len(supervisor.actors) == 1:
                break
        assert len(supervisor.actors) == 1
        assert doubles(supervisor, range(5)) == {number: 2 * number for number in range(5)}
    finally:
        supervisor.end()


def test_a_dead_node_costs_neither_tasks_nor_the_work(ray_cluster, supervise, capsys):
    """Results that only the dead node had are made again, and the only actor is replaced elsewhere."""
    with occupied(ray_cluster, 2), host(ray_cluster, CPU=1) as first, host(ray_cluster, CPU=1) as second:
        supervisor = supervise(1, cpus=1)

        def submit(actor, task):
            return actor.double.remote(task, 1_000_000)  # too large for anything but the store of its node

        found, alive = {}, {first.id: first, second.id: second}
        for number, result in supervisor.finished(submit, range(12)):
            found[number] = result[0], len(result[1])
            if number == 4:
                (actor,) = supervisor.actors
                where = ray_cluster.get(actor.started.remote())
                alive.pop(where).kill()
        assert found == {number: (2 * number, 1_000_000) for number in range(12)}
        (actor,) = supervisor.actors
        assert ray_cluster.get(actor.started.remote()) in alive
        said = capsys.readouterr().err
        assert f"node {where[:12]} died: its work is repeated elsewhere" in said
        assert "an actor died" not in said, "it is not the work's fault"


class ScriptedRay:
    """Ray, as the supervisor sees it: answers come in the order in which a script has them."""

    def __init__(self):
        self.answers, self.order = {}, []

    def answer(self, reference, value):
        self.answers[reference] = value
        self.order.append(reference)

    def wait(self, references, num_returns, timeout):
        return [next(each for each in self.order if each in references)], []

    def get(self, reference):
        value = self.answers[reference]
        if isinstance(value, Exception):
            raise value
        return value


class ScriptedActor:
    """An actor whose calls return references that have names: started, started again, task 3."""

    def __init__(self, name):
        self.name, self.calls = name, 0
        self.started = self

    def remote(self):
        self.calls += 1
        return f"{self.name} started {self.calls}"


@pytest.mark.parametrize("lives", [False, True], ids=["its node died", "its node lives"])
def test_the_answer_of_an_actor_that_was_replaced_is_nobodys(monkeypatch, capsys, lives):
    """Ray first cannot reach an actor, which is asked again; then the actor is dead, and the answer late."""
    ray = ScriptedRay()
    monkeypatch.setattr(module, "ray", ray)
    monkeypatch.setattr(
        module, "live_nodes", lambda: {"first": {}, "second": {}} if lives else {"second": {}}
    )
    actors = iter([ScriptedActor("A"), ScriptedActor("B")])  # a third would be one too many
    supervisor = Supervisor(lambda: next(actors), 1)
    ray.answer("A started 1", "first")
    ray.answer("A does 0", ActorUnavailableError("A cannot be reached", None))
    ray.answer("A does 1", ActorDiedError())
    ray.answer("A started 2", ActorDiedError())
    ray.answer("B started 1", "second")
    ray.answer("B does 0", "zero")
    ray.answer("B does 1", "one")
    done = dict(supervisor.finished(lambda actor, task: f"{actor.name} does {task}", range(2)))
    assert done == {0: "zero", 1: "one"}
    said = capsys.readouterr().err
    assert ("node first died" in said, said.count("an actor died")) == (not lives, int(lives))


def test_an_actor_that_dies_between_two_calls_is_replaced(ray_cluster, supervise):
    supervisor = supervise(1)
    assert doubles(supervisor, range(3)) == {0: 0, 1: 2, 2: 4}
    (actor,) = supervisor.actors
    pid = ray_cluster.get(actor.pid.remote())
    os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 60
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < until:
        time.sleep(0.01)
    assert doubles(supervisor, range(3)) == {0: 0, 1: 2, 2: 4}


def test_work_without_a_node_ends_with_a_sentence(ray_cluster, monkeypatch, capsys):
    """Nodes that others use are waited for as long as it takes; nodes that are not there, for some time."""
    monkeypatch.setattr(module, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(module, "EVERY_S", 0.2)
    kind = ray_cluster.remote(num_cpus=99)(Worker)
    rooms = iter([True] * 3 + [False] * 99)
    supervisor = Supervisor(kind.remote, 1, has_room=lambda: next(rooms), limit_s=0.5)
    try:
        with pytest.raises(UserError, match="No node has had room for an actor for 0 s; add nodes"):
            doubles(supervisor, range(3))
    finally:
        supervisor.end()
    said = capsys.readouterr().err.splitlines()
    assert said[:3] == ["waiting for resources for 1 actors; other jobs of the cluster use them"] * 3
    assert said[3] == "waiting for resources for 1 actors; nodes are missing"


def test_causes_are_short():
    assert cause_of(OutOfMemoryError("Task was killed due to\nmany lines")) == "its node ran out of memory"
    assert cause_of(ActorDiedError()) == "The actor died unexpectedly before finishing this task"
