"""SIGKILL of a worker or of the driver, at any moment: the run ends with the bits of an uninterrupted one."""

import random
import signal

import pytest

from cm_ray.cluster.training.fit import _keyboard_interrupts
from tests.cluster.processes import SMALL, descendants, in_turn, job, reap, rows, run, started, workers
from tests.cluster.teaching import save_teacher
from tests.waiting import LIMIT_S, wait_for

pytestmark = pytest.mark.ray

STEPS = 120
TEACHER = []
OPTIONS = [*SMALL, "--steps", STEPS, "--log-every", 5, "--checkpoint.every", 10, "--evaluation.every", 20]


@pytest.fixture(scope="module")
def undisturbed():
    """The outcomes of runs that nobody has disturbed, by job and number of workers, once they are known."""
    return {}


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


def assert_undisturbed(name, folder, num_workers, kills, undisturbed):
    """Kill a worker, a driver, or one after the other, at the given steps: the end is as without kills."""
    command = training(name, folder, num_workers)
    with started(command) as process:
        for victim, step in kills.items():
            (kill_worker if victim == "worker" else kill_driver)(process, folder, step)
        if "driver" not in kills:
            assert process.wait(LIMIT_S) == 0, "the driver goes on by itself"
    whole, rest = folder.with_name("whole"), [command] if "driver" in kills else []
    if (name, num_workers) not in undisturbed:
        rest.append(training(name, whole, num_workers))
    if rest:
        run(in_turn(*rest))
    if whole.exists():
        undisturbed[name, num_workers] = outcome(whole)
    assert outcome(folder) == undisturbed[name, num_workers]


def test_kills_change_nothing(undisturbed, tmp_path):
    """Progressive distillation has most to lose: teachers, rounds, and their models."""
    kills = {"worker": 30, "driver": 70}
    assert_undisturbed("pd_digits.py", tmp_path / "run", 2, kills, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(10))
def test_ten_random_kills_change_nothing(trial, undisturbed, tmp_path):
    random.seed(trial)
    victim, num_workers = random.choice(["worker", "driver"]), random.choice([1, 2])
    name = random.choice(["ict_digits.py", "pd_digits.py"])
    kills = {victim: random.randrange(1, STEPS - 20)}
    assert_undisturbed(name, tmp_path / "run", num_workers, kills, undisturbed)


def test_ctrl_c_in_a_training_is_an_interrupt_again():
    """Ray Train's handler of the signal ends the process by SystemExit, and outlives the training."""
    before = signal.getsignal(signal.SIGINT)

    def interrupted():
        with _keyboard_interrupts():
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            raise SystemExit(0)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow  # the quick forms are above, and of the lock in tests/tracking
def test_a_second_driver_is_refused_and_ctrl_c_leaves(tmp_path):
    command = training("ict_digits.py", tmp_path / "run", 1)
    with started(command) as process:
        wait_for(lambda: (tmp_path / "run" / "config.json").exists(), "the run's beginning", process)
        done = run(command, expect=2)
        assert "Another process is working in" in done.stderr
        wait_for(lambda: rows(tmp_path / "run"), "the first row", process)
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 130, "not 0: it is not finished"
