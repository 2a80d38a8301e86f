"""The work for a trial does not grow with their number, and the best trials keep their checkpoints."""

import itertools
import json
import random
import subprocess
import sys
from types import SimpleNamespace

import optuna
import pytest

from cm_ray.cluster.sweeps.searcher import FINAL, STEP
from cm_ray.cluster.sweeps.sweep_table import SweepTable
from cm_ray.cluster.sweeps.tidying import Tidier
from cm_ray.runs.directory import RunDirectory
from cm_ray.sweeps.study import SCORE, SCORES
from tests.cluster.processes import ROOT
from tests.waiting import LIMIT_S


def test_a_small_simulated_sweep(tmp_path):
    done = subprocess.run(
        [sys.executable, "benchmarks/sweep_scale.py", "--trials", "20", "--no-write"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["trials"] == 20
    assert row["checkpoints_left"] == 1
    assert row["last_tenth_ms_per_trial"].keys() == {"search", "tidy", "table"}


class Folders:
    """The folders of trials with one seed each."""

    seeds = 1

    def __init__(self, folder):
        self.folder = folder

    def run(self, number, seed):
        return RunDirectory(self.folder / str(number))

    def place(self, number):
        return self.folder / str(number)

    def outcome(self, number):
        return {SCORES: [1.0]}

    def kept(self):
        return {
            int(each.name) for each in self.folder.iterdir() if self.run(each.name, 0).checkpoints.exists()
        }


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("continued", [False, True])
def test_the_best_trials_keep_their_checkpoints(objectives, continued, tmp_path):
    """No other trial undercuts them; a second call knows those of the first. Equal trials are both kept."""
    study = optuna.create_study(directions=["minimize"] * objectives)
    folders, draw = Folders(tmp_path), random.Random(0)
    tidier = Tidier(study, folders)
    for number in range(60):
        trial = study.ask()
        folders.run(number, 0).checkpoints.mkdir(parents=True)
        values = [draw.randrange(12) for _ in range(objectives)]
        if number % 7 == 3:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            values = None
        else:
            study.tell(trial, values)
        if continued and number == 30:
            tidier = Tidier(study, folders)
        tidier.tidy(number, values)
        best = [each for each in study.trials if each.state == optuna.trial.TrialState.COMPLETE]
        expected = {
            one.number
            for one in best
            if not any(
                other.values != one.values
                and all(a <= b for a, b in zip(other.values, one.values, strict=True))
                for other in best
            )
        }
        assert folders.kept() == expected


def test_a_told_trial_does_not_read_the_whole_study(tmp_path, monkeypatch):
    study, folders = optuna.create_study(), Folders(tmp_path)
    tidier, reads = Tidier(study, folders), []
    monkeypatch.setattr(
        optuna.Study,
        "get_trials",
        lambda self, *a, real=optuna.Study.get_trials, **k: reads.append(1) or real(self, *a, **k),
    )
    for number in range(20):
        tidier.tidy(number, [float(number)])
    assert len(reads) == 1


def test_the_table_keeps_no_more_than_it_shows_of_ended_trials(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    table = SweepTable(100, Folders(tmp_path))
    table.on_terminal = True
    for number in itertools.chain(range(99, -1, -1), [5]):
        trial = SimpleNamespace(config={"trial": number, "a": number})
        table.on_trial_start(0, [], trial)
        table.on_trial_result(0, [], trial, {STEP: 1, SCORE: float(number), FINAL: True})
    assert [row.number for row in table.best] == list(range(24))
    assert not table.rows
    assert "(0 running, 100 done, 0 stopped, 0 failed; 100 in all)" in capsys.readouterr().err, (
        "each counts once"
    )
