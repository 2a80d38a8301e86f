"""The private parts of Ray and Optuna that are leaned on: they are there, and do what is expected of them."""

import ast
import inspect
import os
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import ray._private.node
from optuna.distributions import CategoricalDistribution, FloatDistribution
from ray.train.v2._internal import exceptions
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from cm_ray.cluster.runtime import connect, internals
from cm_ray.errors import UserError
from cm_ray.sweeps import internals as optunas

ROOT = Path(__file__).parents[2]


@pytest.fixture
def study():
    return optuna.create_study()


def test_a_search_uses_a_study_that_exists(study):
    search = OptunaSearch(lambda trial: {"x": trial.suggest_float("x", 0, 1)}, metric="score", mode="min")
    internals.set_study(search, study)
    params = search.suggest("a")
    trial = internals.trials_of(search)["a"]
    assert trial.params == params == internals.params_of(search, trial)
    assert len(study.trials) == 1, "it has asked the study"
    assert internals.told_trials(search) == set()
    search.on_trial_complete("a", {"score": 1.0})
    assert internals.told_trials(search) == {"a"}
    assert study.trials[0].value == 1.0


@pytest.mark.parametrize(
    ("error", "said", "sentence"),
    [
        (Exception("The current node timed out during startup. This"), UserError, "did not start in time"),
        (ConnectionError("refused"), UserError, "There is no Ray cluster at RAY_ADDRESS="),
        (KeyError("a defect"), KeyError, "a defect"),
    ],
)
def test_a_start_of_ray_that_takes_too_long_is_a_sentence(error, said, sentence, monkeypatch):
    def init(**_):
        raise error

    assert connect._STARTED_LATE in inspect.getsource(ray._private.node)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for name in connect.ENVIRONMENT:
        monkeypatch.setenv(name, os.environ.get(name, ""))
    with pytest.raises(said, match=sentence), connect.connected():
        pass


def test_a_trial_is_found_again_in_its_storage(study):
    asked = study.ask()
    number = optunas.id_in_storage(asked)
    assert optunas.storage_of(study).get_trial(number).number == asked.number
    assert optuna.trial.Trial(study, optunas.id_in_storage(study.trials[0])).number == asked.number


def test_a_distribution_knows_its_values():
    numbers, words = FloatDistribution(1, 2), CategoricalDistribution(["a", None])
    assert optunas.contains(numbers, 1.5)
    assert optunas.contains(words, None)
    assert not optunas.contains(numbers, 3.0)
    assert not optunas.contains(numbers, "a word")
    assert not optunas.contains(words, "b")


def test_a_bracket_judges_by_the_id_of_a_trial_alone():
    scheduler = ASHAScheduler(
        time_attr="step", metric="score", mode="min", grace_period=5, max_t=20, reduction_factor=2
    )
    bracket = internals.bracket_of(scheduler)
    answers = [
        bracket.on_result(SimpleNamespace(trial_id=number), 5, -float(number)) for number in range(1, 5)
    ]
    assert answers[0] == "CONTINUE"
    assert answers[-1] == scheduler.STOP, "the worst of four comes last"


def test_the_errors_of_ray_train_are_there():
    for name in internals.NO_ROOM:
        assert issubclass(getattr(exceptions, name), Exception)


FOREIGN = {"_ot_study", "_ot_trials", "_completed_trials", "_space", "_storage", "_trial_id", "_brackets"}
FOREIGN |= {"_contains", "_private"}


def test_no_other_file_touches_them():
    """The names of private attributes are looked for, and imports from private modules of Ray and Optuna."""
    for file in (ROOT / "cm_ray").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in FOREIGN:
                own = isinstance(node.value, ast.Name) and node.value.id == "self"
                assert own or file.name == "internals.py", f"{file}:{node.lineno} {ast.unparse(node)}"
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                foreign = module.split(".")[0] in ("ray", "optuna")
                assert not (foreign and "._" in module), f"{file}:{node.lineno} {module}"
