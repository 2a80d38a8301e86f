"""SIGKILL of a worker or of the driver, at any moment: the run ends with the bits of an uninterrupted one."""

import random
import signal

import pytest

from tests.cluster.processes import SMALL, descendants, job, reap, rows, run, started, workers
from tests.cluster.teaching import save_teacher
from tests.waiting import LIMIT_S, wait_for

pytestmark = pytest.mark.ray

STEPS = 120
TEACHER = []
OPTIONS = [*SMALL, "--steps", STEPS, "--log-every", 5, "--checkpoint.every", 10, "--evaluation.every", 20]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The final state of a run that nobody disturbed, by number of workers."""
    known = {}

    def final(name, num_workers):
        if (name, num_workers) not in known:
            folder = tmp_path_factory.mktemp("uninterrupted") / str(num_workers)
            run(training(name, folder, num_workers))
            known[name, num_workers] = outcome(folder)
        return known[name, num_workers]

    return final


@pytest.fixture(scope="module", autouse=True)
def teacher(tmp_path_factory):
    """The teacher of progressive distillation."""
    TEACHER.append(save_teacher(tmp_path_factory.mktemp("teacher") / "model"))
    yield
    TEACHER.clear()


def training(name, folder, num_workers):
    distilled = ["--teacher", *TEACHER] if name == "pd_digits.py" else []
    return job(name, *OPTIONS, *distilled, "--run-dir", folder, "--num-workers", num_workers)


def outcome(folder, steps=STEPS):
    """Return what must not depend on kills: the state to the bit, the model, the log without clocks."""
    clocks = ("images_per_s", "seconds", "time")
    log = [{key: value for key, value in row.items() if key not in clocks} for row in rows(folder)]
    state = folder / "checkpoints" / f"step-{steps:08d}" / "state.safetensors"
    pictures = sorted(path.name for path in (folder / "samples").glob("*.png"))
    models = {str(file.parent.relative_to(folder)): file.read_bytes() for file in folder.rglob("weights.*")}
    return state.read_bytes(), models, log, pictures


def reached(process, folder, step):
    wait_for(lambda: any(row["step"] >= step for row in rows(folder)), f"step {step}", process)


def kill_worker(process, folder, step):
    """Kill one of the workers when the log has reached a step."""
    reached(process, folder, step)
    victims = workers(process.pid)
    assert victims, "no worker was found"
    random.choice(victims).send_signal(signal.SIGKILL)


def kill_driver(process, folder, step):
    """Kill the driver when the log has reached a step."""
    reached(process, folder, step)
    family = descendants(process.pid)
    process.kill()
    process.wait()
    reap(family)
    assert not (folder / "result.json").exists(), "it was killed before it had finished"


def disturb(name, folder, num_workers, kills):
    """Kill a worker, a driver, or one after the other, at the given steps; see the run to its end."""
    command = training(name, folder, num_workers)
    with started(command) as process:
        for victim, step in kills.items():
            (kill_worker if victim == "worker" else kill_driver)(process, folder, step)
        if "driver" not in kills:
            assert process.wait(LIMIT_S) == 0, "the driver goes on by itself"
    if "driver" in kills:
        run(command)


def test_kills_change_nothing(uninterrupted, tmp_path):
    """Progressive distillation has most to lose: teachers, rounds, and their models."""
    disturb("pd_digits.py", tmp_path / "run", 2, {"worker": 30, "driver": 70})
    assert outcome(tmp_path / "run") == uninterrupted("pd_digits.py", 2)


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(10))
def test_ten_random_kills_change_nothing(trial, uninterrupted, tmp_path):
    random.seed(trial)
    victim, num_workers = random.choice(["worker", "driver"]), random.choice([1, 2])
    name = random.choice(["ict_digits.py", "pd_digits.py"])
    disturb(name, tmp_path / "run", num_workers, {victim: random.randrange(1, STEPS - 20)})
    assert outcome(tmp_path / "run") == uninterrupted(name, num_workers)


def test_a_second_driver_is_refused_and_ctrl_c_leaves(tmp_path):
    command = training("ict_digits.py", tmp_path / "run", 1)
    with started(command) as process:
        wait_for(lambda: (tmp_path / "run" / "config.json").exists(), "the run's beginning", process)
        done = run(command, expect=2)
        assert "Another process is working in" in done.stderr
        wait_for(lambda: rows(tmp_path / "run"), "the first row", process)
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 130, "not 0: it is not finished"
