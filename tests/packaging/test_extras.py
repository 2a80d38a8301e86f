"""A package that is not installed is named in one sentence, with the extra that installs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from cm_ray.command_line.commands import serve
from cm_ray.command_line.settings.serve import Serving
from cm_ray.errors import UserError
from cm_ray.extras import MissingPackage, needs
from cm_ray.metrics.extractors.digits_classifier import load_digits_images
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.networks import vision
from cm_ray.networks.formats.exporting import write_onnx
from cm_ray.page.layout import gradio
from cm_ray.reports.comparison import Cell, write_comparison
from cm_ray.tracking.store import calling_mlflow, check_uri
from tests.cluster.tiny import make_tiny_run
from tests.tracking.tracked_runs import score

ROOT = Path(__file__).parents[2]
OPTIONAL = {
    "train": ("ray", "optuna", "pyarrow", "matplotlib", "sklearn", "scipy", "tqdm", "pandas"),
    "track": ("mlflow",),
    "scores": ("torchvision", "lpips", "cleanfid"),
    "app": ("gradio", "fastapi", "uvicorn", "starlette"),
    "serve": ("watchfiles",),
    "onnx": ("onnx", "onnxscript"),
    "cloud": ("obstore",),
}
HIDING = """
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in {names}
        return None if hidden else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Hiding, sys.meta_path)
{code}
"""
CELL = Cell(
    method="CD",
    seed=0,
    score=score(1.0).to_row(),
    noise_distance=20.0,
    evaluations=1,
    seconds_per_1000=0.25,
    training_s=None,
    steps=1,
)
ALL = tuple(name for names in OPTIONAL.values() for name in names)


def without(names, code):
    """Run Python code in a process in which packages cannot be imported."""
    return subprocess.run(
        [sys.executable, "-c", HIDING.format(names=set(names), code=code)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=250,
    )


@pytest.fixture
def hide(monkeypatch):
    """Let a package be absent in this process."""

    def hidden(package):
        class Hidden:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == package:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [Hidden(), *sys.meta_path])

    return hidden


def call_mlflow():
    with calling_mlflow(1):
        pass


@pytest.mark.parametrize(
    ("package", "extra", "use"),
    [
        ("mlflow", "track", lambda: check_uri("http://127.0.0.1:5000")),
        ("mlflow", "track", call_mlflow),
        ("torchvision", "scores", vision.torchvision),
        ("cleanfid", "scores", lambda: open_extractor("clean-fid", "cpu")),
        ("gradio", "app", gradio),
        ("watchfiles", "serve", lambda: serve.run(Serving(model="any"))),
        ("onnx", "onnx", lambda: write_onnx(Path("nowhere.onnx"), None)),
        ("sklearn", "train", load_digits_images),
        ("matplotlib", "train", lambda: write_comparison([CELL], Path("table"), title="", note="")),
    ],
)
def test_what_is_missing_is_named_with_its_extra(package, extra, use, hide, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    hide(package)
    with pytest.raises(UserError, match=rf"{package} is not installed: run pip install 'cm_ray\[{extra}\]'"):
        use()


def test_several_packages_are_named_at_once():
    with pytest.raises(MissingPackage, match=r"no_a and no_b are not installed: run .*, or wait\.") as told:
        needs("numpy", "no_a", "no_b", extra="train", instead="wait")
    assert isinstance(told.value, ImportError)
    assert told.value.name == "no_a"
    needs("numpy", extra="train")


def test_sampling_needs_the_base_alone(tmp_path):
    run = make_tiny_run(tmp_path / "run")
    code = f"""
from cm_ray.command_line.main import run
sys.exit(run(["sample", {str(run.root)!r}, "--samples", "2", "--nfe", "1", "--out", {str(tmp_path / "x")!r}]))
"""
    done = without(ALL, code)
    assert done.returncode == 0, done.stderr
    assert re.match(r" +\d+\.\d s  importing PyTorch and other libraries\n", done.stderr), "a sign of life"
    assert (tmp_path / "x.png").is_file()


@pytest.mark.parametrize(
    ("hidden", "command", "sentence"),
    [
        (("ray",), ["train", "ict_digits"], "ray is not installed: run pip install 'cm_ray[train]'."),
        (("optuna",), ["sweep", "digits_ict"], "optuna is not installed: run pip install 'cm_ray[train]'."),
        (
            ALL,
            ["score", "runs/x"],
            "ray and pyarrow and tqdm are not installed: run pip install 'cm_ray[train]'.",
        ),
    ],
)
def test_commands_say_what_they_need(hidden, command, sentence):
    code = f"from cm_ray.command_line.main import run\nsys.exit(run({command}))"
    done = without(hidden, code)
    assert done.returncode == 2, done.stderr
    *_, last = done.stderr.splitlines()
    assert last == f"error: {sentence}"
    assert "Traceback" not in done.stderr


def test_help_needs_the_base_alone():
    code = "from cm_ray.command_line.main import run\nrun(['score', '--help'])"
    done = without(ALL, code)
    assert done.returncode == 0, done.stderr
    assert "--actors.count" in done.stdout


def test_the_extras_have_what_they_are_named_for():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = {"sklearn": "scikit-learn", "cleanfid": "clean-fid"}
    brought = {"pandas", "fastapi", "uvicorn", "starlette", "watchfiles"}  # by Ray and Gradio
    for extra, packages in OPTIONAL.items():
        there = {Requirement(text).name for text in extras[extra]}
        assert {named.get(name, name) for name in packages if name not in brought} <= there
    base = {Requirement(text).name for text in project["dependencies"]}
    assert base == {"torch", "numpy", "pillow", "safetensors", "tyro"}
    (everything,) = (Requirement(text) for text in extras["all"])
    assert everything.extras == set(OPTIONAL)
