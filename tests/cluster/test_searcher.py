"""The link of Tune and Optuna: every trial is accounted for once, and nothing misleads who chooses."""

import math
import re
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from cm_ray import recipes
from cm_ray.cluster.sweeps.asha import RememberingASHA
from cm_ray.cluster.sweeps.searcher import FINAL, STEP, StudySearch
from cm_ray.errors import UserError
from cm_ray.sweeps.space import NUMBER, Categorical, Float, Space
from cm_ray.sweeps.study import (
    FAILED,
    OVER,
    SCORES,
    STOPPED,
    begin,
    default_storage,
    open_sampler,
    open_storage,
    open_study,
    shown_storage,
    trials_in,
)
from tests.cluster.postgresql import start_postgresql

SPACE = Space(
    question="Where?",
    base=recipes.ct_digits(),
    space={
        "optimizer.learning_rate": Float(1e-4, 1e-1, log=True),
        "distance": Categorical(["l2", "pseudo-huber", "l1"]),
        "distance.c": Float(1e-3, 1.0, log=True),
        "target.mu0": Float(0.01, 0.99),
    },
)


def make_study(storage, sampler="tpe", seed=0, trials=30, objectives=("score",), owner="a"):
    chooser = open_sampler(sampler, seed=seed, trials=trials, objectives=len(objectives))
    return open_study("study", storage, chooser, objectives, owner)


def make_search(study, outcomes=None, objectives=("score",)):
    waiting = [trial._trial_id for trial in trials_in(study, TrialState.RUNNING)]
    return StudySearch(
        study,
        SPACE.suggest,
        objectives,
        interrupted=waiting,
        outcome=lambda number: dict((outcomes or {}).get(number, {})),
    )


@pytest.fixture(scope="module")
def postgresql():
    server = start_postgresql()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def storage(request, tmp_path):
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql").database()
    else:
        url = "" if request.param == "sqlite" else f"journal:{tmp_path}/study.journal"
    return lambda: open_storage(url, tmp_path)


def test_each_end_is_told_as_what_it_was(storage):
    study = make_study(storage())
    begin(study, SPACE, "tpe", "a")
    outcomes = {0: {SCORES: [1.0, 2.0]}, 1: {STOPPED: 40}, 2: {FAILED: "not finite at step 7"}}
    outcomes[4] = {SCORES: [math.inf]}
    search = make_search(study, outcomes=outcomes)
    for name in "abcdef":
        search.suggest(name)
    search.on_trial_result("a", {STEP: 10, "score": 3.0, FINAL: False})
    search.on_trial_complete("a", {STEP: 20, "score": 1.5, FINAL: True})
    for step, score in [(10, 5.0), (20, 4.0), (20, 4.0), (30, math.nan)]:
        search.on_trial_result("b", {STEP: step, "score": score, FINAL: False})
    search.on_trial_result("b", {STEP: 110, "score": 9.0, FINAL: False, "seed": 1})
    search.on_trial_complete("b", {STEP: 20, "score": 4.0, FINAL: True})
    search.on_trial_complete("f", {STEP: 20, "score": 4.0, FINAL: False})  # Ctrl-C: it is not over
    search.on_trial_complete("c", {STEP: 7, "score": math.nan, FINAL: True})
    search.on_trial_complete("d", None, error=True)
    search.on_trial_complete("e", {STEP: 9, "score": math.inf, FINAL: True})
    states = [trial.state.name for trial in make_study(storage()).trials]
    assert states == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "FAIL", "RUNNING"]
    complete, stopped, told, died, infinite, _ = study.trials
    assert (complete.value, complete.user_attrs[SCORES]) == (1.5, [1.0, 2.0]), "the mean of its seeds"
    assert complete.intermediate_values == {10: 3.0}
    assert stopped.intermediate_values == {10: 5.0, 20: 4.0}, "of the first seed, each once"
    assert stopped.user_attrs[STOPPED] == 40
    assert told.user_attrs[FAILED] == "not finite at step 7"
    assert died.user_attrs[FAILED] == "its process died"
    assert infinite.user_attrs[FAILED] == "its score is not finite"


def test_interrupted_trials_go_on_under_their_numbers(storage):
    finished = {number: {SCORES: [1.0]} for number in range(9)}
    study = make_study(storage())
    begin(study, SPACE, "tpe", "a")
    first = make_search(study, outcomes=finished)
    configs = {name: first.suggest(name) for name in "abc"}
    first.on_trial_result("c", {STEP: 10, "score": 3.0, FINAL: False})
    first.on_trial_complete("b", {STEP: 20, "score": 1.5, FINAL: True})
    assert configs["a"] == {NUMBER: 0, **SPACE.start()}, "trial 0 is the paper's"
    study = make_study(storage(), seed=1)  # a new process
    begin(study, SPACE, "tpe", "a")
    second = make_search(study, outcomes=finished)
    again = [second.suggest(name) for name in "uvw"]
    assert again[:2] == [configs["a"], configs["c"]]
    assert again[2][NUMBER] == 3
    second.on_trial_result("v", {STEP: 10, "score": 3.0, FINAL: False})
    for name in "uvw":
        second.on_trial_complete(name, {STEP: 20, "score": 1.0, FINAL: True})
    trials = make_study(storage()).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    assert len(trials_in(study, *OVER)) == 4


def test_a_grid_is_enqueued_once(storage):
    grid = Space(
        question="?",
        base=recipes.ct_digits(),
        space={"distance": Categorical(["l1", "l2"]), "target.mu0": Categorical([0.5, 0.9])},
    )
    for _ in range(2):
        study = make_study(storage(), "grid")
        begin(study, grid, "grid", "a")
    assert len(study.trials) == 4
    assert {tuple(grid.suggest(study.ask()).values()) for _ in range(4)} == {
        (name, mu0) for name in ("l1", "l2") for mu0 in (0.5, 0.9)
    }


def test_two_objectives(storage):
    both = ("score", "cost")
    study = make_study(storage(), "nsga2", objectives=both)
    search = make_search(
        study, objectives=both, outcomes={0: {SCORES: [3.0], "cost": 1.0}, 1: {SCORES: [3.0]}}
    )
    for name, cost in [("a", 1.0), ("b", math.nan)]:
        search.suggest(name)
        search.on_trial_result(name, {STEP: 10, "score": 3.0, "cost": math.nan, FINAL: False})
        search.on_trial_complete(name, {STEP: 10, "score": 3.0, "cost": cost, FINAL: True})
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.FAIL]
    assert study.trials[0].values == [3.0, 1.0]


@pytest.mark.parametrize(
    ("name", "objectives", "sentence"),
    [("gp", 2, "gp has one objective"), ("nsga2", 1, "nsga2 is for two objectives")],
)
def test_samplers_that_do_not_fit(name, objectives, sentence):
    with pytest.raises(UserError, match=sentence):
        open_sampler(name, seed=0, trials=9, objectives=objectives)


@pytest.mark.parametrize(
    "url", ["nonsense", "mysql+nothing://here/x", "sqlite:////no/such/folder/study.db", "journal:/proc/no/x"]
)
def test_storages_that_cannot_be_opened(url, tmp_path):
    with pytest.raises(UserError, match=rf"storage {re.escape(url.removeprefix('journal:'))} cannot be"):
        open_storage(url, tmp_path)
    assert default_storage(tmp_path) == f"sqlite:///{tmp_path}/study.db"


def test_storages_are_shown_as_the_dashboard_takes_them_and_without_passwords():
    assert shown_storage("journal:///data/study.log") == "/data/study.log"
    assert shown_storage("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"
    assert shown_storage("sqlite:////data/study.db") == "sqlite:////data/study.db"


def objective(params):
    """A smooth bowl in two dimensions with a better branch: its optimum is 0, at 3e-3, pseudo-huber, 0.03."""
    value = np.log10(params["optimizer.learning_rate"] / 3e-3) ** 2 + (params["target.mu0"] - 0.9) ** 2
    if params["distance"] == "pseudo-huber":
        return value + 0.1 * np.log10(params["distance.c"] / 0.03) ** 2
    return value + (0.5 if params["distance"] == "l2" else 0.8)


def trials_until_good(sampler, seed, most=60, good=0.1):
    """Return the trials until a value in the optimum's region; one in four is stopped early."""
    study = make_study(optuna.storages.InMemoryStorage(), sampler, seed, trials=30)
    outcomes = {}
    search = make_search(study, outcomes=outcomes)
    for number in range(most):
        value = objective(search.suggest(str(number)))
        if value < good:
            return number + 1
        search.on_trial_result(str(number), {STEP: 1, "score": value + 1, FINAL: False})
        outcomes[number] = {SCORES: [value]} if number % 4 < 3 or value < 1 else {STOPPED: 1}
        search.on_trial_complete(str(number), {STEP: 2, "score": value, FINAL: True})
    return most


def test_tpe_finds_the_optimum_in_fewer_trials_than_random_search(capsys):
    counts = {
        sampler: [trials_until_good(sampler, seed) for seed in range(12)] for sampler in ("random", "tpe")
    }
    means = {name: float(np.mean(values)) for name, values in counts.items()}
    with capsys.disabled():
        print(f" trials until the optimum's region, mean of 12 seeds: {means}", end="")
    assert means["tpe"] < 0.8 * means["random"]


def test_gp_finds_it_too():
    gp, drawn = ([trials_until_good(name, seed) for seed in range(3)] for name in ("gp", "random"))
    assert np.mean(gp) < 0.6 * np.mean(drawn)


def test_a_study_is_one_sweeps(storage):
    """Trials of another sweep, of another space perhaps, would be taken for its own."""
    begin(make_study(storage(), "grid"), SPACE, "tpe", "a")
    assert len(make_study(storage()).trials) == 1
    with pytest.raises(UserError, match="The study study in this storage belongs to another sweep: name"):
        make_study(storage(), owner="b")
    optuna.create_study(study_name="somebody's", storage=storage()).ask()
    sampler = open_sampler("tpe", seed=0, trials=9, objectives=1)
    with pytest.raises(UserError, match="belongs to another sweep"):
        open_study("somebody's", storage(), sampler, ("score",), "b")
    optuna.create_study(study_name="begun", storage=storage())  # and killed
    assert not open_study("begun", storage(), sampler, ("score",), "b").trials


def test_a_storage_out_of_reach_is_told_again(storage, monkeypatch):
    study = make_study(storage())
    search = make_search(study, outcomes={0: {SCORES: [2.0]}})
    search.suggest("x")

    def lost(*args, **options):
        raise OSError("the server is away")

    with monkeypatch.context() as patch:
        patch.setattr(study, "tell", lost)
        with pytest.raises(OSError, match="away"):
            search.on_trial_complete("x", {STEP: 20, "score": 2.0, FINAL: True})
    assert study.trials[0].state == TrialState.RUNNING
    search.on_trial_complete("x", {STEP: 20, "score": 2.0, FINAL: True})
    assert study.trials[0].value == 2.0


def test_what_had_finished_when_its_process_died_is_finished(storage):
    study = make_study(storage())
    search = make_search(study, outcomes={0: {SCORES: [2.0, 4.0]}})
    search.suggest("x")
    search.on_trial_complete("x", None, error=True)
    search.on_trial_complete("x", None, error=True)  # Tune may say it twice
    assert (study.trials[0].state, study.trials[0].value) == (TrialState.COMPLETE, 3.0)


def test_halving_remembers_what_was_scored_before(tmp_path):
    study = make_study(open_storage("", tmp_path))
    search = make_search(study)
    for name, scores in {"a": [1.0, 0.5], "b": [2.0], "c": [3.0]}.items():
        search.suggest(name)
        for step, score in zip((100, 300), scores, strict=False):
            search.on_trial_result(name, {STEP: step, "score": score, FINAL: False})
    stopped = []
    asha = RememberingASHA(study, stopped.append, first=100, last=900, reduction=3)
    assert dict(asha.bracket._rungs) == {100: {0: -1.0, 1: -2.0, 2: -3.0}, 300: {0: -0.5}, 900: {}}

    def result(number, step, score, **more):
        trial = SimpleNamespace(trial_id=f"new-{number}", config={NUMBER: number})
        told = {STEP: step, "score": score, FINAL: False, **more}
        assert asha.on_trial_result(None, trial, told) == "CONTINUE", "Tune kills nobody"
        return stopped

    assert not result(7, 50, 9.0), "before the first rung"
    assert result(7, 100, 2.5) == [7]
    assert result(8, 100, 0.9) == [7]
    assert result(2, 100, 3.0) == [7], "it was judged before"
    assert result(8, 950, 9.0, seed=1) == [7], "other seeds are not judged"
    assert result(8, 1800, 9.0, final=True) == [7]
    assert result(8, 350, 0.6) == [7, 8]
