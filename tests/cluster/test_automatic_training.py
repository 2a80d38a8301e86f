"""The stages of a training that chooses its settings, and what the same call does after an interruption."""

from pathlib import Path

import pytest

from cm_ray.cluster.training import in_time as module
from cm_ray.recipes.automatic import AutoTraining
from cm_ray.recipes.sections import DataSettings
from cm_ray.runs.directory import RunDirectory
from cm_ray.settings.choices import word_of

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

TINY = {"network.channels": 8, "network.head_channels": 8, "network.norm_groups": 4}


class Interrupted(Exception):
    pass


@pytest.fixture
def trained(monkeypatch):
    """Only pretend to train, at half of the speed that was measured; return the recipes."""
    found = []

    def train(recipe):
        found.append(recipe)
        run = RunDirectory(Path(recipe.run_dir))
        run.root.mkdir(exist_ok=True)
        run.check_same(recipe)
        run.claim(recipe)
        run.append_metrics({"step": recipe.steps, "loss": 1.0, "seconds": 0.2 * recipe.steps})

    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(module, "measured_speed", lambda recipe, data, device: 0.1)
    return found


def asked(folder, hours=0.5, **more):
    return AutoTraining(
        hours=hours, data=DataSettings(path="digits"), changes={"run_dir": str(folder), **TINY, **more}
    )


def test_a_teacher_and_its_student_in_the_time_that_is_left(trained, tmp_path, capsys):
    module.train_automatically(asked(tmp_path / "run", seed=2))
    teacher, student = trained
    assert (word_of(teacher.method), word_of(student.method)) == ("edm", "cd")
    assert (teacher.run_dir, student.run_dir) == (str(tmp_path / "run-teacher"), str(tmp_path / "run"))
    assert student.teacher.model == teacher.run_dir
    assert (teacher.seed, student.seed) == (2, 2)
    assert teacher.network == student.network
    spent = 0.2 * teacher.steps + module.START_S
    left = 1800 - spent
    assert student.steps == int((left - module.reserve_s(left, 1)) / 0.2), (
        "steps take twice as long as measured"
    )
    assert "distillation" in capsys.readouterr().err


def test_the_same_call_goes_on_with_what_was_chosen(trained, monkeypatch, tmp_path):
    module.train_automatically(asked(tmp_path / "run"))
    monkeypatch.setattr(module, "measured_speed", lambda recipe, data, device: 99.0)
    module.train_automatically(asked(tmp_path / "run"))
    assert len(trained) == 3
    assert trained[2] == trained[1]


def test_a_call_that_ended_with_the_teacher_goes_on_with_it(trained, monkeypatch, tmp_path):
    pretended = module.train

    def only_the_teacher(recipe):
        if word_of(recipe.method) == "cd":
            raise Interrupted
        pretended(recipe)

    monkeypatch.setattr(module, "train", only_the_teacher)
    with pytest.raises(Interrupted):
        module.train_automatically(asked(tmp_path / "run"))
    monkeypatch.setattr(module, "train", pretended)
    module.train_automatically(asked(tmp_path / "run"))
    first, again, student = trained
    assert again == first
    assert student.teacher.model == first.run_dir


def test_a_short_time_is_for_consistency_training_alone(trained, tmp_path):
    module.train_automatically(asked(tmp_path / "run", hours=0.06))
    (recipe,) = trained
    assert word_of(recipe.method) == "ct"
    assert recipe.run_dir == str(tmp_path / "run")
    whole = int((216 - module.reserve_s(216, 1)) / 0.1)
    assert 0.3 * whole < recipe.steps < whole, "the start of the command counts"
