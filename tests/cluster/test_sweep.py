"""Sweeps on Ray: every trial ends as recorded, kills lose nothing, and people see what was found."""

import json
import random
import signal

import numpy as np
import optuna
import pytest
from PIL import Image

from cm_ray.cluster.sweeps import run_sweep as module
from cm_ray.cluster.sweeps.run_sweep import sweep
from cm_ray.command_line.options import parse_changes
from cm_ray.errors import UserError
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.directory import RunDirectory
from cm_ray.settings.choices import word_of
from cm_ray.settings.tree import from_dict
from cm_ray.storage.files import read_json
from cm_ray.sweeps.options import Sweep
from cm_ray.tracking.store import calling_mlflow, open_client
from tests.cluster.pretending import pretended_trial
from tests.cluster.processes import descendants, job, module_of_tests, reap, run, started, workers
from tests.cluster.tiny_spaces import GRID, write_space
from tests.waiting import LIMIT_S, wait_for

pytestmark = pytest.mark.ray

RAISING = """
import os, pathlib
from tests.hungry import eat
DRIVER = os.getpid()

class Raising(Space):
    def config(self, params):
        if params.get("case") == "hungry" and os.getpid() != DRIVER:
            with open(FOLDER / "asked", "a") as log:
                log.write("x")
            eat()
        if params.get("case") == "raises" and os.getpid() != DRIVER:
            with open(FOLDER / "raised", "a") as log:
                log.write("x")
            raise RuntimeError("a defect")
        return Space.config(self, params)

SPACE = Raising"""
"""A space of which one setting raises what is no UserError, in the trial's process."""


def settings(file, **changes):
    return Sweep(**{"space": str(file), "run_dir": str(file.parent / "runs" / "swept"), **changes})


def study(root, url=""):
    name = url or f"sqlite:///{root / 'study.db'}"
    return optuna.load_study(study_name=root.name, storage=name)


CURVES = "space={'optimizer.learning_rate': Categorical([2e-3, 3e-3, 1e-7, 2e-7])}, sampler='grid', "


@pytest.fixture
def pretended(monkeypatch):
    monkeypatch.setattr(module, "run_trial", pretended_trial)


@pytest.mark.parametrize("seeds", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_sweep_from_its_space_to_the_registry(ray_cluster, tmp_path, seeds):
    file = write_space(tmp_path, GRID + f"seeds={seeds}, lines=('distance',)")
    run = sweep(settings(file, scheduler="none"), {})
    trials = study(run.root).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 2
    assert trials[0].params == {"distance": "l2"}, "the paper's is the first"
    for trial in trials:
        assert trial.value == pytest.approx(np.mean(trial.user_attrs["scores"]))
        assert len(set(trial.user_attrs["scores"])) == seeds, "seeds differ"
        assert sorted(trial.intermediate_values) == [5, 10, 15, 20]
    report = (run.root / "report.md").read_text()
    assert "2 trials: 2 finished." in report
    assert ("mean of 2 seeds" if seeds > 1 else "one seed") in report
    for name in ("panel", "history", "slices"):
        assert f"({name}.png)" in report
        assert np.asarray(Image.open(run.root / f"{name}.png")).std() > 1, "it is not empty"
    best = min(trials, key=lambda trial: trial.value)
    config = from_dict(Recipe, read_json(run.root / "best.json"))
    assert word_of(config.method.distance) == best.params["distance"]
    assert (config.steps, config.run_dir) == (20, "")
    assert list((run.root / "tune").rglob("events.out.tfevents.*"))
    kept = {path.parent.parent.name for path in run.root.glob("trials/*/seed-*/checkpoints")}
    assert kept == {f"{best.number:04d}"}, "the checkpoints of other trials that have ended are removed"
    check_mlflow(tmp_path / "runs" / "mlflow.db", best, 2 * seeds)
    before = {path: path.stat().st_mtime_ns for path in run.root.glob("trials/*/seed-*/result.json")}
    sweep(settings(file, scheduler="none"), {})
    assert len(study(run.root).trials) == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before, "nothing is done again"
    with pytest.raises(UserError, match=r"other settings \(seeds\): repeat its settings"):
        sweep(settings(file, seeds=3), {})
    with pytest.raises(UserError, match=r"other settings \(base.steps\)"):
        sweep(settings(file), parse_changes(["steps=30"]))


def check_mlflow(store, best, trainings):
    """One parent; under it a run for each training, with parameters and curves; the best is registered."""
    with calling_mlflow(5):
        client = open_client(f"sqlite:///{store}")
        experiment = client.get_experiment_by_name("cm_ray").experiment_id
        runs = client.search_runs([experiment])
        (parent,) = [run for run in runs if run.info.run_name == "swept"]
        nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        assert len(nested) == trainings
        assert {run.info.status for run in runs} == {"FINISHED"}
        assert {run.data.params["distance"] for run in nested} == {"l2", "l1"}
        names = [name for name in nested[0].data.metrics if name.startswith("FD-digits-100")]
        (name,) = names[:1]
        assert len(client.get_metric_history(nested[0].info.run_id, name)) >= 4
        assert any("samples" in file.path for file in client.list_artifacts(nested[0].info.run_id))
        assert {"report.md", "trials.csv", "best.json", "panel.png"} <= {
            file.path for file in client.list_artifacts(parent.info.run_id)
        }
        assert parent.data.metrics["score"] == pytest.approx(best.value)
        note = parent.data.tags["mlflow.note.content"]
        assert f"Best: trial {best.number}" in note
        assert "![panel](get-artifact?path=panel.png" in note
        (registered,) = client.search_model_versions("name = 'cm_ray-digits-ct'")
        assert registered.aliases == [], "twenty steps are no better than noise"
        trained = client.get_run(registered.run_id)
        assert trained.info.run_name.startswith(f"trial-{best.number}-seed-")


def test_halving_stops_what_is_behind(ray_cluster, pretended, tmp_path):
    file = write_space(tmp_path, CURVES + "grace=10, ")
    call = settings(file, concurrent=1, reduction=2, tracking_uri="none")
    run = sweep(call, {})
    trials = study(run.root).trials
    assert [trial.params["optimizer.learning_rate"] for trial in trials] == [2e-3, 3e-3, 1e-7, 2e-7]
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE", "PRUNED", "PRUNED"]
    for stopped in trials[2:]:
        assert stopped.intermediate_values == {5: 8.75, 10: 8.5}, "it is no finished trial to the sampler"
        assert stopped.user_attrs["stopped_at"] == 10
    report = (run.root / "report.md").read_text()
    assert "4 trials: 2 finished, 2 stopped early" in report
    assert "| 2 | (8.5) |  |  | 1e-07 | stopped at step 10 |" in report


@pytest.mark.slow
def test_what_a_stopped_training_leaves(ray_cluster, tmp_path):
    """A step size of nearly nothing learns nothing: after the others it is stopped at its first score."""
    file = write_space(tmp_path, CURVES)
    changes = parse_changes(["steps=60", "evaluation.every=20", "checkpoint.every=20"])
    run = sweep(settings(file, concurrent=1, reduction=2), changes)
    trials = {trial.params["optimizer.learning_rate"]: trial for trial in study(run.root).trials}
    stopped = trials[1e-7]
    assert trials[2e-3].state.name == "COMPLETE"
    assert stopped.state.name == "PRUNED"
    assert not (run.root / "trials" / f"{stopped.number:04d}" / "seed-0" / "result.json").exists()
    with calling_mlflow(5):
        client = open_client(f"sqlite:///{tmp_path}/runs/mlflow.db")
        experiment = client.get_experiment_by_name("cm_ray").experiment_id
        states = {run.info.run_name: run.info.status for run in client.search_runs([experiment])}
    assert states[f"trial-{stopped.number}-seed-0"] == "KILLED"


@pytest.mark.parametrize("training", ["pretended", pytest.param("real", marks=pytest.mark.slow)])
def test_failures_are_recorded_and_stop_nobody(training, ray_cluster, tmp_path, request):
    """One whose loss is not finite, one without memory, one that raises, and one that is right."""
    tracked = training == "real"
    if not tracked:
        request.getfixturevalue("pretended")
    file = write_space(
        tmp_path,
        kind=RAISING,
        body="space={'case': Named({"
        "'right': {}, "
        "'nan': {'optimizer.learning_rate': 1e30}, "
        "'hungry': {'optimizer.beta2': 0.97}, "
        "'raises': {'optimizer.beta2': 0.98}})}, "
        "first={'case': 'right'}, sampler='grid'",
    )
    call = settings(file, scheduler="none", retries=1, **({} if tracked else {"tracking_uri": "none"}))
    run = sweep(call, {})
    trials = {trial.params["case"]: trial for trial in study(run.root).trials}
    states = {name: trial.state.name for name, trial in trials.items()}
    assert states == {"right": "COMPLETE", "nan": "FAIL", "hungry": "FAIL", "raises": "FAIL"}
    sentences = {name: trial.user_attrs.get("failed", "") for name, trial in trials.items()}
    assert "The loss is inf at step 2" in sentences["nan"]
    assert sentences["raises"] == "RuntimeError: a defect"
    assert (tmp_path / "raised").read_text() == "xx", "it was tried again"
    assert "The trial needs more memory than there is; lower batch_size" in sentences["hungry"]
    assert (tmp_path / "asked").read_text() == "x", "it was not tried again"
    report = (run.root / "report.md").read_text()
    assert "1 finished, 3 failed" in report
    for name, sentence in sentences.items():
        assert sentence.replace("|", "/") in report, name


@pytest.mark.slow
def test_two_objectives_have_a_front(ray_cluster, tmp_path):
    file = write_space(
        tmp_path,
        "space={'steps': Categorical([20, 10]), 'network.channels': Categorical([8, 16])}, "
        "sampler='grid', minimize=('score', 'cost')",
    )
    run = sweep(settings(file), {})
    trials = study(run.root).trials
    assert all(trial.state.name == "COMPLETE" for trial in trials)
    costs = {tuple(trial.params.values()): trial.values[1] for trial in trials}
    assert costs[20, 8] == pytest.approx(2 * costs[10, 8])
    assert costs[10, 16] > 2 * costs[10, 8]
    assert (run.root / "pareto.png").is_file()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"trials": -1}, "trials must be at least 0, not -1"),
        ({"reduction": 1}, "reduction must be at least 2"),
        ({"trials": 5}, "A grid determines trials itself"),
        ({"searcher": "gp", "scheduler": "asha"}, "gp needs finished ones: leave it out"),
        ({"searcher": "gp", "grace": 5}, "grace and reduction belong to asha"),
        ({"scheduler": "none", "reduction": 2}, "grace and reduction belong to asha"),
        ({"searcher": "nsga2"}, "nsga2 is for two objectives"),
        ({"storage": "nonsense"}, "storage nonsense cannot be opened"),
        ({"tracking_uri": "nonsense"}, "'nonsense' is not the address of an MLflow store"),
        ({"space": "nowhere"}, "no search space 'nowhere'"),
    ],
)
def test_what_is_refused_before_anything_is_made(changes, sentence, tmp_path):
    file = write_space(tmp_path, GRID)
    with pytest.raises(UserError, match=sentence):
        sweep(settings(file, **changes), {})
    left = tmp_path / "runs" / "swept"
    assert {path.name for path in left.glob("*")} <= {".lock"}


def test_what_never_fits_the_images_costs_no_trial(ray_cluster, tmp_path):
    file = write_space(tmp_path, "space={'network.channels': Categorical([8, 12])}, sampler='grid'")
    with pytest.raises(
        UserError, match=r"channels can never be 12: .*norm_groups 4|head_channels 8 does not"
    ):
        sweep(settings(file, tracking_uri="none"), {})
    assert not (tmp_path / "runs" / "swept" / "sweep.json").exists()


def test_a_mistyped_teacher_costs_no_trial(ray_cluster, tmp_path):
    file = write_space(tmp_path, GRID)
    changes = parse_changes(["method=cd", f"teacher.model={tmp_path}/no-teacher"])
    with pytest.raises(UserError, match="no-teacher"):
        sweep(settings(file, tracking_uri="none"), changes)
    root = tmp_path / "runs" / "swept"
    assert not (root / "sweep.json").exists(), "the right command may follow"
    assert not study(root).trials


def test_the_directory_of_another_job(tmp_path):
    file = write_space(tmp_path, GRID)
    other = RunDirectory(tmp_path / "runs" / "swept")
    other.root.mkdir(parents=True)
    other.config_file.write_text("{}")
    with pytest.raises(UserError, match="belongs to a training run"):
        sweep(settings(file), {})


def real(file):
    return job("sweep.py", file, "--run-dir", file.parent / "runs" / "swept", "--scheduler", "none")


def pretending(file):
    return module_of_tests("tests.cluster.pretending", file, file.parent / "runs" / "swept")


def accounted(root, count):
    """Every trial is there once and complete, and its training went once from its first step to its last."""
    trials = study(root).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * count
    assert len({json.dumps(trial.params) for trial in trials}) == count
    assert sorted(path.name for path in (root / "trials").iterdir()) == [f"{i:04d}" for i in range(count)]
    for number in range(count):
        rows = RunDirectory(root / "trials" / f"{number:04d}" / "seed-0").read_metrics()
        assert [row["step"] for row in rows if "scores" in row] == [5, 10, 15, 20]


def disturbed(file, command, victim, moment):
    """Kill the driver, or a training worker, when so many rows of scores have been written."""
    root = file.parent / "runs" / "swept"

    def scored():
        logs = root.glob("trials/*/seed-0/metrics.jsonl")
        return sum(log.read_text().count('"scores"') for log in logs)

    with started(command) as process:
        wait_for(lambda: scored() >= moment, f"{moment} scores", process)
        if victim == "worker":
            random.choice(workers(process.pid)).send_signal(signal.SIGKILL)
            assert process.wait(LIMIT_S) == 0
            return
        family = descendants(process.pid)
        process.kill()
        process.wait()
        reap(family)
    finished = {path: path.stat().st_mtime_ns for path in root.glob("trials/*/seed-0/result.json")}
    assert len(finished) < len(study(root).trials), "it was killed before it had finished"
    run(command)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "finished trials stay"


THREE = "space={'distance': Categorical(['l2', 'l1', 'norm'])}, "


def test_a_kill_loses_and_repeats_nothing(tmp_path):
    """Killed when of three trials two are finished, or nearly, and one goes on or has not begun."""
    file = write_space(tmp_path, THREE + "sampler='grid'")
    disturbed(file, pretending(file), "driver", moment=8)
    accounted(tmp_path / "runs" / "swept", 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "moment"),
    [("worker", 3), ("driver", 1), ("driver", 3), ("driver", 5), ("driver", 6), ("driver", 7)],
)
def test_kills_in_real_trainings(victim, moment, tmp_path):
    file = write_space(tmp_path, GRID)
    disturbed(file, real(file), victim, moment)
    accounted(tmp_path / "runs" / "swept", 2)
