"""The console command `cm-ray`: its subcommands, which the files of jobs/ call, too.

Answers to --help, mistyped options and refused settings come before torch and Ray are imported.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from cm_ray.command_line.options import DRY_RUN, exit_code, option_paths, parse, without_debug
from cm_ray.command_line.postponed import is_postponed, load, postpone
from cm_ray.errors import UserError, closest
from cm_ray.own_code import CodeSettings, allow, allow_given, forgotten_afterwards
from cm_ray.phases import begin, phase
from cm_ray.spinning import SPIN_COUNT
from cm_ray.version import __version__

_COMMANDS = "cm_ray.command_line.commands"
_SETTINGS = "cm_ray.command_line.settings"
_DRY_RUN = f"{_COMMANDS}.dry_run"


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand, whose modules are imported when it is called."""

    summary: str
    """Its line in the list of commands."""
    parse: str
    """Dotted name of the dataclass of its settings, or of a function of (arguments, prog=) that parses
    them."""
    run: str
    """Dotted name of the function that is called with the settings."""
    look: str = ""
    """Dotted name of the function that is called with the settings after --dry-run; empty for a command that
    reads no images."""
    paths: str = ""
    """Dotted name of a function that returns the paths of its options; empty for those of the dataclass."""


COMMANDS = {
    "train": Command(
        "Train a recipe, and go on with an interrupted run.",
        "cm_ray.command_line.training.parse_training",
        f"{_COMMANDS}.train.run",
        f"{_COMMANDS}.train.look",
        "cm_ray.command_line.training.training_paths",
    ),
    "sample": Command("Draw images from a model.", f"{_SETTINGS}.sample.Sample", f"{_COMMANDS}.sample.run"),
    "score": Command(
        "Score a model, or any images, against a data set.",
        f"{_SETTINGS}.score.Evaluation",
        f"{_COMMANDS}.score.run",
        f"{_DRY_RUN}.of_scores",
    ),
    "sweep": Command(
        "Search for settings with Ray Tune and Optuna.",
        "cm_ray.command_line.sweeping.parse_sweep",
        f"{_COMMANDS}.sweep.run",
        f"{_DRY_RUN}.of_sweep",
        "cm_ray.command_line.sweeping.sweep_paths",
    ),
    "time-points": Command(
        "Find the time points of multistep sampling.",
        f"{_SETTINGS}.time_points.TimePointSearch",
        f"{_COMMANDS}.time_points.run",
        f"{_DRY_RUN}.of_time_points",
    ),
    "averages": Command(
        "Choose the length of an average after the training.",
        f"{_SETTINGS}.averages.AverageLengths",
        f"{_COMMANDS}.averages.run",
        f"{_DRY_RUN}.of_averages",
    ),
    "likelihood": Command(
        "Compute the likelihood of images under a diffusion model.",
        f"{_SETTINGS}.likelihood.LikelihoodSettings",
        f"{_COMMANDS}.likelihood.run",
        f"{_DRY_RUN}.of_likelihood",
    ),
    "classifier": Command(
        "Train a classifier of noisy images, which guides samples.",
        f"{_SETTINGS}.classifier.ClassifierSettings",
        f"{_COMMANDS}.classifier.run",
    ),
    "edit": Command(
        "Edit images with a model.",
        f"{_SETTINGS}.edit.Editing",
        f"{_COMMANDS}.edit.run",
        f"{_DRY_RUN}.of_edits",
    ),
    "export": Command(
        "Write a model for other tools.", f"{_SETTINGS}.export.Export", f"{_COMMANDS}.export.run"
    ),
    "app": Command(
        "Show a page to try a model in the browser.",
        f"{_SETTINGS}.app.PageSettings",
        "cm_ray.page.server.serve",
    ),
    "serve": Command(
        "Serve a model over HTTP by Ray Serve.", f"{_SETTINGS}.serve.Serving", f"{_COMMANDS}.serve.run"
    ),
    "shards": Command(
        "Turn images into shards.",
        f"{_SETTINGS}.shards.Shards",
        f"{_COMMANDS}.shards.run",
        f"{_DRY_RUN}.of_shards",
    ),
    "memory": Command(
        "Estimate the memory of a training.",
        f"{_SETTINGS}.memory.MemoryQuestion",
        f"{_COMMANDS}.memory.run",
    ),
    "paper-table": Command(
        "Make the paper's table for one data set.",
        f"{_SETTINGS}.paper_table.PaperTable",
        f"{_COMMANDS}.paper_table.run",
        f"{_DRY_RUN}.of_paper_table",
    ),
    "track": Command(
        "Send a run to MLflow after the server was away.",
        f"{_SETTINGS}.track.Track",
        f"{_COMMANDS}.track.run",
    ),
}
"""Every subcommand by name."""


def main() -> None:
    """Run `cm-ray` on this process's arguments and exit with its code."""
    sys.exit(run(sys.argv[1:], prog="cm-ray"))


def job(*words: str) -> None:
    """Run a subcommand as a script of jobs/ does: `words`, then this process's arguments; exit with its code.

    words: the name of the subcommand, and arguments that come first, such as the name of a recipe.
    """
    sys.exit(run([*words, *sys.argv[1:]]))


def run(arguments: Sequence[str], *, prog: str | None = None) -> int:
    """Run the subcommand that the first argument names; return the exit code.

    prog: name of the program in help texts; None stands for the running script's. Exit codes are those of
    `cm_ray.command_line.options.exit_code`. Exits with 0 after --help.
    """
    begin()
    os.environ.setdefault(*SPIN_COUNT)  # before torch is executed, which reads it
    postpone()
    words = without_debug(arguments)
    with forgotten_afterwards():
        return exit_code(lambda: _parse_and_run(words, prog), partial(option_paths_of, *words[:1]))


def option_paths_of(name: str = "") -> Collection[str]:
    """Return the paths of the settings that a command has options for; none of no command."""
    if name not in COMMANDS:
        return ()
    command = COMMANDS[name]
    paths: Collection[str] = _named(command.paths)() if command.paths else option_paths(_named(command.parse))
    return paths


def _parse_and_run(arguments: list[str], prog: str | None) -> None:
    if arguments[:1] in ([], ["--help"], ["-h"]):
        print(_list_of_commands())
        return
    if arguments == ["--version"]:
        print(f"cm_ray {__version__}")
        return
    name = arguments[0]
    if name not in COMMANDS:
        raise UserError(f"There is no command {name!r}: {closest(name, list(COMMANDS))}")
    command, words = COMMANDS[name], [word for word in arguments[1:] if word != DRY_RUN]
    action = command.run if words == arguments[1:] else command.look
    if not action:
        raise UserError(f"{name} reads no data set that {DRY_RUN} could look at; leave it out.")
    parser, shown = _named(command.parse), f"{prog} {name}" if prog else None
    if isinstance(parser, type):
        settings: object = parse(parser, words, prog=shown)
    else:
        settings = parser(words, prog=shown)
    if isinstance(settings, CodeSettings):
        allow(settings.own_code)
        allow_given(settings)
    if is_postponed():
        phase("importing PyTorch and other libraries")
    load()  # what runs from here on may start threads and pickle modules
    _named(action)(settings)


def _named(dotted: str) -> Any:
    """Return a function or class by its dotted name."""
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _list_of_commands() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "usage: cm-ray COMMAND [options]",
            "",
            "Train, tune and use consistency models on one machine or a Ray cluster.",
            "",
            *(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()),
            "",
            "cm-ray COMMAND --help shows the options of a command, cm-ray --version the version.",
        ]
    )
