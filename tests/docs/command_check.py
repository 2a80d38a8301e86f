"""Parsing of documented commands by the parsers of the commands themselves, without running them."""

import contextlib
import importlib
import io
import re
import runpy
import shlex
import sys
import tomllib
from unittest import mock

from cm_ray.command_line import main, options
from cm_ray.command_line.options import parse, parse_changes
from cm_ray.core.diffusion import Diffusion
from cm_ray.errors import SettingError, UserError
from cm_ray.recipes import RECIPES
from cm_ray.recipes.own_images import METHODS
from cm_ray.recipes.recipe import Recipe, check_models_named
from cm_ray.sampling.text import parse as parse_sampler
from cm_ray.settings.tree import override
from cm_ray.sweeps.space_files import load_space
from tests.docs.documents import ROOT

OTHERS = {
    "curl",
    "docker",
    "echo",
    "export",
    "kubectl",
    "mlflow",
    "optuna-dashboard",
    "ray",
    "source",
    "tensorboard",
}
"""Programs whose options are not checked here."""


def check_command(line):
    """Parse a command line as its program would. Raises AssertionError with what the program would say."""
    words = shlex.split(line, comments=True)
    for number in range(len(words) - 1):  # python jobs/x.py, also within `ray job submit` and `docker run`
        if words[number] == "python" and re.match(r"(jobs|benchmarks)/", words[number + 1]):
            return check_script(words[number + 1], words[number + 2 :])
    if words[0] == "cm-ray":
        return check_cm_ray(words[1:])
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets, f"there is no target {words[1]}"
    elif "pip" in words:
        check_extras(words)
    elif "pytest" in words:
        paths = [word for word in words if word.startswith("tests")]
        assert all((ROOT / path).exists() for path in paths), paths
    else:
        assert words[0] in OTHERS, f"{words[0]} is not known to this test"


def check_extras(words):
    """Check that every extra of cm_ray in a `pip install` exists."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = [name for word in words for part in re.findall(r"\[(.*)\]", word) for name in part.split(",")]
    assert "install" in words
    assert set(named) <= set(extras), named


def check_script(script, arguments):
    """Parse the arguments of a script of jobs/ or benchmarks/, by the parser that the script itself calls."""
    called = []

    def job(*words):
        called.append(script)
        check_cm_ray([*words, *arguments])

    def run_job(settings, run, description=""):
        called.append(script)
        answered(lambda: parse(settings, arguments, prog=script))

    takes_job = mock.patch.object(main, "job", job)
    takes_settings = mock.patch.object(options, "run_job", run_job)
    path = mock.patch.object(sys, "path", [str((ROOT / script).parent), *sys.path])
    with takes_job, takes_settings, path:
        if "def options_parser(" in (ROOT / script).read_text():
            parser = runpy.run_path(str(ROOT / script), run_name="checked")["options_parser"]()
            answered(lambda: parser.parse_args(arguments))
            return
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert called == [script]


def check_cm_ray(arguments):
    """Parse the arguments of `cm-ray`, and check what its settings name."""
    name, *rest = [word for word in options.without_debug(arguments) if word != options.DRY_RUN]
    if name == "--help":
        return
    assert name in main.COMMANDS, f"there is no command {name}"
    if name == "train" and rest[:1] and rest[0] in METHODS:  # the images of the documents are not there
        rest = [f"{rest[0]}_cifar10", *rest[1:]]
    place, _, attribute = main.COMMANDS[name].parse.rpartition(".")
    parser = getattr(importlib.import_module(place), attribute)
    settings = answered(lambda: parse(parser, rest) if isinstance(parser, type) else parser(rest))
    if settings is not None:
        answered(lambda: check_settings(name, settings))


def answered(action):
    """Return what `action` returns; None if it answers --help. Fails with the sentence of a refusal."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return action()
    except UserError as error:
        raise AssertionError(str(error)) from error
    except SystemExit as ended:
        if ended.code:
            raise AssertionError(said.getvalue()) from ended
        return None


def check_settings(name, settings):
    """Check what parsing alone does not: models that a recipe begins with, recipes, spaces, samplers."""
    if name == "train":
        if isinstance(settings, Recipe):  # auto has none yet
            check_models_named(settings)
    elif name == "memory":
        assert set(settings.recipes) <= set(RECIPES), settings.recipes
    elif name == "sweep":
        teacher = {"teacher.model": settings.teacher} if settings.teacher else {}
        check_models_named(load_space(settings.space, parse_changes(settings.set) | teacher).base)
    elif name == "paper-table":
        override(RECIPES[f"ct_{settings.data}"](), parse_changes(settings.set))
    elif name in ("sample", "score"):
        texts = settings.samplers if name == "score" else [settings.sampler]
        for text in filter(None, texts):
            check_sampler(text)


def check_sampler(text):
    """Check that a text names a sampler, of consistency models, also of two times, or of diffusion models."""
    try:
        parse_sampler(text, Diffusion(boundary="two-times"))
    except SettingError:
        raise
    except UserError:
        parse_sampler(text, Diffusion(boundary="none"))
