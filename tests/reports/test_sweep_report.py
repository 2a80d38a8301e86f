"""The report of a sweep: what it says of chance, of stopped and failed trials, and its pictures."""

import csv
import math

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial
from PIL import Image
from scipy import stats

from cm_ray import recipes
from cm_ray.core.schedules import Constant
from cm_ray.recipes.recipe import Recipe
from cm_ray.reports.sweep_pictures import _place, _ticks
from cm_ray.reports.sweep_report import behind, best_trial, sweep_note, write_sweep_report
from cm_ray.runs.directory import RunDirectory
from cm_ray.settings.tree import from_dict
from cm_ray.storage.files import read_json
from cm_ray.sweeps.space import Categorical, Float, Int, Named, Space

SPACE = Space(
    question="Which schedule?",
    base=recipes.ct_digits(),
    space={
        "schedule": Named({"adaptive": {}, "N = 9": {"times.scales": Constant(9)}}),
        "distance": Categorical(["l2", "pseudo-huber"]),
        "distance.c": Float(1e-3, 1.0, log=True),
    },
    lines=("schedule", "distance"),
)
KEY = {"name": "FD-digits-100", "key": {"sampler": "one-step"}}


def add(study, scores, params, state=TrialState.COMPLETE, values=None, **attributes):
    distributions = {}
    for name in params:
        distributions[name] = SPACE.distribution(name, {k: v for k, v in params.items() if k != name})
    study.add_trial(
        create_trial(
            state=state,
            values=values or ([float(np.mean(scores))] if state == TrialState.COMPLETE else None),
            params=params,
            distributions=distributions,
            user_attrs={"scores": list(scores), "score": KEY, **attributes} if scores else attributes,
            intermediate_values={100: 5.0, 200: 4.0} if values is None else {},
        )
    )


@pytest.fixture
def study():
    found = optuna.create_study(direction="minimize")
    add(found, [3.0, 3.2, 3.1], {"schedule": "N = 9", "distance": "l2"})
    add(found, [1.0, 1.3, 1.2], {"schedule": "adaptive", "distance": "l2"})
    huber = {"distance": "pseudo-huber", "distance.c": 0.03}
    add(found, [1.3, 1.2, 1.3], {"schedule": "adaptive", **huber})
    add(found, [], {"schedule": "N = 9", **huber}, TrialState.PRUNED, stopped_at=200)
    add(found, [], {"schedule": "adaptive", "distance": "l2"}, TrialState.FAIL, failed="no | luck")
    return found


def run_of(folder):
    """Logs of trainings: score 8 falls as the root of the steps."""

    def run(number, seed):
        made = RunDirectory(folder / f"{number}-{seed}")
        if not made.root.exists():
            made.root.mkdir(parents=True)
            for step in (100, 200, 300):
                value = (8 + number + 0.3 * seed) / math.sqrt(step)
                made.append_metrics({"step": step, "scores": [{"value": value}]})
        return made

    return run


def test_a_report_tells_all(study, tmp_path):
    files = write_sweep_report(study, study.trials, SPACE, tmp_path, run_of(tmp_path / "runs"), seeds=3)
    assert {file.name for file in files} == {
        *("report.md", "trials.csv", "best.json"),
        *("panel.png", "history.png", "slices.png"),
    }, "three finished trials tell no importance"
    report = files[0].read_text()
    assert "5 trials: 3 finished, 1 stopped early, 1 failed. FD-digits-100, sampler one-step" in report
    rows = [line for line in report.splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[0] for row in rows] == ["| 1", "| 2", "| 0", "| 3", "| 4"], "the best first"
    assert "| 1 | 1.167 | 0.088 |  | adaptive | l2 |  |  |" in rows[0]
    assert "| ~ +0.1 ± 0.12 |" in rows[1]
    assert "| +1.93 ± 0.033 |" in rows[2]
    assert "| (4) |  |  |" in rows[3]
    assert "stopped at step 200 |" in rows[3]
    assert "no / luck |" in rows[4]
    assert "It is not significantly better than trial 2 (~" in report
    config = from_dict(Recipe, read_json(files[2]))
    assert config.name == "ct_digits-best"
    assert next(iter(csv.DictReader(files[1].open())))["scores"] == "1.0 1.3 1.2"
    for picture in files[3:]:
        assert np.asarray(Image.open(picture)).std() > 1


@pytest.mark.filterwarnings("ignore:Some regimes for parameter")
def test_a_note_has_question_space_best_setting_and_command(study):
    ended = study.trials
    best = best_trial(ended)
    note = sweep_note(ended, SPACE, best, 3, "optuna-dashboard sqlite:////data/study.db")
    assert note.startswith(f"**{SPACE.question}**")
    assert "Best: trial 1, 1.167. It is not significantly better than trial 2" in note
    rows = [line for line in note.splitlines() if line.startswith("| `")]
    assert rows == [
        "| `schedule` | adaptive | adaptive, N = 9 |",
        "| `distance` | l2 | l2, pseudo-huber |",
        "| `distance.c` |  | 0.001 to 1, logarithmic |",
    ]
    assert "```bash\noptuna-dashboard sqlite:////data/study.db\n```" in note
    assert "Best:" not in sweep_note([], SPACE, None, 3, "optuna-dashboard x")


def test_importance_takes_ten_finished_trials_and_two_parameters(study, tmp_path):
    for number in range(7):
        add(study, [1.0 + number], {"schedule": ("N = 9", "adaptive")[number % 2], "distance": "l2"})
    files = write_sweep_report(study, study.trials, SPACE, tmp_path, run_of(tmp_path / "r"), seeds=1)
    assert tmp_path / "importance.png" in files


def test_slices_have_a_place_for_every_kind_of_value():
    assert _ticks(Float(1e-4, 1, log=True)) == ([1e-4, pytest.approx(0.01), 1], ["0.0001", "0.01", "1"])
    assert _ticks(Int(20, 160)) == ([20, 90, 160], ["20", "90", "160"])
    assert _ticks(Categorical(["l2", None])) == ([0, 1], ["l2", "None"])
    assert _place(Categorical(["l2", "l1"]), "l1") == 1


def test_one_seed_tells_nothing_of_chance(tmp_path):
    study = optuna.create_study()
    add(study, [3.0], {"schedule": "N = 9", "distance": "l2"})
    add(study, [1.0], {"schedule": "adaptive", "distance": "l2"})
    report = write_sweep_report(study, study.trials, SPACE, tmp_path, run_of(tmp_path / "r"), seeds=1)[
        0
    ].read_text()
    assert "One seed does not show the variance; three seeds do." in report
    assert "one seed; lower is better" in report


def test_nothing_finished(tmp_path):
    study = optuna.create_study()
    add(study, [], {"schedule": "adaptive"}, TrialState.FAIL, failed="no luck")
    files = write_sweep_report(study, study.trials, SPACE, tmp_path, run_of(tmp_path / "r"), seeds=1)
    assert "1 trials: 1 failed. No score." in files[0].read_text()
    assert best_trial(study.trials) is None
    assert not (tmp_path / "best.json").exists()


def test_a_front_of_two_objectives(tmp_path):
    space = Space(
        question="Fast and good?",
        base=recipes.ct_digits(),
        space=SPACE.space,
        minimize=("score", "cost"),
    )
    study = optuna.create_study(directions=["minimize"] * 2)
    for score, cost in [(3.0, 1e12), (1.0, 3e12), (2.0, 2.5e12), (3.5, 3e12)]:
        add(study, [score], {"schedule": "adaptive", "distance": "l2"}, values=[score, cost])
    files = write_sweep_report(study, study.trials, space, tmp_path, run_of(tmp_path / "r"), seeds=1)
    assert "| 1 | 1 |  |  | 3e+12 |" in files[0].read_text()
    assert files[-1].name == "pareto.png"


def test_differences_are_students_paired_ones():
    rng = np.random.default_rng(0)
    for _ in range(20):
        best = rng.normal(1, 0.1, 4)
        others = best + rng.normal(0.05, 0.05, 4)
        gap = behind(list(others), list(best))
        test = stats.ttest_rel(others, best)
        assert gap.significant == (test.pvalue < 0.05)
        assert gap.mean / gap.error == pytest.approx(test.statistic)
    assert behind([1.0], [0.5]) is None
