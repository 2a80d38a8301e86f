"""`cm-ray`: its commands are found, and answer before torch and Ray are imported."""

import importlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import cm_ray
from cm_ray.command_line import main as module
from cm_ray.command_line.main import COMMANDS, run

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "ray", "mlflow", "matplotlib", "optuna", "pyarrow")
ANSWERS = [
    (["--help"], 0),
    (["--version"], 0),
    *(([name, "--help"], 0) for name in COMMANDS),
    (["train", "ct_digits", "--help"], 0),
    (["train", "ct_digit"], 2),
    (["train", "ct_digits", "--stepz", "3"], 2),
    (["train", "ct_digits", "--steps", "0"], 2),
    (["sample", "runs/demo", "--nfee", "3"], 2),
    (["sample", "runs/demo", "--ts", "0,2", "--nfe", "3"], 2),
    (["score", "runs/demo", "--scores", "FID"], 2),
    (["score", "runs/demo", "--samples", "1"], 2),
    (["averages", "runs/demo", "--lengths", "0.05,0.5"], 2),
    (["sweep", "digits_ict", "--reduction", "1"], 2),
    (["sweep", "digit_ict"], 2),
    (["time-points", "runs/demo", "--nfe", "1"], 2),
    (["edit", "inpant"], 2),
    (["edit", "stroke", "--model", "runs/demo", "--frames", "3"], 2),
    (["app", "runs/demo", "--port", "0"], 2),
    (["memory", "--gib", "0"], 2),
    (["smple"], 2),
]
PROGRAM = f"""
import json, sys
from cm_ray.command_line.main import run
from cm_ray.command_line.postponed import is_postponed

for words in json.loads(sys.argv[1]):
    try:
        code = run(words, prog="cm-ray")
    except SystemExit as ended:
        code = ended.code
    heavy = [name for name in {HEAVY} if name in sys.modules and not is_postponed(name)]
    print("\\nANSWER", json.dumps([words, code, heavy]))
"""


def python(program, *options):
    return subprocess.run(
        [sys.executable, "-c", program, *options],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=250,
    )


def test_answers_come_before_heavy_packages_are_imported():
    done = python(PROGRAM, json.dumps([words for words, _ in ANSWERS]))
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    assert answers == [[words, code, []] for words, code in ANSWERS]


def test_every_command_is_listed_and_exists(capsys):
    assert run(["--help"]) == 0
    listed = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"  {name}" in listed
        assert command.summary in listed
        for dotted in (command.parse, command.run):
            place, _, attribute = dotted.rpartition(".")
            assert callable(getattr(importlib.import_module(place), attribute))


def test_an_unknown_command_is_a_sentence(capsys):
    assert run(["smaple"]) == 2
    assert capsys.readouterr().err == "error: There is no command 'smaple': did you mean 'sample'?\n"


def test_debug_is_taken_from_any_place(monkeypatch, capsys):
    monkeypatch.setenv("CM_RAY_DEBUG", "")
    assert run(["--debug", "smaple"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("file", sorted((ROOT / "jobs").glob("[a-z]*.py")), ids=lambda file: file.stem)
def test_jobs_call_a_command(file, monkeypatch):
    called = []
    monkeypatch.setattr(module, "job", lambda *words: called.append(words))
    runpy.run_path(str(file), run_name="__main__")
    ((name, *words),) = called
    assert name in COMMANDS
    if name == "train" and words:
        method, _, data = file.stem.partition("_")
        assert words == [f"{method}_{data.replace('cifar', 'cifar10')}"]


def test_training_steps_alone_are_called_steps():
    for name, command in COMMANDS.items():
        place, _, attribute = command.parse.rpartition(".")
        settings = getattr(importlib.import_module(place), attribute)
        if isinstance(settings, type):
            assert ("steps" in settings.__dataclass_fields__) == (name == "classifier"), name
            calls_mlflow = bool({"model", "run_dir"} & {*settings.__dataclass_fields__}) and name != "track"
            assert calls_mlflow == ("tracking_uri" in settings.__dataclass_fields__), name


def test_the_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"cm_ray {cm_ray.__version__}\n"
    assert run(["--version", "please"]) == 2
