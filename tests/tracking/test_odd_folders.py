"""In a folder of any name there can be an MLflow store and a study, and printed commands run as they are."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tracked_runs import log

import cm_ray as cm
from cm_ray.networks.model import save_model
from cm_ray.recipes.recipe import Recipe
from cm_ray.recipes.sections import TrackingSettings
from cm_ray.runs.console import command
from cm_ray.runs.directory import RunDirectory
from cm_ray.storage.files import write_json
from cm_ray.storage.sqlite import sqlite_address, sqlite_file
from cm_ray.sweeps.study import default_storage, open_storage, shown_storage
from cm_ray.tracking.store import database_file, default_uri
from cm_ray.tracking.tracker import open_tracker
from tests.api.conftest import TINY
from tests.tracking.tracked_runs import tiny_model

NAMES = ["a b?#%'\"é", "%20", "?uri=true", "a#b", "-x", "$HOME `id`", "a+b&c=d;e"]


@pytest.mark.parametrize("name", NAMES)
def test_an_address_is_that_of_its_file(name, tmp_path):
    file = tmp_path / name / "x.db"
    assert sqlite_file(sqlite_address(file)) == file
    assert database_file(default_uri(file.parent)) == file.parent / "mlflow.db"
    assert sqlite_file(f"sqlite:///{tmp_path}/plain.db") == tmp_path / "plain.db"


@pytest.mark.parametrize(
    "address", ["", "sqlite", "sqlite://", "sqlite:", "sqlite:///", "http://a/sqlite:///b"]
)
def test_an_address_without_a_file(address):
    assert sqlite_file(address) is None


@pytest.mark.parametrize("name", NAMES)
def test_a_study_in_any_folder(name, tmp_path):
    import optuna

    folder = tmp_path / name
    optuna.create_study(study_name="one", storage=open_storage("", folder))
    assert [path.name for path in folder.iterdir()] == ["study.db"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    printed = command("optuna-dashboard", shown_storage(default_storage(folder)))
    said = subprocess.run(["bash", "-c", f'set -- {printed}; printf %s "$2"'], capture_output=True, text=True)
    assert optuna.load_study(study_name="one", storage=said.stdout).study_name == "one"


def test_a_run_in_any_folder_is_tracked_registered_and_sampled(tmp_path, monkeypatch):
    folder = tmp_path / NAMES[0] / "runs"
    run = RunDirectory(folder / "one")
    run.root.mkdir(parents=True)
    run.claim(Recipe(name="one", tracking=TrackingSettings(model_name="tiny")))
    write_json(run.lineage_file, {"data.fingerprint": "abc"})
    log(run, 0)
    save_model(run.model, tiny_model().spec, tiny_model().network.state_dict())
    registered = open_tracker(run.config(), run, strict=True).register(None)
    assert registered.uri == "models:/tiny/1"
    assert (folder / "mlflow.db").is_file()
    assert (folder / "mlartifacts").is_dir()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == [NAMES[0]]
    monkeypatch.setenv("CM_RAY_RUNS", str(folder))
    assert cm.load("models:/tiny@champion", device="cpu").sample(1, seed=0).shape == (1, 8, 8, 1)


def test_printed_commands_run_as_they_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / NAMES[0]
    changes = {**TINY, "evaluation.every": 0, "evaluation.samples": 9, "tracking.uri": "none"}
    cm.train("ict_digits", out=place / "run", steps=2, changes=changes, quiet=True)
    printed = command("cm-ray", "sample", place / "run", "--samples", 2, "--out", place / "new")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", printed], env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert (place / "new.png").is_file()
    assert shlex.split(printed)[2] == str(place / "run")
